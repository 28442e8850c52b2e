// Maximum pooling, as minunet/ops/pool/__init__.py writes it: one thread gathers one result, so two runs are bit-identical.
//
// Arrays are volumes (N, C, D, H, W) with any steps between elements. The threads are counted as the results lie in memory. Channels
// last, a warp has 32 channels of one pixel: it takes the same way through every loop and branch, and all that it reads lies side by
// side. Channels first, it has 32 pixels of a row and reads every s-th element of a row of x; the places between are read by the next
// tap, out of the cache. Either way memory is read once: x and y, and a winner for each y.
//
// A winner is the number of its place in the window, in the smallest signed integer that counts the places; −1 where there is none.

#include "cuda.cuh"
#include "volumes.cuh"

struct Windows {
    int samples, channels;                                            // N, C
    int in[3], out[3], kernel[3], stride[3], before[3], dilation[3];  // along D, H, W
    bool channels_last;                                               // the order of the results in memory
};

// y[n,c,p] = max_k x[n,c,s·p+d·k−b], and the first place that attains it. A NaN is greater than any number; of several the last wins.
// One thread for each y.
template <class Winner>
__device__ inline void max_forward(
    const STORED* x, const Steps<5>& x_steps, STORED* y, const Steps<5>& y_steps, Winner* winners, const Steps<5>& winners_steps,
    const Windows& g)
{
    const long long number = thread_number();
    if (number >= volume(g.out) * g.channels * g.samples) return;
    const Element e = element_of(number, g.channels, g.out, g.channels_last);
    const int* p = e.i;
    REAL best = -infinity();  // the maximum of no elements
    int winner = -1, place = 0, k[3], i[3];
    for (k[0] = 0; k[0] < g.kernel[0]; k[0]++)
        for (k[1] = 0; k[1] < g.kernel[1]; k[1]++)
            for (k[2] = 0; k[2] < g.kernel[2]; k[2]++, place++) {
                if (!inside(g, p, k, i)) continue;
                const REAL candidate = x[x_steps(e.n, e.c, i[0], i[1], i[2])];
                if (candidate > best || candidate != candidate || winner < 0) {
                    best = candidate;
                    winner = place;
                }
            }
    y[y_steps(e.n, e.c, p[0], p[1], p[2])] = best;
    winners[winners_steps(e.n, e.c, p[0], p[1], p[2])] = winner;
}

// ∂x[n,c,i] = Σ_{p,k: s·p+d·k−b=i} ∂y[n,c,p]·[k = k*(n,c,p)]: one thread for each ∂x. Its loop is over the windows that cover i, the
// last one first: k then grows, and the terms are added in the order of the definition.
template <class Winner>
__device__ inline void max_backward(
    const STORED* gy, const Steps<5>& gy_steps, const Winner* winners, const Steps<5>& winners_steps, STORED* gx, const Steps<5>& gx_steps,
    const Windows& g)
{
    const long long number = thread_number();
    if (number >= volume(g.in) * g.channels * g.samples) return;
    const Element e = element_of(number, g.channels, g.in, g.channels_last);
    int reach[3], first[3], last[3], p[3];
    for (int axis = 0; axis < 3; axis++) {
        reach[axis] = e.i[axis] + g.before[axis];  // = s·p + d·k
        const int least = reach[axis] - g.dilation[axis] * (g.kernel[axis] - 1);  // s·p where k is the last place
        first[axis] = least > 0 ? (least + g.stride[axis] - 1) / g.stride[axis] : 0;
        last[axis] = min(reach[axis] / g.stride[axis], g.out[axis] - 1);
    }
    REAL sum = 0;
    for (p[0] = last[0]; p[0] >= first[0]; p[0]--)
        for (p[1] = last[1]; p[1] >= first[1]; p[1]--)
            for (p[2] = last[2]; p[2] >= first[2]; p[2]--) {
                bool meets = true;  // a dilated window can cover i and not read it
                int place = 0;
                for (int axis = 0; axis < 3; axis++) {
                    const int far = reach[axis] - g.stride[axis] * p[axis];
                    meets = meets && far % g.dilation[axis] == 0;
                    place = place * g.kernel[axis] + far / g.dilation[axis];
                }
                if (meets && winners[winners_steps(e.n, e.c, p[0], p[1], p[2])] == place)
                    sum += gy[gy_steps(e.n, e.c, p[0], p[1], p[2])];
            }
    gx[gx_steps(e.n, e.c, e.i[0], e.i[1], e.i[2])] = sum;
}

// The kernels, each for three sizes of winners.

extern "C" __global__ void max_forward_int8(
    const STORED* __restrict__ x, const Steps<5> x_steps, STORED* __restrict__ y, const Steps<5> y_steps,
    signed char* __restrict__ winners, const Steps<5> winners_steps, const Windows g)
{
    max_forward(x, x_steps, y, y_steps, winners, winners_steps, g);
}

extern "C" __global__ void max_forward_int16(
    const STORED* __restrict__ x, const Steps<5> x_steps, STORED* __restrict__ y, const Steps<5> y_steps,
    short* __restrict__ winners, const Steps<5> winners_steps, const Windows g)
{
    max_forward(x, x_steps, y, y_steps, winners, winners_steps, g);
}

extern "C" __global__ void max_forward_int32(
    const STORED* __restrict__ x, const Steps<5> x_steps, STORED* __restrict__ y, const Steps<5> y_steps,
    int* __restrict__ winners, const Steps<5> winners_steps, const Windows g)
{
    max_forward(x, x_steps, y, y_steps, winners, winners_steps, g);
}

extern "C" __global__ void max_backward_int8(
    const STORED* __restrict__ gy, const Steps<5> gy_steps, const signed char* __restrict__ winners, const Steps<5> winners_steps,
    STORED* __restrict__ gx, const Steps<5> gx_steps, const Windows g)
{
    max_backward(gy, gy_steps, winners, winners_steps, gx, gx_steps, g);
}

extern "C" __global__ void max_backward_int16(
    const STORED* __restrict__ gy, const Steps<5> gy_steps, const short* __restrict__ winners, const Steps<5> winners_steps,
    STORED* __restrict__ gx, const Steps<5> gx_steps, const Windows g)
{
    max_backward(gy, gy_steps, winners, winners_steps, gx, gx_steps, g);
}

extern "C" __global__ void max_backward_int32(
    const STORED* __restrict__ gy, const Steps<5> gy_steps, const int* __restrict__ winners, const Steps<5> winners_steps,
    STORED* __restrict__ gx, const Steps<5> gx_steps, const Windows g)
{
    max_backward(gy, gy_steps, winners, winners_steps, gx, gx_steps, g);
}
