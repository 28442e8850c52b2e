// CUDA C++ on the processor: what a kernel's source calls gets its meaning here, and the waiting is done by runtime.cpp.
//
// A thread of a block is a fiber; `host_now` says which one runs. `__shared__` variables are statics: the blocks run one after another.
// Sections: the language, types, memory, waiting, arithmetic, numbers of 16 bits and matrix units. What is missing fails to compile: add it to its section.
#pragma once

#include <cmath>
#include <cstddef>
#include <cstring>
#include <type_traits>
#include <utility>
#include <vector>

// ---- the language ----

#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __noinline__ __attribute__((noinline))
#define __launch_bounds__(...)
#define __align__(n) __attribute__((aligned(n)))
#define __shared__ static __attribute__((section("host_shared")))  // `extern __shared__` is translated by translate.py
#define warpSize 32

__attribute__((section("host_shared"), used)) static char host_shared_is_there[16];
extern "C" __attribute__((visibility("hidden"))) char __start_host_shared[], __stop_host_shared[];

// ---- types ----

#define HOST_VECTOR(T, name, bytes2, bytes4)                                     \
    struct alignas(bytes2) name##2 { T x, y; };                                  \
    struct name##3 { T x, y, z; };                                               \
    struct alignas(bytes4) name##4 { T x, y, z, w; };                            \
    inline name##2 make_##name##2(T x, T y) { return {x, y}; }                   \
    inline name##3 make_##name##3(T x, T y, T z) { return {x, y, z}; }           \
    inline name##4 make_##name##4(T x, T y, T z, T w) { return {x, y, z, w}; }
HOST_VECTOR(int, int, 8, 16)
HOST_VECTOR(unsigned, uint, 8, 16)
HOST_VECTOR(float, float, 8, 16)
HOST_VECTOR(double, double, 16, 16)
HOST_VECTOR(long long, longlong, 16, 16)
#undef HOST_VECTOR

struct HostPlace {
    uint3 thread, block, threads, blocks;
};
extern "C" HostPlace* host_now;
#define threadIdx (host_now->thread)
#define blockIdx (host_now->block)
#define blockDim (host_now->threads)
#define gridDim (host_now->blocks)

// ---- memory ----

extern "C" void* host_dynamic_shared;  // its end is the end of a page that may be touched

template <class T> T __ldg(const T* p) { return *p; }
template <class T> T __ldcs(const T* p) { return *p; }
template <class T> T __ldcg(const T* p) { return *p; }
template <class T> void __stcs(T* p, T v) { *p = v; }
inline void __threadfence() {}
inline void __threadfence_block() {}

template <class T, class F> T host_change(T* p, F f) { T old = *p; *p = f(old); return old; }  // no other thread runs meanwhile
template <class T, class V> T atomicAdd(T* p, V v) { return host_change(p, [=](T old) { return T(old + v); }); }
template <class T, class V> T atomicSub(T* p, V v) { return host_change(p, [=](T old) { return T(old - v); }); }
template <class T, class V> T atomicMax(T* p, V v) { return host_change(p, [=](T old) { return old < T(v) ? T(v) : old; }); }
template <class T, class V> T atomicMin(T* p, V v) { return host_change(p, [=](T old) { return T(v) < old ? T(v) : old; }); }
template <class T, class V> T atomicOr(T* p, V v) { return host_change(p, [=](T old) { return T(old | v); }); }
template <class T, class V> T atomicAnd(T* p, V v) { return host_change(p, [=](T old) { return T(old & v); }); }
template <class T, class V> T atomicExch(T* p, V v) { return host_change(p, [=](T) { return T(v); }); }
template <class T, class V, class W> T atomicCAS(T* p, V want, W v) { return host_change(p, [=](T old) { return old == T(want) ? T(v) : old; }); }

// ---- waiting ----

struct HostLane {
    alignas(16) char bytes[32];
};
extern "C" void host_barrier(const char* file, int line);
// Gives this lane's value and returns what all lanes of the mask gave, when they have. `took_part`: which lanes those are.
extern "C" const HostLane* host_exchange(unsigned mask, const void* value, int size, unsigned* took_part, const char* file, int line);
extern "C" void host_no_such_lane(int lane, const char* file, int line);
extern "C" void host_not_aligned();
extern "C" bool host_copies_at_once;

