// The four passes of normalisation over (B, P, C): blocks, pixels, channels, as ref.py defines them.
//
// A thread keeps one channel and walks down the pixels of its chunk, so what depends on the channel is read once. The threads along x
// are neighbouring channels, which lie side by side in memory, those along y are pixels: a warp reads whole lines. Where there are
// fewer than 32 channels a warp covers several pixels, which follow one another.
//
// A number takes as long from memory as some hundred instructions. So loops are unrolled: then several are on their way at once.
//
// Sums: eight numbers in REAL, which is fast, then everything in double, down a tree of fixed form. A chunk's sums go to memory, and a
// second kernel joins the chunks in order: nothing is added into memory, so two runs are bit-identical.

#include "cuda.cuh"

#define THREADS 256
#define RUN 8  // numbers added up in REAL

struct Walk {
    int tiles, chunks, chunk, channels;  // tiles of channels, chunks of pixels, and the pixels of one
    long long pixels;
};

// Where a thread works: its block, chunk and channel, and the pixels begin, begin + blockDim.y, … below end. None for a thread beyond
// the last channel.
struct Place {
    int block, chunk, channel;
    long long begin, end;

    __device__ Place(const Walk& w) {
        block = blockIdx.x / (w.tiles * w.chunks);
        chunk = blockIdx.x / w.tiles % w.chunks;
        channel = blockIdx.x % w.tiles * blockDim.x + threadIdx.x;
        begin = (long long)chunk * w.chunk + threadIdx.y;
        end = min((long long)(chunk + 1) * w.chunk, channel < w.channels ? w.pixels : 0);
    }
    // Of an array (…, B, C), and of one (…, B, C, chunks).
    __device__ long long in_line(const Walk& w) const { return (long long)block * w.channels + channel; }
    __device__ long long in_parts(const Walk& w) const { return in_line(w) * w.chunks + chunk; }
    __device__ bool has_result(const Walk& w) const { return threadIdx.y == 0 && channel < w.channels; }
};

// The sum over the rows of a block, for each of its columns, by a tree; all threads get it and all must call it. blockDim.y is a power of 2.
__device__ double column_sum(double value) {
    __shared__ double of_thread[THREADS];
    const int at = threadIdx.y * blockDim.x + threadIdx.x;
    __syncthreads();  // a sum before this one may still be reading
    of_thread[at] = value;
    __syncthreads();
    for (int half = blockDim.y / 2; half > 0; half /= 2) {
        if (threadIdx.y < half) of_thread[at] += of_thread[at + half * blockDim.x];
        __syncthreads();
    }
    return of_thread[threadIdx.x];
}

// z = (x − line₀)·line₁ + line₂ in one operation that no compiler changes: forward and backward agree on its sign.
__device__ inline REAL straight(REAL d, REAL scale, REAL shift) { return fma(d, scale, shift); }

// The gradient passes where the result was above the floor; NaN is no reason to stop it.
__device__ inline REAL through(REAL g, REAL z, REAL floor) { return z <= floor ? REAL(0) : g; }

// Of each chunk and channel the mean, and Σ(x − mean)²: parts (2, B, C, chunks). The chunk is read twice, the second time from the cache.
extern "C" __global__ void norm_moments(
    const STORED* __restrict__ x, const Steps<3> x_steps,
    double* __restrict__ parts, const long long each, const Walk w)
{
    const Place at(w);
    const int b = at.block, c = at.channel, rows = blockDim.y;
    double sum = 0;
    for (long long p = at.begin; p < at.end; p += RUN * rows) {
        REAL some = 0;
        #pragma unroll
        for (int i = 0; i < RUN; i++)
            if (p + i * rows < at.end) some += x[x_steps(b, p + i * rows, c)];
        sum += some;
    }
    const long long count = min((long long)w.chunk, w.pixels - (long long)at.chunk * w.chunk);
    const double mean = column_sum(sum) / count;
    const REAL centre = mean;  // what it is rounded by is made up for below: the sum of d is not quite 0
    double first = 0, second = 0;
    for (long long p = at.begin; p < at.end; p += RUN * rows) {
        REAL some = 0, squares = 0;
        #pragma unroll
        for (int i = 0; i < RUN; i++) {
            if (p + i * rows >= at.end) continue;
            const REAL d = x[x_steps(b, p + i * rows, c)] - centre;
            some += d;
            squares += d * d;
        }
        first += some;
        second += squares;
    }
    first = column_sum(first);
    second = column_sum(second);
    if (!at.has_result(w)) return;
    parts[at.in_parts(w)] = centre + first / count;
    parts[each + at.in_parts(w)] = max(second - first * first / count, 0.0);
}

