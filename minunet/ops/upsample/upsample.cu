// Resampling over tables, as minunet/ops/upsample/__init__.py writes it. It serves nearest and linear interpolation, average pooling,
// and the gradient of each, which reads the transposed tables: always a gather, so two runs are bit-identical.
//
// Arrays are volumes (N, C, D, H, W) with any steps between elements; an absent axis has a table of one term. The threads are counted
// as the results lie in memory. Channels last, a warp has the channels of a few pixels: it reads the same lines of the tables, and x side
// by side; a thread takes as many channels as one instruction moves (`wide`), so that a pixel is found once for them. Channels first, it has 32 pixels of a row, whose sources lie in order in a row of x: side by side where the image grows, a
// few elements apart where it shrinks.

#include "cuda.cuh"
#include "volumes.cuh"

// The table of an axis: output i reads terms t = 0 … terms − 1, sources[first + i·terms + t] with weights[first + i·terms + t].
struct Tables {
    int samples, channels;           // N, C
    int out[3], terms[3], first[3];  // along D, H, W
    bool channels_last;              // the order of the results in memory
    bool wide;                       // a thread has WIDE channels
};

// y[n,c,i] = Σ_{t₁} w₁[i₁,t₁]·Σ_{t₂} w₂[i₂,t₂]·Σ_{t₃} w₃[i₃,t₃]·x[n,c, j₁[i₁,t₁], j₂[i₂,t₂], j₃[i₃,t₃]]: one thread for `count` channels
// of a y.
template <int count>
__device__ inline void resampled(
    const STORED* x, const Steps<5>& x_steps, const int* sources, const REAL* weights, STORED* y, const Steps<5>& y_steps,
    const Tables& tables)
{
    const long long number = thread_number();
    if (number >= volume(tables.out) * (tables.channels / count) * tables.samples) return;
    const Element e = element_of<count>(number, tables.channels, tables.out, tables.channels_last);
    const int* j[3];
    const REAL* w[3];
    for (int axis = 0; axis < 3; axis++) {
        const long long line = tables.first[axis] + (long long)e.i[axis] * tables.terms[axis];
        j[axis] = sources + line;
        w[axis] = weights + line;
    }
    REAL sum[count] = {};
    for (int d = 0; d < tables.terms[0]; d++) {
        REAL plane[count] = {};
        for (int h = 0; h < tables.terms[1]; h++) {
            REAL row[count] = {};
            for (int t = 0; t < tables.terms[2]; t++) {
                const auto terms = together<count>(x + x_steps(e.n, e.c, j[0][d], j[1][h], j[2][t]));
                for (int c = 0; c < count; c++) row[c] += w[2][t] * terms.number[c];
            }
            for (int c = 0; c < count; c++) plane[c] += w[1][h] * row[c];
        }
        for (int c = 0; c < count; c++) sum[c] += w[0][d] * plane[c];
    }
    Together<STORED, count> result;
    for (int c = 0; c < count; c++) result.number[c] = sum[c];
    put(y + y_steps(e.n, e.c, e.i[0], e.i[1], e.i[2]), result);
}

extern "C" __global__ void resample(
    const STORED* __restrict__ x, const Steps<5> x_steps,
    const int* __restrict__ sources, const REAL* __restrict__ weights,
    STORED* __restrict__ y, const Steps<5> y_steps, const Tables tables)
{
    if (tables.wide) resampled<WIDE>(x, x_steps, sources, weights, y, y_steps, tables);
    else resampled<1>(x, x_steps, sources, weights, y, y_steps, tables);
}
