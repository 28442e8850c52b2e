// STORED, the type of images in memory: REAL, or 16 bits. minunet/cuda.py defines FP16 or BF16 for those, and REAL is float then.
//
//     FP16    5 bits of exponent, 10 behind the point     2⁻²⁴ … 65504, full precision from 2⁻¹⁴ on
//     BF16    8 bits of exponent, 7 behind the point      the range of float
//
// A Half is read as a float, and a float is rounded to the nearest as it becomes one; halfway goes to the even one. So kernels compute in
// REAL whatever is stored: `const REAL value = x[i]` widens, `y[i] = value` rounds.

#if defined(FP16) || defined(BF16)

// PTX is not C++: the same two functions in C++, for a processor, stand in tests/host_gpu/device.h.
#ifdef __CUDACC__

__device__ inline unsigned short half_of(float x) {
    unsigned short bits;
#ifdef FP16
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(bits) : "f"(x));
#else
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(bits) : "f"(x));
#endif
    return bits;
}

__device__ inline float from_half(unsigned short bits) {
#ifdef FP16
    float x;
    asm("cvt.f32.f16 %0, %1;" : "=f"(x) : "h"(bits));
    return x;
#else
    return __uint_as_float((unsigned)bits << 16);  // the upper half of a float
#endif
}

#endif

struct Half {
    unsigned short bits;

    Half() = default;
    __device__ Half(float x) : bits(half_of(x)) {}
    __device__ operator float() const { return from_half(bits); }
};

typedef Half STORED;

#else

typedef REAL STORED;

#endif
