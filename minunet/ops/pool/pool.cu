// Maximum pooling, as minunet/ops/pool/__init__.py writes it: each result is gathered by one thread, so two runs are bit-identical.
//
// Arrays are volumes (N, C, D, H, W) with any steps between elements. The threads are counted as the results lie in memory. Channels
// last, a warp has the channels of a few pixels: it takes the same way through every loop and branch, and all that it reads lies side by
// side; a thread takes as many channels as one instruction moves (`wide`), so that the arithmetic which finds a pixel is done once for
// them. Channels first, a warp has 32 pixels of a row and reads every s-th element of a row of x; the places between are read by the next
// tap, out of the cache. Either way memory is read once: x and y, and a winner for each y.
//
// A winner is the number of its place in the window, in the smallest signed integer that counts the places; −1 where there is none.

#include "cuda.cuh"
#include "volumes.cuh"

struct Windows {
    int samples, channels;                                                      // N, C
    int in[3], out[3], kernel[3], stride[3], before[3], dilation[3], cells[3];  // along D, H, W
    bool channels_last;                                                         // the order of the results in memory
    bool wide;                                                                  // a thread has WIDE channels
};

// y[n,c,p] = max_k x[n,c,s·p+d·k−b], and the first place that attains it. A NaN is greater than any number; of several the last wins.
// One thread for `count` channels of a y.
template <int count, class Winner>
__device__ inline void max_forward(
    const STORED* x, const Steps<5>& x_steps, STORED* y, const Steps<5>& y_steps, Winner* winners, const Steps<5>& winners_steps,
    const Windows& g)
{
    const long long number = thread_number();
    if (number >= volume(g.out) * (g.channels / count) * g.samples) return;
    const Element e = element_of<count>(number, g.channels, g.out, g.channels_last);
    const int* p = e.i;
    REAL best[count];
    Together<Winner, count> winner;
    for (int c = 0; c < count; c++) {
        best[c] = -infinity();  // the maximum of no elements
        winner.number[c] = -1;
    }
    int place = 0, k[3], i[3];
    for (k[0] = 0; k[0] < g.kernel[0]; k[0]++)
        for (k[1] = 0; k[1] < g.kernel[1]; k[1]++)
            for (k[2] = 0; k[2] < g.kernel[2]; k[2]++, place++) {
                if (!inside(g, p, k, i)) continue;
                const Together<STORED, count> candidates = together<count>(x + x_steps(e.n, e.c, i[0], i[1], i[2]));
                for (int c = 0; c < count; c++) {
                    const REAL candidate = candidates.number[c];
                    if (candidate > best[c] || candidate != candidate || winner.number[c] < 0) {
                        best[c] = candidate;
                        winner.number[c] = place;
                    }
                }
            }
    Together<STORED, count> result;
    for (int c = 0; c < count; c++) result.number[c] = best[c];
    put(y + y_steps(e.n, e.c, p[0], p[1], p[2]), result);
    put(winners + winners_steps(e.n, e.c, p[0], p[1], p[2]), winner);
}

// Which place of a window is `far` elements behind its first, or −1: a dilated window covers elements that it does not read.
__device__ inline int place_at(int far, int dilation) { return dilation == 1 ? far : far % dilation == 0 ? far / dilation : -1; }

