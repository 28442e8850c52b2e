// The losses, as ref.py defines them: one pass over the logits (N, C, P) forward and one backward.
//
// A thread has PIXELS pixels of one sample, blockDim.x apart, and goes through the classes of each. Where the pixels are innermost in
// memory, neighbouring threads read neighbours. Where the classes are, a thread reads neighbours one after another, and the lines it
// fetches serve it and the threads beside it. The logits of a pixel are read up to three times, after the first from the cache.
//
// What a block sums up goes to memory, and losses_total joins the blocks' sums in order: two runs are bit-identical.

#include "cuda.cuh"

#define PIXELS 4

struct Sizes {
    int samples, classes, channels, chunks;  // a channel less than there are classes: the logits of class 0 are 0
    long long pixels, ignored;
};

// The class numbers: of one of two types, the other pointer is null.
struct Target {
    const unsigned char* bytes;
    const long long* numbers;
    long long step[2];

    __device__ long long number(int n, long long p) const {
        const long long at = n * step[0] + p * step[1];
        return bytes ? bytes[at] : numbers[at];
    }
    // The class of a pixel; −1 where it does not count. `unknown` grows where it is of no class.
    __device__ int label(const Sizes& s, int n, long long p, int* unknown = nullptr) const {
        const long long value = number(n, p);
        if (value == s.ignored) return -1;
        if (0 <= value && value < s.classes) return value;
        if (unknown) ++*unknown;
        return -1;
    }
};

__device__ inline Target target_of(
    const unsigned char* bytes, const Steps<2>& bytes_steps, const long long* numbers, const Steps<2>& numbers_steps)
{
    const Steps<2>& steps = bytes ? bytes_steps : numbers_steps;
    return {bytes, numbers, {steps.step[0], steps.step[1]}};
}

// The logits of one pixel.
struct Logits {
    const STORED* x;
    long long step;
    int first;  // 1 where class 0 has no channel

    __device__ Logits(const STORED* x, const Steps<3>& steps, const Sizes& s, int n, long long p)
        : x(x + steps(n, 0, p)), step(steps.step[1]), first(s.classes - s.channels) {}
    __device__ REAL operator()(int c) const { return c < first ? REAL(0) : REAL(x[(c - first) * step]); }
    // The class with the largest logit: its logit keeps the exponents from overflowing. A NaN in class 0 stays.
    __device__ int largest(int classes) const {
        int best = 0;
        for (int c = 1; c < classes; c++)
            if ((*this)(c) > (*this)(best)) best = c;
        return best;
    }
};

// Σ e^(z − m) over all classes but `best`, whose logit m is. ln Σ e^z is m + ln(1 + rest), exact however sure the network is.
__device__ inline REAL rest_of(const Logits& z, int classes, int best) {
    const REAL top = z(best);
    REAL rest = top - top;  // 0; NaN where m is infinite
    for (int c = 0; c < classes; c++)
        if (c != best) rest += exp(z(c) - top);
    return rest;
}

// Losses ℓ[n, p], where asked for, and for each block Σ ℓ, Σ s·(the true class's weight), how many are of no class: parts (3, blocks).
// ℓ = s·Σ_c q[c]·(−ln p[c])    q[c] = weight[c]·(keep·[c = target] + share)
extern "C" __global__ void losses_entropy(
    const STORED* __restrict__ x, const Steps<3> x_steps,
    const unsigned char* __restrict__ bytes, const Steps<2> bytes_steps,
    const long long* __restrict__ numbers, const Steps<2> numbers_steps,
    const REAL* __restrict__ weight, const Steps<1> weight_steps,
    const REAL* __restrict__ scale, const Steps<2> scale_steps,
    REAL* __restrict__ losses, double* __restrict__ parts,
    const REAL keep, const REAL share, const Sizes s)
{
    const Target target = target_of(bytes, bytes_steps, numbers, numbers_steps);
    const int n = blockIdx.x / s.chunks;
    long long p = (long long)(blockIdx.x % s.chunks) * PIXELS * blockDim.x + threadIdx.x;
    double loss_sum = 0, weight_sum = 0;
    int unknown = 0;
    for (int i = 0; i < PIXELS && p < s.pixels; i++, p += blockDim.x) {
        const int k = target.label(s, n, p, &unknown);
        REAL loss = 0;
        if (k >= 0) {
            const Logits z(x, x_steps, s, n, p);
            const int best = z.largest(s.classes);
            const REAL top = z(best), more = log1p(rest_of(z, s.classes, best)), factor = scale ? scale[scale_steps(n, p)] : REAL(1);
            const REAL w = weight[weight_steps(k)];
            loss = keep * w * (more + (top - z(k)));
            if (share != 0)
                for (int c = 0; c < s.classes; c++) loss += share * weight[weight_steps(c)] * (more + (top - z(c)));
            loss *= factor;
            weight_sum += w * factor;
        }
        if (losses) losses[n * s.pixels + p] = loss;
        loss_sum += loss;
    }
    loss_sum = block_sum(loss_sum);
    weight_sum = block_sum(weight_sum);
    unknown = block_sum(unknown);
    if (threadIdx.x != 0) return;
    parts[blockIdx.x] = loss_sum;
    parts[gridDim.x + blockIdx.x] = weight_sum;
    parts[2 * gridDim.x + blockIdx.x] = unknown;
}

