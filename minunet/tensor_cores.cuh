// The tensor cores, and the words they take. minunet/cuda.py defines TF32 for float32 images that they may multiply, FP16 or BF16 for
// images of 16 bits; without one there is nothing here.
//
// One step belongs to a warp: it multiplies 16 rows of A with 8 columns of B and adds to 16×8 sums of float32. Both are 8 words deep. A
// word has 32 bits: one number in TF32, or two neighbours in FP16 or BF16, the earlier one in the lower half. So a step adds 8 or 16
// products to each sum. What lane l holds, with q = l / 4 and r = l % 4:
//
//     a[0…3]     A at (row, word)    (q, r)    (q + 8, r)     (q, r + 4)    (q + 8, r + 4)
//     b[0…1]     B at (word, column) (r, q)    (r + 4, q)
//     sum[0…3]   at (row, column)    (q, 2r)   (q, 2r + 1)    (q + 8, 2r)   (q + 8, 2r + 1)
//
// Matrices of 8×4 words come from shared memory four at a time: `load_matrices`. Lanes 0 to 7 say where the eight rows of the first begin,
// 16 bytes each, lanes 8 to 15 those of the second, and so on. Lane l gets word (q, r) of each, so that four of them are an a[0…3].
// `load_turned` does the same with matrices of 8×8 numbers of 16 bits, and turns rows to columns.
//
// Source: NVIDIA, PTX ISA, "Matrix Fragments for mma.m16n8k8", "mma.m16n8k16" and "ldmatrix". PTX is not C++: the same functions in C++,
// for a processor, stand in tests/host_gpu/device.h.

#if defined(TF32) || defined(FP16) || defined(BF16)
#define TENSOR_CORES
#endif

#ifdef __CUDACC__

#if defined(TF32)

// 10 bits of the 23 behind the point remain; a number halfway between two goes away from zero.
__device__ inline void round_words(unsigned (&words)[4]) {
    for (int i = 0; i < 4; i++) asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(words[i]) : "f"(__uint_as_float(words[i])));
}

#define STEP "mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32"
#elif defined(BF16)
#define STEP "mma.sync.aligned.m16n8k16.row.col.f32.bf16.bf16.f32"
#elif defined(FP16)
#define STEP "mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32"
#endif

#ifdef TENSOR_CORES

#ifndef TF32
__device__ inline void round_words(unsigned (&words)[4]) {}  // numbers of 16 bits are what they are
#endif

#define LOAD "ldmatrix.sync.aligned.m8n8.x4"
#define WORDS " {%0, %1, %2, %3}, [%4];"

__device__ inline void load_matrices(const void* row, unsigned (&words)[4]) {
    const unsigned in_shared = __cvta_generic_to_shared(row);
    asm volatile(LOAD ".shared.b16" WORDS : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3]) : "r"(in_shared) : "memory");
}

__device__ inline void load_turned(const void* row, unsigned (&words)[4]) {
    const unsigned in_shared = __cvta_generic_to_shared(row);
    asm volatile(LOAD ".trans.shared.b16" WORDS : "=r"(words[0]), "=r"(words[1]), "=r"(words[2]), "=r"(words[3]) : "r"(in_shared) : "memory");
}

// sum += A·B, by all lanes of a warp together: `volatile` keeps the compiler from moving a step to where only some of them come.
__device__ inline void tensor_step(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
#if __CUDA_ARCH__ >= 800
    asm volatile(STEP " {%0, %1, %2, %3}, {%4, %5, %6, %7}, {%8, %9}, {%0, %1, %2, %3};"
        : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
        : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
#else  // Turing's step is half as deep
    for (int half = 0; half < 2; half++)
        asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.f16.f16.f32 {%0, %1, %2, %3}, {%4, %5}, {%6}, {%0, %1, %2, %3};"
            : "+f"(sum[0]), "+f"(sum[1]), "+f"(sum[2]), "+f"(sum[3])
            : "r"(a[2 * half]), "r"(a[2 * half + 1]), "r"(b[half]));
#endif
}

#endif
#endif
