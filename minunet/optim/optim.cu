// The update rules of rules.py for one parameter: a thread has one number of it, reads weight, gradient and state once and writes them
// once. The arrays of a parameter lie in memory in one order of the axes, so neighbouring threads have neighbours in all of them.
//
// A part of the state that is not in use is a null pointer.

#include "cuda.cuh"

// The gradient to follow: towards larger values where sign is −1, with the weight decay.
__device__ inline REAL slope_of(REAL g, REAL w, REAL sign, REAL decay) {
    return decay != 0 ? sign * g + decay * w : sign * g;
}

struct SGD {
    REAL sign, decay, lr, momentum, gain, nesterov;
};

struct Adam {
    REAL sign, decay, shrink, gain, beta2, gain2, rate, eps;
};

struct RMSprop {
    REAL sign, decay, lr, alpha, gain, eps, momentum;
};

// b ← μ·b + gain·g    w ← w − η·b, or w − η·(g + μ·b)
extern "C" __global__ void optim_sgd(
    REAL* __restrict__ w, const REAL* __restrict__ g, REAL* __restrict__ b, const long long count, const SGD o)
{
    const long long i = thread_number();
    if (i >= count) return;
    REAL step = slope_of(g[i], w[i], o.sign, o.decay);
    if (b) {
        const REAL velocity = o.momentum * b[i] + o.gain * step;
        b[i] = velocity;
        step = o.nesterov != 0 ? step + o.momentum * velocity : velocity;
    }
    w[i] -= o.lr * step;
}

// m ← m + gain·(g − m)    v ← β₂·v + gain₂·g²    w ← shrink·w − rate·m/(√v + ε), with the largest v so far where it is kept
extern "C" __global__ void optim_adam(
    REAL* __restrict__ w, const REAL* __restrict__ g, REAL* __restrict__ m, REAL* __restrict__ v, REAL* __restrict__ largest,
    const long long count, const Adam o)
{
    const long long i = thread_number();
    if (i >= count) return;
    const REAL slope = slope_of(g[i], w[i], o.sign, o.decay);
    const REAL mean = m[i] + o.gain * (slope - m[i]);
    const REAL square = o.beta2 * v[i] + o.gain2 * slope * slope;
    REAL top = square;
    m[i] = mean;
    v[i] = square;
    if (largest) {
        top = largest[i] >= square || largest[i] != largest[i] ? largest[i] : square;  // a NaN stays
        largest[i] = top;
    }
    w[i] = o.shrink * w[i] - o.rate * mean / (sqrt(top) + o.eps);
}

// s ← α·s + gain·g²    b ← μ·b + g/(√(s − a²) + ε)    w ← w − η·b, with a ← a + gain·(g − a) where it is kept
extern "C" __global__ void optim_rmsprop(
    REAL* __restrict__ w, const REAL* __restrict__ g, REAL* __restrict__ s, REAL* __restrict__ b, REAL* __restrict__ a,
    const long long count, const RMSprop o)
{
    const long long i = thread_number();
    if (i >= count) return;
    const REAL slope = slope_of(g[i], w[i], o.sign, o.decay);
    const REAL square = o.alpha * s[i] + o.gain * slope * slope;
    s[i] = square;
    REAL mean = 0;
    if (a) a[i] = mean = a[i] + o.gain * (slope - a[i]);
    REAL velocity = slope / (sqrt(square - mean * mean) + o.eps);
    if (b) b[i] = velocity = o.momentum * b[i] + velocity;
    w[i] -= o.lr * velocity;
}