// Mean and variance of each group, (2, B, G), from the chunks of its channels: μ = Σ n·μₖ/m, σ² = Σ (Qₖ + n·(μₖ − μ)²)/m.
// One block for each group; the parts of its channels follow one another.
extern "C" __global__ void norm_join(
    const double* __restrict__ parts, double* __restrict__ moments, const long long each, const int channels, const Walk w)
{
    __shared__ double whole;
    const long long length = (long long)channels * w.chunks, first = blockIdx.x * length;
    const double m = max((double)channels * w.pixels, 1.0);
    double sum = 0;
    for (long long i = threadIdx.x; i < length; i += blockDim.x)
        sum += parts[first + i] * min((long long)w.chunk, w.pixels - i % w.chunks * w.chunk);
    sum = block_sum(sum);
    if (threadIdx.x == 0) whole = sum / m;
    __syncthreads();
    const double mean = whole;
    sum = 0;
    for (long long i = threadIdx.x; i < length; i += blockDim.x) {
        const double d = parts[first + i] - mean;
        sum += parts[each + first + i] + d * d * min((long long)w.chunk, w.pixels - i % w.chunks * w.chunk);
    }
    sum = block_sum(sum);
    if (threadIdx.x != 0) return;
    moments[blockIdx.x] = mean;
    moments[gridDim.x + blockIdx.x] = sum / m;
}

// y = max((x − line₀)·line₁ + line₂, floor), line (3, B, C)
extern "C" __global__ void norm_normalize(
    const STORED* __restrict__ x, const Steps<3> x_steps,
    const REAL* __restrict__ line, const long long each,
    STORED* __restrict__ y, const Steps<3> y_steps,
    const REAL floor, const Walk w)
{
    const Place at(w);
    if (at.begin >= at.end) return;
    const int b = at.block, c = at.channel;
    const REAL* own = line + at.in_line(w);
    const REAL centre = own[0], scale = own[each], shift = own[2 * each];
    #pragma unroll 4
    for (long long p = at.begin; p < at.end; p += blockDim.y) {
        const REAL z = straight(x[x_steps(b, p, c)] - centre, scale, shift);
        y[y_steps(b, p, c)] = z < floor ? floor : z;  // NaN stays
    }
}

// Σ_p g and Σ_p g·(x − line₀) of each chunk, where g is ∂y that came through the floor: parts (2, B, C, chunks)
extern "C" __global__ void norm_sums(
    const STORED* __restrict__ gy, const Steps<3> gy_steps,
    const STORED* __restrict__ x, const Steps<3> x_steps,
    const REAL* __restrict__ line, const long long each_line,
    double* __restrict__ parts, const long long each,
    const REAL floor, const Walk w)
{
    const Place at(w);
    const int b = at.block, c = at.channel, rows = blockDim.y;
    REAL centre = 0, scale = 0, shift = 0;
    if (c < w.channels) {
        const REAL* own = line + at.in_line(w);
        centre = own[0], scale = own[each_line], shift = own[2 * each_line];
    }
    double first = 0, second = 0;
    for (long long p = at.begin; p < at.end; p += RUN * rows) {
        REAL some = 0, products = 0;
        #pragma unroll
        for (int i = 0; i < RUN; i++) {
            if (p + i * rows >= at.end) continue;
            const REAL d = x[x_steps(b, p + i * rows, c)] - centre;
            const REAL g = through(gy[gy_steps(b, p + i * rows, c)], straight(d, scale, shift), floor);
            some += g;
            products += g * d;
        }
        first += some;
        second += products;
    }
    first = column_sum(first);
    second = column_sum(second);
    if (!at.has_result(w)) return;
    parts[at.in_parts(w)] = first;
    parts[each + at.in_parts(w)] = second;
}

// The sums over all chunks: one block for each.
extern "C" __global__ void norm_total(const double* __restrict__ parts, double* __restrict__ totals, const int chunks)
{
    const double sum = row_sum(parts + (long long)blockIdx.x * chunks, chunks);
    if (threadIdx.x == 0) totals[blockIdx.x] = sum;
}

// ∂x = line₁·g + line₃·(x − line₀) + line₄, where g is ∂y that came through the floor; line (5, B, C)
extern "C" __global__ void norm_grad_x(
    const STORED* __restrict__ gy, const Steps<3> gy_steps,
    const STORED* __restrict__ x, const Steps<3> x_steps,
    const REAL* __restrict__ line, const long long each,
    STORED* __restrict__ gx, const Steps<3> gx_steps,
    const REAL floor, const Walk w)
{
    const Place at(w);
    if (at.begin >= at.end) return;
    const int b = at.block, c = at.channel;
    const REAL* own = line + at.in_line(w);
    const REAL centre = own[0], scale = own[each], shift = own[2 * each], slope = own[3 * each], offset = own[4 * each];
    #pragma unroll 4
    for (long long p = at.begin; p < at.end; p += blockDim.y) {
        const REAL d = x[x_steps(b, p, c)] - centre;
        gx[gx_steps(b, p, c)] = scale * through(gy[gy_steps(b, p, c)], straight(d, scale, shift), floor) + slope * d + offset;
    }
}