// ∂x[c] = g·(p[c]·Σ_k q[k] − q[c])    g = gain·factor, each 1 where it is null
extern "C" __global__ void losses_grad_entropy(
    const STORED* __restrict__ x, const Steps<3> x_steps,
    const unsigned char* __restrict__ bytes, const Steps<2> bytes_steps,
    const long long* __restrict__ numbers, const Steps<2> numbers_steps,
    const REAL* __restrict__ weight, const Steps<1> weight_steps,
    const REAL* __restrict__ factor, const Steps<2> factor_steps,
    const REAL* __restrict__ gain,
    STORED* __restrict__ gx, const Steps<3> gx_steps,
    const REAL keep, const REAL share, const Sizes s)
{
    const Target target = target_of(bytes, bytes_steps, numbers, numbers_steps);
    const int n = blockIdx.x / s.chunks, first = s.classes - s.channels;
    long long p = (long long)(blockIdx.x % s.chunks) * PIXELS * blockDim.x + threadIdx.x;
    REAL of_all = 0;
    if (share != 0)
        for (int c = 0; c < s.classes; c++) of_all += share * weight[weight_steps(c)];
    for (int i = 0; i < PIXELS && p < s.pixels; i++, p += blockDim.x) {
        const int k = target.label(s, n, p);
        if (k < 0) {
            for (int c = first; c < s.classes; c++) gx[gx_steps(n, c - first, p)] = 0;
            continue;
        }
        const Logits z(x, x_steps, s, n, p);
        const int best = z.largest(s.classes);
        const REAL top = z(best), inverse = 1 / (1 + rest_of(z, s.classes, best));
        const REAL g = (gain ? *gain : REAL(1)) * (factor ? factor[factor_steps(n, p)] : REAL(1));
        const REAL of_true = keep * weight[weight_steps(k)];
        for (int c = first; c < s.classes; c++) {
            const REAL q = (c == k ? of_true : REAL(0)) + share * weight[weight_steps(c)];
            gx[gx_steps(n, c - first, p)] = g * (exp(z(c) - top) * inverse * (of_true + of_all) - q);
        }
    }
}

// For each block and class Σ p·[c = target], Σ p and Σ [c = target], parts (3, N, C, chunks), and how many are of no class (N, chunks).
extern "C" __global__ void losses_overlap(
    const STORED* __restrict__ x, const Steps<3> x_steps,
    const unsigned char* __restrict__ bytes, const Steps<2> bytes_steps,
    const long long* __restrict__ numbers, const Steps<2> numbers_steps,
    double* __restrict__ parts, double* __restrict__ unknowns, const Sizes s)
{
    const Target target = target_of(bytes, bytes_steps, numbers, numbers_steps);
    const int n = blockIdx.x / s.chunks, chunk = blockIdx.x % s.chunks;
    const long long start = (long long)chunk * PIXELS * blockDim.x + threadIdx.x;
    REAL top[PIXELS], inverse[PIXELS];
    int label[PIXELS], unknown = 0;
    for (int i = 0; i < PIXELS; i++) {
        const long long p = start + i * blockDim.x;
        label[i] = p < s.pixels ? target.label(s, n, p, &unknown) : -1;
        if (label[i] < 0) continue;
        const Logits z(x, x_steps, s, n, p);
        const int best = z.largest(s.classes);
        top[i] = z(best);
        inverse[i] = 1 / (1 + rest_of(z, s.classes, best));
    }
    for (int c = 0; c < s.classes; c++) {
        double both = 0, predicted = 0, hits = 0;
        for (int i = 0; i < PIXELS; i++) {
            if (label[i] < 0) continue;
            const REAL p = exp(Logits(x, x_steps, s, n, start + i * blockDim.x)(c) - top[i]) * inverse[i];
            predicted += p;
            if (label[i] == c) both += p, hits += 1;
        }
        both = block_sum(both);
        predicted = block_sum(predicted);
        hits = block_sum(hits);
        if (threadIdx.x == 0) {
            const long long at = ((long long)n * s.classes + c) * s.chunks + chunk;
            const long long each = (long long)s.samples * s.classes * s.chunks;
            parts[at] = both;
            parts[each + at] = predicted;
            parts[2 * each + at] = hits;
        }
    }
    unknown = block_sum(unknown);
    if (threadIdx.x == 0) unknowns[blockIdx.x] = unknown;
}