#define __syncthreads() host_barrier(__FILE__, __LINE__)
#define __syncwarp(...) host::sync_warp(__FILE__, __LINE__, ##__VA_ARGS__)
#define __shfl_sync(...) host::shuffle(__FILE__, __LINE__, __VA_ARGS__)
#define __shfl_up_sync(...) host::shuffle_up(__FILE__, __LINE__, __VA_ARGS__)
#define __shfl_down_sync(...) host::shuffle_down(__FILE__, __LINE__, __VA_ARGS__)
#define __shfl_xor_sync(...) host::shuffle_xor(__FILE__, __LINE__, __VA_ARGS__)
#define __ballot_sync(mask, yes) host::ballot(__FILE__, __LINE__, mask, yes)
#define __any_sync(mask, yes) (host::ballot(__FILE__, __LINE__, mask, yes) != 0)
#define __all_sync(mask, yes) (host::ballot(__FILE__, __LINE__, mask, !(yes)) == 0)

namespace host {

inline int lane() {
    const uint3 t = threadIdx, n = blockDim;
    return (t.x + n.x * (t.y + n.y * t.z)) % 32;
}

template <class T> T from_lane(const char* file, int line, unsigned mask, T value, int source) {
    static_assert(sizeof(T) <= sizeof(HostLane), "more than a lane gives at once");
    unsigned took_part;
    const HostLane* all = host_exchange(mask, &value, sizeof(T), &took_part, file, line);
    if (!(took_part >> source & 1)) host_no_such_lane(source, file, line);
    T result;
    std::memcpy(&result, all[source].bytes, sizeof(T));
    return result;
}

template <class T> T shuffle(const char* file, int line, unsigned mask, T value, int source, int width = 32) {
    return from_lane(file, line, mask, value, lane() / width * width + (source & (width - 1)));
}
template <class T> T shuffle_up(const char* file, int line, unsigned mask, T value, unsigned far, int width = 32) {
    return from_lane(file, line, mask, value, lane() % width < (int)far ? lane() : lane() - (int)far);
}
template <class T> T shuffle_down(const char* file, int line, unsigned mask, T value, unsigned far, int width = 32) {
    return from_lane(file, line, mask, value, lane() % width + (int)far >= width ? lane() : lane() + (int)far);
}
template <class T> T shuffle_xor(const char* file, int line, unsigned mask, T value, int bits, int width = 32) {
    const int source = lane() ^ bits;
    return from_lane(file, line, mask, value, source / width > lane() / width ? lane() : source);
}

inline unsigned ballot(const char* file, int line, unsigned mask, bool yes) {
    unsigned took_part, result = 0;
    const HostLane* all = host_exchange(mask, &yes, 1, &took_part, file, line);
    for (int i = 0; i < 32; i++) result |= (unsigned)((took_part >> i & 1) && all[i].bytes[0]) << i;
    return result;
}
inline void sync_warp(const char* file, int line, unsigned mask = 0xffffffffu) {
    unsigned took_part;
    host_exchange(mask, nullptr, 0, &took_part, file, line);
}

}  // namespace host

// ---- arithmetic ----

using std::isfinite;
using std::isinf;
using std::isnan;
using std::signbit;

template <class T, class V> constexpr std::common_type_t<T, V> min(T a, V b) { using R = std::common_type_t<T, V>; return R(b) < R(a) ? R(b) : R(a); }
template <class T, class V> constexpr std::common_type_t<T, V> max(T a, V b) { using R = std::common_type_t<T, V>; return R(a) < R(b) ? R(b) : R(a); }
using std::abs;
// CUDA overloads the functions of <cmath> for float; these take the float ones along where C would turn it into double
using std::ceil;
using std::cos;
using std::exp;
using std::exp2;
using std::expm1;
using std::fabs;
using std::floor;
using std::fma;
using std::fmax;
using std::fmin;
using std::log;
using std::log1p;
using std::log2;
using std::pow;
using std::round;
using std::sin;
using std::sqrt;
using std::tanh;
using std::trunc;

inline float rsqrtf(float x) { return 1 / std::sqrt(x); }
inline double rsqrt(double x) { return 1 / std::sqrt(x); }
inline float rsqrt(float x) { return 1 / std::sqrt(x); }
inline float __expf(float x) { return std::exp(x); }
inline float __logf(float x) { return std::log(x); }
inline float __fdividef(float x, float y) { return x / y; }
inline float __frcp_rn(float x) { return 1 / x; }
inline float __fmaf_rn(float a, float b, float c) { return std::fma(a, b, c); }
inline double __fma_rn(double a, double b, double c) { return std::fma(a, b, c); }
inline float __fadd_rn(float a, float b) { return a + b; }
inline float __fmul_rn(float a, float b) { return a * b; }
inline double __dadd_rn(double a, double b) { return a + b; }
inline double __dmul_rn(double a, double b) { return a * b; }
inline float __saturatef(float x) { return x > 0 ? (x < 1 ? x : 1) : 0; }

