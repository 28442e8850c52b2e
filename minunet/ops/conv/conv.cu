// The four sums of convolution, as minunet/ops/conv/__init__.py writes them: one thread, warp or block gathers one result.
//
// Arrays are volumes (N, C, D, H, W) with any steps between elements. Nothing is added into memory, so two runs are bit-identical.

#include "cuda.cuh"
#include "geometry.cuh"
#include "volumes.cuh"

// `inside` read backwards: p, the window whose tap k meets element i; false where there is none.
__device__ inline bool window(const Geometry& g, const int* i, const int* k, int* p) {
    bool meets = true;
    for (int axis = 0; axis < 3; axis++) {
        const int reach = i[axis] + g.before[axis] - g.dilation[axis] * k[axis];
        p[axis] = reach / g.stride[axis];
        meets = meets && reach >= 0 && reach % g.stride[axis] == 0 && p[axis] < g.out[axis];
    }
    return meets;
}

__device__ inline REAL finish(REAL sum, const REAL* b, const Steps<1>& b_steps, int channel, bool relu) {
    if (b) sum += b[b_steps(channel)];
    return relu && sum < 0 ? REAL(0) : sum;
}

// y[n,o,p] = b[o] + Σ_c Σ_k x̄[n,c,s·p+d·k]·w[o,c,k]: one thread for each y.
extern "C" __global__ void conv_forward(
    const STORED* __restrict__ x, const Steps<5> x_steps,
    const REAL* __restrict__ w, const Steps<5> w_steps,
    const REAL* __restrict__ b, const Steps<1> b_steps,
    STORED* __restrict__ y, const Steps<5> y_steps,
    const Geometry g, const bool relu)
{
    const long long number = thread_number(), pixels = volume(g.out);
    if (number >= pixels * g.outputs * g.samples) return;
    const int n = number / pixels / g.outputs, o = number / pixels % g.outputs;
    const int channels = g.channels / g.groups, first = o / (g.outputs / g.groups) * channels;
    int p[3], k[3], i[3];
    split(number, g.out, p);
    REAL sum = 0;
    for (k[0] = 0; k[0] < g.kernel[0]; k[0]++)
        for (k[1] = 0; k[1] < g.kernel[1]; k[1]++)
            for (k[2] = 0; k[2] < g.kernel[2]; k[2]++) {
                if (!inside(g, p, k, i)) continue;
                for (int c = 0; c < channels; c++)
                    sum += x[x_steps(n, first + c, i[0], i[1], i[2])] * w[w_steps(o, c, k[0], k[1], k[2])];
            }
    y[y_steps(n, o, p[0], p[1], p[2])] = finish(sum, b, b_steps, o, relu);
}

// ∂x[n,c,i] = Σ_o Σ_{p,k: s·p+d·k=i} ∂y[n,o,p]·w[o,c,k], read where gate > 0: one thread for each ∂x.
// With bias and ReLU it is the transposed convolution.
extern "C" __global__ void conv_grad_x(
    const STORED* __restrict__ gy, const Steps<5> gy_steps,
    const STORED* __restrict__ gate, const Steps<5> gate_steps,
    const REAL* __restrict__ w, const Steps<5> w_steps,
    const REAL* __restrict__ b, const Steps<1> b_steps,
    STORED* __restrict__ gx, const Steps<5> gx_steps,
    const Geometry g, const bool relu)
{
    const long long number = thread_number(), pixels = volume(g.in);
    if (number >= pixels * g.channels * g.samples) return;
    const int n = number / pixels / g.channels, c = number / pixels % g.channels;
    const int channels = g.channels / g.groups, outputs = g.outputs / g.groups, first = c / channels * outputs;
    int i[3], k[3], p[3];
    split(number, g.in, i);
    REAL sum = 0;
    for (k[0] = 0; k[0] < g.kernel[0]; k[0]++)
        for (k[1] = 0; k[1] < g.kernel[1]; k[1]++)
            for (k[2] = 0; k[2] < g.kernel[2]; k[2]++) {
                if (!window(g, i, k, p)) continue;
                for (int o = first; o < first + outputs; o++)
                    if (!gate || gate[gate_steps(n, o, p[0], p[1], p[2])] > 0)
                        sum += gy[gy_steps(n, o, p[0], p[1], p[2])] * w[w_steps(o, c % channels, k[0], k[1], k[2])];
            }
    gx[gx_steps(n, c, i[0], i[1], i[2])] = finish(sum, b, b_steps, c, relu);
}

// ∂w[o,c,k] = Σ_n Σ_p ∂y[n,o,p]·x̄[n,c,s·p+d·k], read where gate > 0: one warp for each ∂w, its lanes share the pixels.
extern "C" __global__ void conv_grad_w(
    const STORED* __restrict__ x, const Steps<5> x_steps,
    const STORED* __restrict__ gy, const Steps<5> gy_steps,
    const STORED* __restrict__ gate, const Steps<5> gate_steps,
    REAL* __restrict__ gw, const Geometry g)
{
    const int channels = g.channels / g.groups;
    const long long pixels = volume(g.out), taps = volume(g.kernel);
    const int o = blockIdx.x / taps / channels, c = blockIdx.x / taps % channels;
    const int first = o / (g.outputs / g.groups) * channels;
    int p[3], k[3], i[3];
    split(blockIdx.x, g.kernel, k);
    REAL sum = 0;
    for (long long number = threadIdx.x; number < g.samples * pixels; number += WARP) {
        const int n = number / pixels;
        split(number, g.out, p);
        if (inside(g, p, k, i) && (!gate || gate[gate_steps(n, o, p[0], p[1], p[2])] > 0))
            sum += gy[gy_steps(n, o, p[0], p[1], p[2])] * x[x_steps(n, first + c, i[0], i[1], i[2])];
    }
    sum = warp_sum(sum);
    if (threadIdx.x == 0) gw[blockIdx.x] = sum;
}

// ∂b[o] = Σ_n Σ_p ∂y[n,o,p], read where gate > 0: one block for each ∂b.
extern "C" __global__ void conv_grad_b(
    const STORED* __restrict__ gy, const Steps<5> gy_steps,
    const STORED* __restrict__ gate, const Steps<5> gate_steps,
    REAL* __restrict__ gb, const Geometry g)
{
    const int o = blockIdx.x;
    const long long pixels = volume(g.out);
    int p[3];
    REAL sum = 0;
    for (long long number = threadIdx.x; number < g.samples * pixels; number += blockDim.x) {
        const int n = number / pixels;
        split(number, g.out, p);
        if (!gate || gate[gate_steps(n, o, p[0], p[1], p[2])] > 0) sum += gy[gy_steps(n, o, p[0], p[1], p[2])];
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) gb[o] = sum;
}
