// Copies from memory into shared memory that pass no register, and go on while the thread computes.
//
//     copy_chunk(to, from, there)   begins to copy 16 bytes; where they are not `there` it writes zeros, and does not read
//     end_group()                   ends a group: what was begun since the group before
//     wait_for_copies<N>()          waits for this thread's groups, all but the N newest; those of others need a barrier afterwards
//
// Both addresses are multiples of 16. Source: NVIDIA, PTX ISA, "cp.async". GPUs before Ampere have no such copies and make them at once.
// PTX is not C++: the same functions in C++, for a processor, stand in tests/host_gpu/device.h.

#ifdef __CUDACC__

#if __CUDA_ARCH__ >= 800

__device__ inline void copy_chunk(void* to, const void* from, bool there) {
    const unsigned in_shared = __cvta_generic_to_shared(to);
    const int bytes = there ? 16 : 0;  // that are read, the rest is zeros
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(in_shared), "l"(from), "r"(bytes) : "memory");
}

__device__ inline void end_group() { asm volatile("cp.async.commit_group;" ::: "memory"); }

template <int NEWEST>
__device__ inline void wait_for_copies() {
    asm volatile("cp.async.wait_group %0;" ::"n"(NEWEST) : "memory");
}

#else

__device__ inline void copy_chunk(void* to, const void* from, bool there) {
    *static_cast<int4*>(to) = there ? *static_cast<const int4*>(from) : make_int4(0, 0, 0, 0);
}

__device__ inline void end_group() {}

template <int NEWEST>
__device__ inline void wait_for_copies() {}

#endif
#endif