template <class To, class From> To host_bits(From from) {
    static_assert(sizeof(To) == sizeof(From), "the same number of bits");
    To to;
    std::memcpy(&to, &from, sizeof(To));
    return to;
}
inline int __float_as_int(float x) { return host_bits<int>(x); }
inline unsigned __float_as_uint(float x) { return host_bits<unsigned>(x); }
inline float __int_as_float(int x) { return host_bits<float>(x); }
inline float __uint_as_float(unsigned x) { return host_bits<float>(x); }
inline long long __double_as_longlong(double x) { return host_bits<long long>(x); }
inline double __longlong_as_double(long long x) { return host_bits<double>(x); }
inline unsigned __umulhi(unsigned a, unsigned b) { return (unsigned long long)a * b >> 32; }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) { return (unsigned __int128)a * b >> 64; }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
inline int __clz(int x) { return x ? __builtin_clz(x) : 32; }
inline int __ffs(int x) { return __builtin_ffs(x); }

// ---- numbers of 16 bits, and matrix units ----
// What minunet/stored.cuh and tensor_cores.cuh say in PTX. Products are exact, and added one after another in float32: NVIDIA leaves the
// order open.

#if defined(TF32) || defined(FP16) || defined(BF16)

namespace host {

// The upper bits of x, `dropped` fewer, with the nearest value; halfway to the even one, or away from zero. Infinity and NaN stay.
inline unsigned rounded(float x, int dropped, bool to_even) {
    const unsigned bits = host_bits<unsigned>(x), half = 1u << (dropped - 1);
    if (!std::isfinite(x)) return std::isnan(x) ? 0x7fffffffu >> dropped : bits >> dropped;
    return (bits + (to_even ? half - 1 + (bits >> dropped & 1) : half)) >> dropped;
}

}  // namespace host

#if defined(TF32)
inline void round_words(unsigned (&words)[4]) {
    for (unsigned& word : words) word = host::rounded(host_bits<float>(word), 13, false) << 13;
}
#elif defined(BF16)
inline unsigned short half_of(float x) { return host::rounded(x, 16, true); }
inline float from_half(unsigned short bits) { return host_bits<float>((unsigned)bits << 16); }
#else
inline unsigned short half_of(float x) {
    const unsigned sign = host_bits<unsigned>(x) >> 16 & 0x8000;
    const float size = std::fabs(x);
    if (std::isnan(x)) return 0x7fff;
    if (size >= 65520) return sign | 0x7c00;
    if (size < 0x1p-14f) return sign | (unsigned)std::nearbyint(size * 0x1p24f);  // the nearest to even, as the processor rounds
    return sign | (host::rounded(size, 13, true) - (112 << 10));  // the exponent counts from −15 instead of −127
}
inline float from_half(unsigned short bits) {
    const unsigned exponent = bits >> 10 & 31, fraction = bits & 1023;
    const float size = exponent ? host_bits<float>((exponent == 31 ? 255 : exponent + 112) << 23 | fraction << 13) : fraction * 0x1p-24f;
    return bits & 0x8000 ? -size : size;
}
#endif

namespace host {

inline float add_product(float sum, unsigned a, unsigned b) {
#if defined(TF32)
    return sum + host_bits<float>(a) * host_bits<float>(b);
#else
    return sum + from_half(a) * from_half(b) + from_half(a >> 16) * from_half(b >> 16);
#endif
}

struct Fragments {
    unsigned a[4], b[2];
};

}  // namespace host

#ifndef TF32
inline void round_words(unsigned (&)[4]) {}
#endif

namespace host {

// Row `row` of matrix i, from the lane that tells where it begins.
template <class T> T in_matrix(const void* const (&rows)[32], int i, int row, int column) {
    return static_cast<const T*>(rows[8 * i + row])[column];
}

inline void all_rows(const void* row, const void* (&rows)[32]) {
    if (reinterpret_cast<std::size_t>(row) % 16) host_not_aligned();
    unsigned took_part;
    const HostLane* all = host_exchange(0xffffffffu, &row, sizeof row, &took_part, __FILE__, __LINE__);
    for (int i = 0; i < 32; i++) std::memcpy(&rows[i], all[i].bytes, sizeof row);
}

}  // namespace host

