// What every CUDA source here shares. REAL, the type of numbers that are computed with, is given by minunet/cuda.py: float or double.

#include "stored.cuh"

#define WARP 32
#define WHOLE_WARP 0xffffffffu

// The steps of an array from one element to the next along each axis, in elements: x[at(n, c, d, h, w)].
template <int axes>
struct Steps {
    long long step[axes];

    template <class... Index>
    __device__ long long operator()(Index... index) const {
        static_assert(sizeof...(Index) == axes, "one index for each axis");
        const long long place[axes] = {index...};
        long long at = 0;
        for (int i = 0; i < axes; i++) at += place[i] * step[i];
        return at;
    }
};

__device__ inline REAL infinity() { return __int_as_float(0x7f800000); }  // NVRTC has no <math.h>

// The number of this thread among all of a grid along x.
__device__ inline long long thread_number() { return (long long)blockIdx.x * blockDim.x + threadIdx.x; }

// The sum over the lanes of a warp, in a fixed order; lane 0 has it. All 32 lanes must call it.
template <class T>
__device__ inline T warp_sum(T value) {
    for (int far = WARP / 2; far > 0; far /= 2) value += __shfl_down_sync(WHOLE_WARP, value, far);
    return value;
}

// The sum over the threads of a block of whole warps, in a fixed order; thread 0 has it. All threads must call it.
template <class T>
__device__ inline T block_sum(T value) {
    __shared__ T of_warp[WARP];
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, warps = blockDim.x / WARP;
    value = warp_sum(value);
    __syncthreads();  // a sum before this one may still be reading
    if (lane == 0) of_warp[warp] = value;
    __syncthreads();
    return warp == 0 ? warp_sum(lane < warps ? of_warp[lane] : T(0)) : T(0);
}

// The sum of a row in memory, by one block, in a fixed order; thread 0 has it. Neighbouring threads read neighbours.
__device__ inline double row_sum(const double* row, long long length) {
    double sum = 0;
    for (long long i = threadIdx.x; i < length; i += blockDim.x) sum += row[i];
    return block_sum(sum);
}
