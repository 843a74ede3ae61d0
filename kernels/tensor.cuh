// Matrix products on tensor cores: C (m, n) = A (m, k) B (k, n), float32 in memory.
//
// A and B are rounded to a shorter type on their way to shared memory, products are exact, sums are
// float32: what PyTorch calls TF32 matmul, and autocast for bf16 and fp16 (with the weights, the
// activations and the gradients kept in float32). The tile, the chunks of k and `store` are as in
// gemm.cuh. The instruction is m16n8k16 (16-bit types) or m16n8k8 (TF32): PTX ISA, "Matrix fragments
// for mma.m16n8k16" and "for mma.m16n8k8", which in words of 32 bits are the same.
//
// Without a GPU the same sums are made element by element from the same shared memory, or, slowly,
// from the instruction's registers by an emulation of it (GP_MMA_EMULATED).
#pragma once

#include "gemm.cuh"

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

const int SLICE_WORDS = 16;               // of k, in shared memory
const int SLICE_PITCH = SLICE_WORDS + 4;  // so that the 32 words of a fragment are in 32 banks

// A rounded slice in shared memory: a step after the other for each line.
template <class Type, class Source, int BX, int THREADS>
struct RoundedSlice : Loader<Source, BX, SLICE_WORDS * Type::IN_WORD, THREADS> {
  __device__ __forceinline__ void store(u32* shared) const {
    const int pitch = SLICE_PITCH * Type::IN_WORD;
    typename Type::Kept* at = reinterpret_cast<typename Type::Kept*>(shared) +
                              this->line() * pitch + this->step();
#pragma unroll
    for (int j = 0; j < this->COUNT; ++j)
      at[j * this->APART * (Source::ALONG_K ? pitch : 1)] = Type::round(this->kept[j]);
  }
};

// Of a matrix whose neighbours are along k: a thread takes 16 bytes, as one where its rows lie so.
template <class Type, int BX, int THREADS>
struct RoundedSlice<Type, Matrix<float, true>, BX, THREADS> {
  static const int WORDS = 4 / Type::IN_WORD;       // of 4 elements
  static const int ACROSS = SLICE_WORDS / WORDS;    // threads along a line
  static const int APART = THREADS / ACROSS, COUNT = BX / APART;
  float kept[COUNT][4];
  bool aligned;

  __device__ __forceinline__ static int line() { return threadIdx.x / ACROSS; }
  __device__ __forceinline__ static int step() { return threadIdx.x % ACROSS * 4; }

  __device__ __forceinline__ void start(const Matrix<float, true>& x, i64, i64 k0) {
    aligned = (reinterpret_cast<u64>(x.data + k0) | static_cast<u64>(x.line) * 4) % 16 == 0;
  }

  __device__ __forceinline__ void load(const Matrix<float, true>& x, i64 line0, i64 lines, i64 k0,
                                       i64 steps) {
    const float* at = x.data + (line0 + line()) * x.line + k0 + step();
    const int left = static_cast<int>(least(steps - step(), static_cast<i64>(4)));
    const int end = static_cast<int>(least(lines, static_cast<i64>(BX)));
#pragma unroll
    for (int j = 0; j < COUNT; ++j) {
      const bool inside = line() + j * APART < end;
      if (inside && aligned && left == 4) {
        const Vector<float, 4> found = *reinterpret_cast<const Vector<float, 4>*>(at);
#pragma unroll
        for (int e = 0; e < 4; ++e) kept[j][e] = found.at[e];
      } else {
#pragma unroll
        for (int e = 0; e < 4; ++e) kept[j][e] = inside && e < left ? at[e] : 0.0f;
      }
      at += APART * x.line;
    }
  }

  __device__ __forceinline__ void store(u32* shared) const {
    u32* at = shared + line() * SLICE_PITCH + step() / Type::IN_WORD;
#pragma unroll
    for (int j = 0; j < COUNT; ++j) {
      Vector<u32, WORDS> words;
#pragma unroll
      for (int w = 0; w < WORDS; ++w) words.at[w] = Type::word(kept[j] + w * Type::IN_WORD);
      *reinterpret_cast<Vector<u32, WORDS>*>(at + j * APART * SLICE_PITCH) = words;
    }
  }
};

// Of another matrix: a warp takes 8 lines, which are neighbours in memory, by 4 words, which in
// shared memory are in 32 banks.
template <class Type, int BX, int THREADS>
struct RoundedSlice<Type, Matrix<float, false>, BX, THREADS> {
  static const int CELLS = BX / 8 * (SLICE_WORDS / 4), COUNT = CELLS / (THREADS / 32);
  float kept[COUNT][Type::IN_WORD];

  __device__ __forceinline__ static int line(int j) {
    return (threadIdx.x / 32 + j * (THREADS / 32)) % (BX / 8) * 8 + threadIdx.x % 8;
  }
  __device__ __forceinline__ static int word(int j) {
    return (threadIdx.x / 32 + j * (THREADS / 32)) / (BX / 8) * 4 + threadIdx.x % 32 / 8;
  }

  __device__ __forceinline__ void start(const Matrix<float, false>&, i64, i64) {}

  __device__ __forceinline__ void load(const Matrix<float, false>& x, i64 line0, i64 lines, i64 k0,
                                       i64 steps) {
#pragma unroll
    for (int j = 0; j < COUNT; ++j) {
      const int step = word(j) * Type::IN_WORD;
      const float* at = x.data + (line0 + line(j)) * x.line + (k0 + step) * x.step;
#pragma unroll
      for (int e = 0; e < Type::IN_WORD; ++e)
        kept[j][e] = line(j) < lines && step + e < steps ? at[e * x.step] : 0.0f;
    }
  }

