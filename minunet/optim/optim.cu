// The update rules of rules.py for many parameters at once: a block has a piece of one of them, and its threads read each weight,
// gradient and state once and write them once. The arrays of a parameter lie in memory in one order of the axes, so neighbouring
// threads have neighbours in all of them.
//
// A part of the state that is not in use is a null pointer. The numbers of a rule lie in memory, a row for each parameter: those that a
// launch is handed by value a graph would repeat in every step.

#include "cuda.cuh"

// What a block has of a parameter: `count` of its numbers, from `first` on.
struct Piece {
    long long parameter, first;
    int count;
};

// pieces: for each block the parameter, the first of its numbers, and how many they are.
__device__ inline Piece piece_of_block(const long long* pieces) {
    const long long* const row = pieces + 3 * (long long)blockIdx.x;
    return Piece{row[0], row[1], (int)row[2]};
}

// Where the piece begins in the parameter's array of a list; null where the list has none.
template <class T>
__device__ inline T* begin(T* const* arrays, const Piece& piece) {
    T* const array = arrays[piece.parameter];
    return array ? array + piece.first : nullptr;
}

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

// The row of the block's parameter.
template <class Options>
__device__ inline Options options_of(const REAL* rows, const Piece& piece) {
    return ((const Options*)rows)[piece.parameter];
}

// b ← μ·b + gain·g    w ← w − η·b, or w − η·(g + μ·b)
extern "C" __global__ void optim_sgd(
    REAL* const* __restrict__ weights, const REAL* const* __restrict__ grads, REAL* const* __restrict__ velocities,
    const long long* __restrict__ pieces, const REAL* __restrict__ options)
{
    const Piece piece = piece_of_block(pieces);
    const SGD o = options_of<SGD>(options, piece);
    REAL* const __restrict__ w = begin(weights, piece);
    const REAL* const __restrict__ g = begin(grads, piece);
    REAL* const __restrict__ b = begin(velocities, piece);
    for (int i = threadIdx.x; i < piece.count; i += blockDim.x) {
        REAL step = slope_of(g[i], w[i], o.sign, o.decay);
        if (b) {
            const REAL velocity = o.momentum * b[i] + o.gain * step;
            b[i] = velocity;
            step = o.nesterov != 0 ? step + o.momentum * velocity : velocity;
        }
        w[i] -= o.lr * step;
    }
}

// m ← m + gain·(g − m)    v ← β₂·v + gain₂·g²    w ← shrink·w − rate·m/(√v + ε), with the largest v so far where it is kept
extern "C" __global__ void optim_adam(
    REAL* const* __restrict__ weights, const REAL* const* __restrict__ grads, REAL* const* __restrict__ means,
    REAL* const* __restrict__ squares, REAL* const* __restrict__ tops, const long long* __restrict__ pieces, const REAL* __restrict__ options)
{
    const Piece piece = piece_of_block(pieces);
    const Adam o = options_of<Adam>(options, piece);
    REAL* const __restrict__ w = begin(weights, piece);
    const REAL* const __restrict__ g = begin(grads, piece);
    REAL* const __restrict__ m = begin(means, piece);
    REAL* const __restrict__ v = begin(squares, piece);
    REAL* const __restrict__ largest = begin(tops, piece);
    for (int i = threadIdx.x; i < piece.count; i += blockDim.x) {
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
}

// s ← α·s + gain·g²    b ← μ·b + g/(√(s − a²) + ε)    w ← w − η·b, with a ← a + gain·(g − a) where it is kept
extern "C" __global__ void optim_rmsprop(
    REAL* const* __restrict__ weights, const REAL* const* __restrict__ grads, REAL* const* __restrict__ squares,
    REAL* const* __restrict__ velocities, REAL* const* __restrict__ means, const long long* __restrict__ pieces, const REAL* __restrict__ options)
{
    const Piece piece = piece_of_block(pieces);
    const RMSprop o = options_of<RMSprop>(options, piece);
    REAL* const __restrict__ w = begin(weights, piece);
    const REAL* const __restrict__ g = begin(grads, piece);
    REAL* const __restrict__ s = begin(squares, piece);
    REAL* const __restrict__ b = begin(velocities, piece);
    REAL* const __restrict__ a = begin(means, piece);
    for (int i = threadIdx.x; i < piece.count; i += blockDim.x) {
        const REAL slope = slope_of(g[i], w[i], o.sign, o.decay);
        const REAL square = o.alpha * s[i] + o.gain * slope * slope;
        s[i] = square;
        REAL mean = 0;
        if (a) a[i] = mean = a[i] + o.gain * (slope - a[i]);
        REAL velocity = slope / (sqrt(square - mean * mean) + o.eps);
        if (b) b[i] = velocity = o.momentum * b[i] + velocity;
        w[i] -= o.lr * velocity;
    }
}

// g ← factor·g. `found` becomes 1 where one is not finite then: whoever writes it writes the same.
extern "C" __global__ void optim_unscale(
    REAL* const* __restrict__ arrays, const long long* __restrict__ pieces, int* __restrict__ found, const REAL factor)
{
    const Piece piece = piece_of_block(pieces);
    REAL* const __restrict__ g = begin(arrays, piece);
    for (int i = threadIdx.x; i < piece.count; i += blockDim.x) {
        const REAL slope = factor * g[i];
        g[i] = slope;
        if (!(abs(slope) < infinity())) *found = 1;  // NaN is below nothing
    }
}
