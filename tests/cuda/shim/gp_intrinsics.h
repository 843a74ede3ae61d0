// CUDA's device functions that concern one thread alone: bits, math, atomics on integers.
//
// Math comes from the C library: correct within a unit or two in the last place, like CUDA's, but
// not bit for bit the same. The build does not contract multiplications and additions; __fmaf_rn
// and fmaf are exact.
#pragma once

template <class To, class From>
static inline To gp_bits(From value) {
    static_assert(sizeof(To) == sizeof(From), "a bit cast keeps the size");
    To result;
    memcpy(&result, &value, sizeof result);
    return result;
}

static inline int __float_as_int(float x) { return gp_bits<int>(x); }
static inline unsigned __float_as_uint(float x) { return gp_bits<unsigned>(x); }
static inline float __int_as_float(int x) { return gp_bits<float>(x); }
static inline float __uint_as_float(unsigned x) { return gp_bits<float>(x); }
static inline long long __double_as_longlong(double x) { return gp_bits<long long>(x); }
static inline double __longlong_as_double(long long x) { return gp_bits<double>(x); }

static inline unsigned __umulhi(unsigned a, unsigned b) {
    return unsigned((uint64_t(a) * b) >> 32);
}
static inline int __mulhi(int a, int b) { return int((int64_t(a) * b) >> 32); }
static inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __clz(int x) { return x == 0 ? 32 : __builtin_clz(unsigned(x)); }
static inline int __clzll(long long x) { return x == 0 ? 64 : __builtin_clzll(uint64_t(x)); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __ffsll(long long x) { return __builtin_ffsll(x); }

// Plain operators: the build does not contract, and rounds to nearest even.
static inline float __fadd_rn(float a, float b) { return a + b; }
static inline float __fsub_rn(float a, float b) { return a - b; }
static inline float __fmul_rn(float a, float b) { return a * b; }
static inline float __fdiv_rn(float a, float b) { return a / b; }
static inline float __frcp_rn(float a) { return 1.0f / a; }
static inline float __fsqrt_rn(float a) { return sqrtf(a); }
static inline float __fmaf_rn(float a, float b, float c) { return fmaf(a, b, c); }
static inline double __dadd_rn(double a, double b) { return a + b; }
static inline double __dsub_rn(double a, double b) { return a - b; }
static inline double __dmul_rn(double a, double b) { return a * b; }
static inline double __ddiv_rn(double a, double b) { return a / b; }
static inline double __dsqrt_rn(double a) { return sqrt(a); }
static inline double __fma_rn(double a, double b, double c) { return fma(a, b, c); }

// Faster on a GPU and less exact there; here they are the plain functions. Macros, because glibc
// has functions of these names.
#define __expf(x) expf(x)
#define __logf(x) logf(x)
#define __sinf(x) sinf(x)
#define __cosf(x) cosf(x)
#define __powf(x, y) powf(x, y)
static inline float __fdividef(float a, float b) { return a / b; }
static inline float __saturatef(float x) { return x > 0.0f ? (x < 1.0f ? x : 1.0f) : 0.0f; }

static inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
static inline double rsqrt(double x) { return 1.0 / sqrt(x); }
static inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678f); }
static inline double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }

static inline float __int2float_rn(int x) { return float(x); }
static inline float __uint2float_rn(unsigned x) { return float(x); }
static inline float __ll2float_rn(long long x) { return float(x); }
static inline double __ll2double_rn(long long x) { return double(x); }
static inline double __ull2double_rn(unsigned long long x) { return double(x); }
static inline float __double2float_rn(double x) { return float(x); }

static inline float min(float a, float b) { return fminf(a, b); }
static inline float max(float a, float b) { return fmaxf(a, b); }
static inline double min(double a, double b) { return fmin(a, b); }
static inline double max(double a, double b) { return fmax(a, b); }

// Loads and stores with a hint for the caches, and atomics, of which each returns what was there.
template <class T>
static inline T __ldg(const T *p) { return *p; }
template <class T>
static inline T __ldcg(const T *p) { return *p; }
template <class T>
static inline T __ldcs(const T *p) { return *p; }
template <class T>
static inline void __stcg(T *p, T value) { *p = value; }
template <class T>
static inline void __stcs(T *p, T value) { *p = value; }

#define GP_ATOMIC(name, type, value_after)                                                        \
    static inline type name(type *p, type value) {                                                \
        type old = *p;                                                                            \
        *p = value_after;                                                                         \
        return old;                                                                               \
    }
#define GP_INTEGER(type)                                                                          \
    static inline type min(type a, type b) { return a < b ? a : b; }                              \
    static inline type max(type a, type b) { return a < b ? b : a; }
#define GP_ATOMICS(type)                                                                          \
    GP_ATOMIC(atomicAdd, type, old + value)                                                 \
    GP_ATOMIC(atomicMax, type, old < value ? value : old)                                         \
    GP_ATOMIC(atomicMin, type, value < old ? value : old)                                         \
    GP_ATOMIC(atomicExch, type, value)                                                            \
    GP_ATOMIC(atomicAnd, type, old &value)                                                        \
    GP_ATOMIC(atomicOr, type, old | value)                                                        \
    static inline type atomicCAS(type *p, type expected, type value) {                            \
        type old = *p;                                                                            \
        *p = old == expected ? value : old;                                                       \
        return old;                                                                               \
    }
GP_INTEGER(int)
GP_INTEGER(unsigned)
GP_INTEGER(long)
GP_INTEGER(unsigned long)
GP_INTEGER(long long)
GP_INTEGER(unsigned long long)
GP_ATOMICS(int)
GP_ATOMICS(unsigned)
GP_ATOMICS(unsigned long long)
#undef GP_ATOMIC
#undef GP_ATOMICS
#undef GP_INTEGER