inline void load_matrices(const void* row, unsigned (&words)[4]) {
    const void* rows[32];
    host::all_rows(row, rows);
    for (int i = 0; i < 4; i++) words[i] = host::in_matrix<unsigned>(rows, i, host::lane() / 4, host::lane() % 4);
}

inline void load_turned(const void* row, unsigned (&words)[4]) {
    const void* rows[32];
    host::all_rows(row, rows);
    const int q = host::lane() / 4, r = host::lane() % 4;
    for (int i = 0; i < 4; i++)
        words[i] = host::in_matrix<unsigned short>(rows, i, 2 * r, q) | (unsigned)host::in_matrix<unsigned short>(rows, i, 2 * r + 1, q) << 16;
}

inline void tensor_step(float (&sum)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    const host::Fragments mine = {{a[0], a[1], a[2], a[3]}, {b[0], b[1]}};
    static_assert(sizeof mine <= sizeof(HostLane), "more than a lane gives at once");
    unsigned took_part;
    const HostLane* all = host_exchange(0xffffffffu, &mine, sizeof mine, &took_part, __FILE__, __LINE__);
    const int q = host::lane() / 4, r = host::lane() % 4;
    for (int i = 0; i < 4; i++) {
        const int row = q + i / 2 * 8, column = 2 * r + i % 2;
        for (int word = 0; word < 8; word++) {
            const auto& of_a = reinterpret_cast<const host::Fragments&>(all[row % 8 * 4 + word % 4]);
            const auto& of_b = reinterpret_cast<const host::Fragments&>(all[column * 4 + word % 4]);
            sum[i] = host::add_product(sum[i], of_a.a[row / 8 + word / 4 * 2], of_b.b[word / 4]);
        }
    }
}

#endif

// ---- copies that go on while the thread computes: minunet/copies.cuh ----
// A GPU makes them some time between begin and wait. Here it is the last moment in some runs, so that whoever reads too early reads what was
// there, and the first in another, so that whoever begins too early overwrites what others read.

namespace host {

struct Copy {
    void* to;
    const void* from;  // null for zeros
    void make() const { from ? (void)std::memcpy(to, from, 16) : (void)std::memset(to, 0, 16); }
};
struct Copies {
    std::vector<std::vector<Copy>> groups = {{}};  // the last one is not ended
};
inline Copies& copies() {
    static std::vector<Copies> of_thread(1024);
    return of_thread[threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z)];
}

}  // namespace host

inline void copy_chunk(void* to, const void* from, bool there) {
    if (reinterpret_cast<std::size_t>(to) % 16 || (there && reinterpret_cast<std::size_t>(from) % 16)) host_not_aligned();
    const host::Copy copy = {to, there ? from : nullptr};
    host_copies_at_once ? copy.make() : host::copies().groups.back().push_back(copy);
}
inline void end_group() { host::copies().groups.emplace_back(); }
template <int NEWEST> void wait_for_copies() {
    auto& groups = host::copies().groups;
    const std::size_t done = groups.size() - 1 > NEWEST ? groups.size() - 1 - NEWEST : 0;
    for (std::size_t i = 0; i < done; i++)
        for (const host::Copy& copy : groups[i]) copy.make();
    groups.erase(groups.begin(), groups.begin() + done);
}

// ---- how runtime.cpp calls a kernel ----

struct HostParameter {
    int bytes, is_pointer, is_list, is_const, element_bytes;  // of a list of pointers the last two tell what those point to
};

namespace host {

template <class T> HostParameter parameter() {
    constexpr bool is_list = std::is_pointer_v<std::remove_pointer_t<T>>;
    using Pointer = std::conditional_t<is_list, std::remove_pointer_t<T>, T>;
    using Element = std::remove_pointer_t<Pointer>;
    if constexpr (std::is_pointer_v<T>) return {sizeof(T), 1, is_list, std::is_const_v<Element>, sizeof(Element)};
    return {sizeof(T), 0, 0, 0, 0};
}

template <class... P> int about(void (*)(P...), HostParameter* out) {
    const HostParameter all[] = {parameter<std::remove_cv_t<P>>()..., {}};
    std::memcpy(out, all, sizeof...(P) * sizeof(HostParameter));
    return sizeof...(P);
}

template <class... P, std::size_t... I> void call(void (*kernel)(P...), void** values, std::index_sequence<I...>) {
    kernel(*static_cast<std::remove_cv_t<P>*>(values[I])...);
}
template <class... P> void call(void (*kernel)(P...), void** values) {
    copies() = {};  // a launch that ended early may have left some
    call(kernel, values, std::index_sequence_for<P...>());
}

}  // namespace host
