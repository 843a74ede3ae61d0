// Matrix products with what follows them: C (m, n) = A (m, k) B (k, n), any strides, any sizes.
//
// A block makes a tile of BM x BN of C from slices of BK columns of A and rows of B in shared
// memory; a thread keeps TM x TN sums in registers while the next slice is on its way from memory.
// What follows (bias and activation, an activation's gradient, an update rule) is `store`, called
// with each finished sum. Every sum is added up in order of k by one thread. Where C has few tiles
// and k is long, blockIdx.z takes a chunk of k each, `store` keeps partial sums, and
// `finish_chunks` adds those in order: so results depend on sizes and device alone.
#pragma once

#include "base.cuh"

namespace gp {

// One operand: `line` and `step` are the strides, in elements, along C's own axis and along k.
// ALONG: neighbours in memory are neighbours in k, so neighbouring threads walk k.
template <class T, bool ALONG>
struct Matrix {
  static const bool ALONG_K = ALONG;
  const T* data;
  i64 line, step;
};

// Which elements of a slice of BX lines by BK steps a thread of a block takes: they are APART from
// each other along one axis, so one pointer walks them.
template <int BX, int BK, int THREADS, bool ALONG_K>
struct Share {
  static const int COUNT = BX * BK / THREADS;
  static const int APART = ALONG_K ? THREADS / BK : THREADS / BX;

  __device__ __forceinline__ static int line() {
    return ALONG_K ? threadIdx.x / BK : threadIdx.x % BX;
  }
  __device__ __forceinline__ static int step() {
    return ALONG_K ? threadIdx.x % BK : threadIdx.x / BX;
  }
};

// Threads of a block load a slice of an operand into registers (`kept`), zero outside of it. There
// is one for each class of operands; conv.cuh has others. All threads call `start` with the first
// line and step, then `load` for slices that follow each other along k; `lines` and `steps` are
// what is left of the operand from there.
template <class Source, int BX, int BK, int THREADS>
struct Loader;

template <class T, bool ALONG_K, int BX, int BK, int THREADS>
struct Loader<Matrix<T, ALONG_K>, BX, BK, THREADS> : Share<BX, BK, THREADS, ALONG_K> {
  typedef Share<BX, BK, THREADS, ALONG_K> Mine;
  T kept[Mine::COUNT];

  __device__ __forceinline__ void start(const Matrix<T, ALONG_K>&, i64, i64) {}

  __device__ __forceinline__ void load(const Matrix<T, ALONG_K>& x, i64 line0, i64 lines, i64 k0,
                                       i64 steps) {
    const int line = Mine::line(), step = Mine::step();
    const T* at = x.data + (line0 + line) * x.line + (k0 + step) * x.step;
    const i64 next = Mine::APART * (ALONG_K ? x.line : x.step);
    const bool fixed_inside = ALONG_K ? step < steps : line < lines;
    const int here = ALONG_K ? line : step;
    const int end = static_cast<int>(least(ALONG_K ? lines : steps, static_cast<i64>(BX + BK)));
#pragma unroll
    for (int j = 0; j < Mine::COUNT; ++j) {
      kept[j] = fixed_inside && here + j * Mine::APART < end ? *at : T(0);
      at += next;
    }
  }
};

// A slice in shared memory: a line after the other for each step.
template <class T, class Source, int BX, int BK, int THREADS>
struct Slice : Loader<Source, BX, BK, THREADS> {
  static const bool ALONG_K = Source::ALONG_K;
  static const int PITCH = BX + (ALONG_K ? 1 : 0);  // odd where threads write down a column

  __device__ __forceinline__ void store(T* shared) const {
    T* at = shared + this->step() * PITCH + this->line();
#pragma unroll
    for (int j = 0; j < this->COUNT; ++j)
      at[j * this->APART * (ALONG_K ? 1 : PITCH)] = this->kept[j];
  }
};

// Rows from tile_m * BM and columns from tile_n * BN of C, over k0 <= k < k1.
// `store(row, column, sum)` is called once for each element inside C.
// Launch: (BM / TM) * (BN / TN) threads.
template <class T, int BM, int BN, int BK, int TM, int TN, class A, class B, class Store>
__device__ __forceinline__ void gemm(const A& a, const B& b, i64 m, i64 n, i64 k0, i64 k1,
                                     i64 tile_m, i64 tile_n, Store store) {
  const int THREADS = (BM / TM) * (BN / TN);
  typedef Slice<T, A, BM, BK, THREADS> SliceA;
  typedef Slice<T, B, BN, BK, THREADS> SliceB;
  __shared__ T held_a[2][BK * SliceA::PITCH];
  __shared__ T held_b[2][BK * SliceB::PITCH];
  const int x = threadIdx.x % (BN / TN), y = threadIdx.x / (BN / TN);
  const i64 row0 = tile_m * BM, column0 = tile_n * BN;
  T sums[TM][TN];
#pragma unroll
  for (int i = 0; i < TM; ++i)
#pragma unroll
    for (int j = 0; j < TN; ++j) sums[i][j] = T(0);
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
#pragma unroll
    for (int p = 0; p < BK; ++p) {
      T u[TM], v[TN];
#pragma unroll
      for (int i = 0; i < TM; ++i) u[i] = held_a[now][p * SliceA::PITCH + i * (BM / TM) + y];
#pragma unroll
      for (int j = 0; j < TN; ++j) v[j] = held_b[now][p * SliceB::PITCH + j * (BN / TN) + x];
#pragma unroll
      for (int i = 0; i < TM; ++i)
#pragma unroll
        for (int j = 0; j < TN; ++j) sums[i][j] += u[i] * v[j];
    }
    now = 1 - now;
  }
#pragma unroll
  for (int i = 0; i < TM; ++i)
#pragma unroll
    for (int j = 0; j < TN; ++j) {
      const i64 row = row0 + i * (BM / TM) + y, column = column0 + j * (BN / TN) + x;
      if (row < m && column < n) store(row, column, sums[i][j]);
    }
}

// The sum of `chunks` partial sums, `pitch` elements apart, in order.
template <class T>
__device__ __forceinline__ T finish_chunks(const T* partial, i64 chunks, i64 pitch) {
  T sum = partial[0];
  for (i64 c = 1; c < chunks; ++c) sum += partial[c * pitch];
  return sum;
}

}  // namespace gp
