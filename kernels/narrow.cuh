// The shorter types that factors of products on tensor cores are rounded to, and one instruction of
// each: m16n8k16 (16-bit types) or m16n8k8 (TF32). PTX ISA, "Matrix fragments for mma.m16n8k16" and
// "for mma.m16n8k8", which in words of 32 bits are the same.
//
// Without a GPU, GP_MMA_EMULATED stands for an emulation of the instruction, from its registers.
#pragma once

#include "base.cuh"

namespace gp {

#ifdef __CUDA_ARCH__
#define GP_MMA(shape, type)                                                                 \
  asm volatile("mma.sync.aligned." shape ".row.col.f32." type "." type ".f32 "              \
               "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"                      \
               : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])                             \
               : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]))
#elif defined(GP_MMA_EMULATED)  // by the tests' build, with the same registers
#define GP_MMA(shape, type) gp_mma(shape, type, c, a, b)
#else
#define GP_MMA(shape, type)
#endif

#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ >= 800
#define GP_CONVERTS  // to TF32 and bf16, and to two numbers of 16 bits at once
#endif

// A type: `round` to it, a `word` of several that are rounded together, the `value` back, how many
// lie in a word, one instruction.
struct Tf32 {
  typedef u32 Kept;
  static const int IN_WORD = 1;
  // To nearest, ties away from zero, as cvt.rna.tf32.f32: 10 bits of fraction. A NaN gets its quiet
  // bit: with what it holds in the 13 bits that are left out alone it would become infinity.
  __device__ __forceinline__ static Kept round(float x) {
#ifdef GP_CONVERTS
    Kept out;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(out) : "f"(x));
    return out;
#else
    const u32 bits = __float_as_uint(x), size = bits & 0x7fffffffu;
    if (size >= 0x7f800000u) return size > 0x7f800000u ? bits | 0x400000u : bits;
    return (bits + 0x1000u) & 0xffffe000u;
#endif
  }
  __device__ __forceinline__ static u32 word(const float* x) { return round(x[0]); }
  __device__ __forceinline__ static float value(u32 word, int) { return __uint_as_float(word); }
  __device__ __forceinline__ static void mma(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    GP_MMA("m16n8k8", "tf32");
  }
};

struct Bf16 {
  typedef unsigned short Kept;
  static const int IN_WORD = 2;
  // To nearest, ties to even.
  __device__ __forceinline__ static Kept round(float x) {
#ifdef GP_CONVERTS
    Kept out;
    asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(out) : "f"(x));
    return out;
#else
    const u32 bits = __float_as_uint(x);
    if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<Kept>(bits >> 16 | 0x40u);  // NaN
    return static_cast<Kept>((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
#endif
  }
  __device__ __forceinline__ static u32 word(const float* x) {
#ifdef GP_CONVERTS
    u32 out;
    asm("cvt.rn.bf16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(x[1]), "f"(x[0]));
    return out;
#else
    return round(x[0]) | static_cast<u32>(round(x[1])) << 16;
#endif
  }
  __device__ __forceinline__ static float value(u32 word, int half) {
    return __uint_as_float(half ? word & 0xffff0000u : word << 16);
  }
  __device__ __forceinline__ static void mma(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    GP_MMA("m16n8k16", "bf16");
  }
};

struct Fp16 {
  typedef unsigned short Kept;
  static const int IN_WORD = 2;
  // To nearest, ties to even; what is too large becomes infinity.
  __device__ __forceinline__ static Kept round(float x) {
#ifdef __CUDA_ARCH__
    Kept out;
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(out) : "f"(x));
    return out;
#else
    const u32 bits = __float_as_uint(x), sign = bits >> 16 & 0x8000u, size = bits & 0x7fffffffu;
    if (size > 0x7f800000u) return static_cast<Kept>(0x7fffu);            // NaN
    if (size >= 0x477ff000u) return static_cast<Kept>(sign | 0x7c00u);    // 65520 and more
    if (size < 0x38800000u) {                                             // below 2^-14
      // Adding 0.5 rounds the number to a multiple of 2^-24, its last bit there.
      const float moved = __uint_as_float(size) + 0.5f;
      return static_cast<Kept>(sign | (__float_as_uint(moved) - 0x3f000000u));
    }
    return static_cast<Kept>(sign | (size - 0x38000000u + 0xfffu + (size >> 13 & 1u)) >> 13);
#endif
  }
  __device__ __forceinline__ static u32 word(const float* x) {
#ifdef GP_CONVERTS
    u32 out;
    asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(out) : "f"(x[1]), "f"(x[0]));
    return out;
#else
    return round(x[0]) | static_cast<u32>(round(x[1])) << 16;
#endif
  }
  __device__ __forceinline__ static float value(u32 word, int half) {
    const u32 bits = half ? word >> 16 : word & 0xffffu;
    const u32 sign = (bits & 0x8000u) << 16, size = bits & 0x7fffu;
    if (size >= 0x7c00u) return __uint_as_float(sign | 0x7f800000u | size << 13);
    const float whole = __uint_as_float(size << 13);  // with the smaller type's exponent
    return __uint_as_float(sign | __float_as_uint(whole * 5.192296858534828e33f));  // 2^112
  }
  __device__ __forceinline__ static void mma(float (&c)[4], const u32 (&a)[4], const u32 (&b)[2]) {
    GP_MMA("m16n8k16", "f16");
  }
};
#undef GP_MMA
#undef GP_CONVERTS

}  // namespace gp