  __device__ __forceinline__ void store(u32* shared) const {
#pragma unroll
    for (int j = 0; j < COUNT; ++j)
      shared[line(j) * SLICE_PITCH + word(j)] = Type::word(kept[j]);
  }
};

// A thread's words of 16 rows of A, and of 8 columns of B, over 8 words of k. In both, g = lane / 4
// numbers the line and t = lane % 4 the word.
__device__ __forceinline__ void left_fragment(u32 (&out)[4], const u32* a) {
  a += threadIdx.x % 32 / 4 * SLICE_PITCH + threadIdx.x % 4;
  out[0] = a[0], out[1] = a[8 * SLICE_PITCH], out[2] = a[4], out[3] = a[8 * SLICE_PITCH + 4];
}
__device__ __forceinline__ void right_fragment(u32 (&out)[2], const u32* b) {
  b += threadIdx.x % 32 / 4 * SLICE_PITCH + threadIdx.x % 4;
  out[0] = b[0], out[1] = b[4];
}

// Adds to a warp's sums what 8 words of k give: WM rows from `a`, WN columns from `b`.
// A thread's four sums of 16 x 8 are at rows g, g + 8 and columns 2 t, 2 t + 1.
template <class Type, int WM, int WN>
__device__ __forceinline__ void multiply(float (&sums)[WM / 16][WN / 8][4], const u32* a,
                                         const u32* b) {
#if defined(__CUDA_ARCH__) || defined(GP_MMA_EMULATED)
  u32 right[WN / 8][2];
#pragma unroll
  for (int j = 0; j < WN / 8; ++j) right_fragment(right[j], b + 8 * j * SLICE_PITCH);
#pragma unroll
  for (int i = 0; i < WM / 16; ++i) {
    u32 left[4];
    left_fragment(left, a + 16 * i * SLICE_PITCH);
#pragma unroll
    for (int j = 0; j < WN / 8; ++j) Type::mma(sums[i][j], left, right[j]);
  }
#else
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  for (int i = 0; i < WM / 16; ++i)
    for (int j = 0; j < WN / 8; ++j)
      for (int e = 0; e < 4; ++e) {
        const u32* row = a + (16 * i + g + e / 2 * 8) * SLICE_PITCH;
        const u32* column = b + (8 * j + 2 * t + e % 2) * SLICE_PITCH;
        for (int w = 0; w < 8; ++w)
          for (int h = 0; h < Type::IN_WORD; ++h)
            sums[i][j][e] += Type::value(row[w], h) * Type::value(column[w], h);
      }
#endif
}

// Sums before the first step of k.
template <int I, int J>
__device__ __forceinline__ void clear(float (&sums)[I][J][4]) {
#pragma unroll
  for (int i = 0; i < I; ++i)
#pragma unroll
    for (int j = 0; j < J; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) sums[i][j][e] = 0.0f;
}

// Calls `store(row, column, sum)` for a warp's sums that are inside of C, from a row and a column on.
template <int WM, int WN, class Store>
__device__ __forceinline__ void store_sums(const float (&sums)[WM / 16][WN / 8][4], i64 from_row,
                                           i64 from_column, i64 m, i64 n, Store store) {
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
#pragma unroll
  for (int i = 0; i < WM / 16; ++i)
#pragma unroll
    for (int j = 0; j < WN / 8; ++j)
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const i64 row = from_row + 16 * i + g + e / 2 * 8;
        const i64 column = from_column + 8 * j + 2 * t + e % 2;
        if (row < m && column < n) store(row, column, sums[i][j][e]);
      }
}

// As `gemm` in gemm.cuh. A warp makes WM x WN sums. Launch: 32 (BM / WM) (BN / WN) threads.
template <class Type, int BM, int BN, int WM, int WN, class A, class B, class Store>
__device__ __forceinline__ void gemm_tensor(const A& a, const B& b, i64 m, i64 n, i64 k0, i64 k1,
                                            i64 tile_m, i64 tile_n, Store store) {
  const int THREADS = 32 * (BM / WM) * (BN / WN);
  typedef RoundedSlice<Type, A, BM, THREADS> SliceA;
  typedef RoundedSlice<Type, B, BN, THREADS> SliceB;
  const int BK = SLICE_WORDS * Type::IN_WORD;
  __shared__ __align__(16) u32 held_a[2][BM * SLICE_PITCH];
  __shared__ __align__(16) u32 held_b[2][BN * SLICE_PITCH];
  const int warp = threadIdx.x / 32;
  const int row_of_warp = warp % (BM / WM) * WM, column_of_warp = warp / (BM / WM) * WN;
  const i64 row0 = tile_m * BM, column0 = tile_n * BN;
  float sums[WM / 16][WN / 8][4];
  clear(sums);
  SliceA next_a;
  SliceB next_b;
  next_a.start(a, row0, k0);
  next_b.start(b, column0, k0);
  next_a.load(a, row0, m - row0, k0, k1 - k0);
  next_b.load(b, column0, n - column0, k0, k1 - k0);
  int now = 0;
  for (i64 k = k0; k < k1; k += BK) {
    next_a.store(held_a[now]);
    next_b.store(held_b[now]);
    __syncthreads();
    if (k + BK < k1) {
      next_a.load(a, row0, m - row0, k + BK, k1 - k - BK);
      next_b.load(b, column0, n - column0, k + BK, k1 - k - BK);
    }
#pragma unroll 1
    for (int word = 0; word < SLICE_WORDS; word += 8)
      multiply<Type, WM, WN>(sums, held_a[now] + row_of_warp * SLICE_PITCH + word,
                             held_b[now] + column_of_warp * SLICE_PITCH + word);
    now = 1 - now;
  }
  store_sums<WM, WN>(sums, row0 + row_of_warp, column0 + column_of_warp, m, n, store);
}

}  // namespace gp