// ∂x[n,c,i] = Σ_{p,k: s·p+d·k−b=i} ∂y[n,c,p]·[k = k*(n,c,p)]
//
// One thread for `count` channels of a cell: the elements i = s·p + r − b, 0 ≤ r < s. They are covered by the windows p, p − 1, …, the
// first of which they lie r behind, and no division is needed to find those. Where windows do not overlap, p is the only one. Its loop
// begins there: k then grows, and the terms are added in the order of the definition.
template <int count, class Winner>
__device__ inline void max_backward(
    const STORED* gy, const Steps<5>& gy_steps, const Winner* winners, const Steps<5>& winners_steps, STORED* gx, const Steps<5>& gx_steps,
    const Windows& g)
{
    const long long number = thread_number();
    if (number >= volume(g.cells) * (g.channels / count) * g.samples) return;
    const Element cell = element_of<count>(number, g.channels, g.cells, g.channels_last);
    int reach[3], r[3], far[3], p[3];
    for (int axis = 0; axis < 3; axis++) reach[axis] = g.dilation[axis] * (g.kernel[axis] - 1);
    for (r[0] = 0; r[0] < g.stride[0]; r[0]++)
        for (r[1] = 0; r[1] < g.stride[1]; r[1]++)
            for (r[2] = 0; r[2] < g.stride[2]; r[2]++) {
                int i[3];
                bool is_inside = true;
                for (int axis = 0; axis < 3; axis++) {
                    i[axis] = g.stride[axis] * cell.i[axis] + r[axis] - g.before[axis];
                    is_inside = is_inside && 0 <= i[axis] && i[axis] < g.in[axis];
                }
                if (!is_inside) continue;
                REAL sum[count] = {};
                for (far[0] = r[0], p[0] = cell.i[0]; far[0] <= reach[0] && p[0] >= 0; far[0] += g.stride[0], p[0]--)
                    for (far[1] = r[1], p[1] = cell.i[1]; far[1] <= reach[1] && p[1] >= 0; far[1] += g.stride[1], p[1]--)
                        for (far[2] = r[2], p[2] = cell.i[2]; far[2] <= reach[2] && p[2] >= 0; far[2] += g.stride[2], p[2]--) {
                            bool meets = true;
                            int place = 0;
                            for (int axis = 0; axis < 3; axis++) {
                                const int k = place_at(far[axis], g.dilation[axis]);
                                meets = meets && k >= 0 && p[axis] < g.out[axis];
                                place = place * g.kernel[axis] + k;
                            }
                            if (!meets) continue;
                            const auto winner = together<count>(winners + winners_steps(cell.n, cell.c, p[0], p[1], p[2]));
                            const auto terms = together<count>(gy + gy_steps(cell.n, cell.c, p[0], p[1], p[2]));
                            for (int c = 0; c < count; c++)
                                if (winner.number[c] == place) sum[c] += terms.number[c];
                        }
                Together<STORED, count> result;
                for (int c = 0; c < count; c++) result.number[c] = sum[c];
                put(gx + gx_steps(cell.n, cell.c, i[0], i[1], i[2]), result);
            }
}

// The kernels, each for three sizes of winners.

extern "C" __global__ void max_forward_int8(
    const STORED* __restrict__ x, const Steps<5> x_steps, STORED* __restrict__ y, const Steps<5> y_steps,
    signed char* __restrict__ winners, const Steps<5> winners_steps, const Windows g)
{
    if (g.wide) max_forward<WIDE>(x, x_steps, y, y_steps, winners, winners_steps, g);
    else max_forward<1>(x, x_steps, y, y_steps, winners, winners_steps, g);
}

extern "C" __global__ void max_forward_int16(
    const STORED* __restrict__ x, const Steps<5> x_steps, STORED* __restrict__ y, const Steps<5> y_steps,
    short* __restrict__ winners, const Steps<5> winners_steps, const Windows g)
{
    if (g.wide) max_forward<WIDE>(x, x_steps, y, y_steps, winners, winners_steps, g);
    else max_forward<1>(x, x_steps, y, y_steps, winners, winners_steps, g);
}

extern "C" __global__ void max_forward_int32(
    const STORED* __restrict__ x, const Steps<5> x_steps, STORED* __restrict__ y, const Steps<5> y_steps,
    int* __restrict__ winners, const Steps<5> winners_steps, const Windows g)
{
    if (g.wide) max_forward<WIDE>(x, x_steps, y, y_steps, winners, winners_steps, g);
    else max_forward<1>(x, x_steps, y, y_steps, winners, winners_steps, g);
}

extern "C" __global__ void max_backward_int8(
    const STORED* __restrict__ gy, const Steps<5> gy_steps, const signed char* __restrict__ winners, const Steps<5> winners_steps,
    STORED* __restrict__ gx, const Steps<5> gx_steps, const Windows g)
{
    if (g.wide) max_backward<WIDE>(gy, gy_steps, winners, winners_steps, gx, gx_steps, g);
    else max_backward<1>(gy, gy_steps, winners, winners_steps, gx, gx_steps, g);
}

extern "C" __global__ void max_backward_int16(
    const STORED* __restrict__ gy, const Steps<5> gy_steps, const short* __restrict__ winners, const Steps<5> winners_steps,
    STORED* __restrict__ gx, const Steps<5> gx_steps, const Windows g)
{
    if (g.wide) max_backward<WIDE>(gy, gy_steps, winners, winners_steps, gx, gx_steps, g);
    else max_backward<1>(gy, gy_steps, winners, winners_steps, gx, gx_steps, g);
}

extern "C" __global__ void max_backward_int32(
    const STORED* __restrict__ gy, const Steps<5> gy_steps, const int* __restrict__ winners, const Steps<5> winners_steps,
    STORED* __restrict__ gx, const Steps<5> gx_steps, const Windows g)
{
    if (g.wide) max_backward<WIDE>(gy, gy_steps, winners, winners_steps, gx, gx_steps, g);
    else max_backward<1>(gy, gy_steps, winners, winners_steps, gx, gx_steps, g);
}