// ∂x[c] = p[c]·(d[c] − Σ_k d[k]·p[k])    d[c] = hit[n, c]·[c = target] + size[n, c]
extern "C" __global__ void losses_grad_overlap(
    const STORED* __restrict__ x, const Steps<3> x_steps,
    const unsigned char* __restrict__ bytes, const Steps<2> bytes_steps,
    const long long* __restrict__ numbers, const Steps<2> numbers_steps,
    const REAL* __restrict__ hit, const REAL* __restrict__ size,
    STORED* __restrict__ gx, const Steps<3> gx_steps, const Sizes s)
{
    const Target target = target_of(bytes, bytes_steps, numbers, numbers_steps);
    const int n = blockIdx.x / s.chunks, first = s.classes - s.channels;
    long long p = (long long)(blockIdx.x % s.chunks) * PIXELS * blockDim.x + threadIdx.x;
    hit += (long long)n * s.classes;
    size += (long long)n * s.classes;
    for (int i = 0; i < PIXELS && p < s.pixels; i++, p += blockDim.x) {
        const int k = target.label(s, n, p);
        if (k < 0) {
            for (int c = first; c < s.classes; c++) gx[gx_steps(n, c - first, p)] = 0;
            continue;
        }
        const Logits z(x, x_steps, s, n, p);
        const int best = z.largest(s.classes);
        const REAL top = z(best), inverse = 1 / (1 + rest_of(z, s.classes, best));
        REAL mean = 0;
        for (int c = 0; c < s.classes; c++) mean += exp(z(c) - top) * inverse * ((c == k ? hit[c] : REAL(0)) + size[c]);
        for (int c = first; c < s.classes; c++) {
            const REAL d = (c == k ? hit[c] : REAL(0)) + size[c];
            gx[gx_steps(n, c - first, p)] = exp(z(c) - top) * inverse * (d - mean);
        }
    }
}

// Losses (1−t+v)·ln(1 + e^−|x|) + (where x > 0: (1−t)·x, else −v·x), where asked for, and each block's sum. v = t·positive
extern "C" __global__ void losses_binary_entropy(
    const STORED* __restrict__ x, const Steps<1> x_steps,
    const REAL* __restrict__ target, const Steps<1> target_steps,
    const REAL* __restrict__ positive, const Steps<1> positive_steps,
    REAL* __restrict__ losses, double* __restrict__ parts, const long long count)
{
    long long at = (long long)blockIdx.x * PIXELS * blockDim.x + threadIdx.x;
    double sum = 0;
    for (int i = 0; i < PIXELS && at < count; i++, at += blockDim.x) {
        const REAL z = x[x_steps(at)], t = target[target_steps(at)], v = positive ? t * positive[positive_steps(at)] : t;
        const REAL loss = (1 - t + v) * log1p(exp(-abs(z))) + (z > 0 ? (1 - t) * z : -v * z);
        if (losses) losses[at] = loss;
        sum += loss;
    }
    sum = block_sum(sum);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// ∂x = g·((1−t+v)·σ(x) − v)    g = gain·factor, each 1 where it is null
extern "C" __global__ void losses_grad_binary_entropy(
    const STORED* __restrict__ x, const Steps<1> x_steps,
    const REAL* __restrict__ target, const Steps<1> target_steps,
    const REAL* __restrict__ positive, const Steps<1> positive_steps,
    const REAL* __restrict__ factor, const Steps<1> factor_steps,
    const REAL* __restrict__ gain, STORED* __restrict__ gx, const long long count)
{
    const long long at = thread_number();
    if (at >= count) return;
    const REAL z = x[x_steps(at)], t = target[target_steps(at)], v = positive ? t * positive[positive_steps(at)] : t;
    const REAL g = (gain ? *gain : REAL(1)) * (factor ? factor[factor_steps(at)] : REAL(1));
    const REAL e = exp(-abs(z));
    gx[at] = g * ((1 - t + v) * ((z < 0 ? e : REAL(1)) / (1 + e)) - v);
}

// The sums over all blocks, from rows of that length: one block for each.
extern "C" __global__ void losses_total(const double* __restrict__ parts, double* __restrict__ totals, const long long length)
{
    const double sum = row_sum(parts + blockIdx.x * length, length);
    if (threadIdx.x == 0) totals[blockIdx.x] = sum;
}
