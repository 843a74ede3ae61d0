// Matrix products with what follows them: C (m, n) = A (m, k) B (k, n), any strides, any sizes.
//
// A block makes a tile of BM x BN of C from slices of BK columns of A and rows of B in shared
// memory; a thread keeps TM x TN sums in registers while the next slice is on its way from memory.
// What follows (bias and activation, an activation's gradient, an update rule) is `store`, called
// with each finished sum. Where C has few tiles, the threads of a block are GROUPS: each takes one
// slice after so many, and their sums are added in the order of groups. Where k is longer still,
// blockIdx.z takes a chunk of k each, `store` keeps partial sums, and `finish_chunks` adds those in
// order. All else is added in order of k: so results depend on sizes and device alone.
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

// Which elements of a slice of BX lines by BK steps one of THREADS threads takes: they are APART
// from each other along one axis, so one pointer walks them.
template <int BX, int BK, int THREADS, bool ALONG_K>
struct Share {
  static const int COUNT = BX * BK / THREADS;
  static const int APART = ALONG_K ? THREADS / BK : THREADS / BX;

  __device__ __forceinline__ static int line() {
    const int at = threadIdx.x % THREADS;
    return ALONG_K ? at / BK : at % BX;
  }
  __device__ __forceinline__ static int step() {
    const int at = threadIdx.x % THREADS;
    return ALONG_K ? at % BK : at / BX;
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
  // Sixteen bytes more where threads write down a column, so that these are in different banks.
  static const int PITCH = BX + (ALONG_K ? 16 / static_cast<int>(sizeof(T)) : 0);

  __device__ __forceinline__ void store(T* shared) const {
    T* at = shared + this->step() * PITCH + this->line();
#pragma unroll
    for (int j = 0; j < this->COUNT; ++j)
      at[j * this->APART * (ALONG_K ? 1 : PITCH)] = this->kept[j];
  }
};

// Which of the B lines of a tile a thread has sums of, COUNT in all: groups of NEAR neighbours, which
// are read as one from shared memory, and so far apart that all threads' first groups are neighbours.
template <class T, int B, int COUNT>
struct Lines {
  static const int MOST = 16 / static_cast<int>(sizeof(T));
  static const int NEAR = COUNT < MOST ? COUNT : MOST;

  __device__ __forceinline__ static int of(int thread, int i) {
    return i / NEAR * (B / COUNT * NEAR) + thread * NEAR + i % NEAR;
  }
  __device__ __forceinline__ static void read(T (&out)[COUNT], const T* step, int thread) {
#pragma unroll
    for (int i = 0; i < COUNT; i += NEAR) {
      const Vector<T, NEAR> found =
          *reinterpret_cast<const Vector<T, NEAR>*>(step + of(thread, i));
#pragma unroll
      for (int j = 0; j < NEAR; ++j) out[i + j] = found.at[j];
    }
  }
};

// Adds to the sums of the first group's threads those of the other groups, in order. `room` has a
// number for each sum of these.
template <int GROUPS, int THREADS, class T, int TM, int TN>
__device__ __forceinline__ void join_groups(T (&sums)[TM][TN], T* room) {
  const int group = threadIdx.x / THREADS, at = threadIdx.x % THREADS;
  __syncthreads();  // the room was a slice's
#pragma unroll
  for (int i = 0; i < TM * TN; ++i)
    if (group > 0) room[((group - 1) * TM * TN + i) * THREADS + at] = sums[i / TN][i % TN];
  __syncthreads();
#pragma unroll
  for (int i = 0; i < TM * TN; ++i)
    for (int g = 1; group == 0 && g < GROUPS; ++g)
      sums[i / TN][i % TN] += room[((g - 1) * TM * TN + i) * THREADS + at];
}

// What a tile needs of shared memory, in numbers: two slices of each operand for each group.
template <class T, int BM, int BN, int BK, int TM, int TN, int GROUPS, class A, class B>
struct TileRoom {
  static const int THREADS = (BM / TM) * (BN / TN);
  static const int SIZE_A = BK * Slice<T, A, BM, BK, THREADS>::PITCH;
  static const int SIZE_B = BK * Slice<T, B, BN, BK, THREADS>::PITCH;
  static const int COUNT = GROUPS * 2 * (SIZE_A + SIZE_B);
};

// Rows from tile_m * BM and columns from tile_n * BN of C, over k0 <= k < k1.
// `store(row, column, sum)` is called once for each element inside C. With several groups, loaders
// must not count slices. `held_a`: shared memory, a `TileRoom`, aligned to 16 bytes.
// Launch: GROUPS * (BM / TM) * (BN / TN) threads.
template <class T, int BM, int BN, int BK, int TM, int TN, int GROUPS, class A, class B, class Store>
__device__ __forceinline__ void gemm_tile(T* held_a, const A& a, const B& b, i64 m, i64 n, i64 k0,
                                          i64 k1, i64 tile_m, i64 tile_n, Store store) {
  typedef TileRoom<T, BM, BN, BK, TM, TN, GROUPS, A, B> Sizes;
  const int THREADS = Sizes::THREADS, SIZE_A = Sizes::SIZE_A, SIZE_B = Sizes::SIZE_B;
  typedef Slice<T, A, BM, BK, THREADS> SliceA;
  typedef Slice<T, B, BN, BK, THREADS> SliceB;
  T* held_b = held_a + GROUPS * 2 * SIZE_A;
  const int group = threadIdx.x / THREADS, at = threadIdx.x % THREADS;
  const int x = at % (BN / TN), y = at / (BN / TN);
  const i64 row0 = tile_m * BM, column0 = tile_n * BN;
  T sums[TM][TN];
#pragma unroll
  for (int i = 0; i < TM; ++i)
#pragma unroll
    for (int j = 0; j < TN; ++j) sums[i][j] = T(0);
  SliceA next_a;
  SliceB next_b;
  i64 mine = k0 + group * BK;  // where the group's next slice starts
  next_a.start(a, row0, mine);
  next_b.start(b, column0, mine);
  next_a.load(a, row0, m - row0, mine, k1 - mine);
  next_b.load(b, column0, n - column0, mine, k1 - mine);
  int now = 2 * group;
  for (i64 k = k0; k < k1; k += GROUPS * BK) {
    T* slice_a = held_a + now * SIZE_A;
    T* slice_b = held_b + now * SIZE_B;
    next_a.store(slice_a);
    next_b.store(slice_b);
    __syncthreads();
    mine += GROUPS * BK;
    if (k + GROUPS * BK < k1) {
      next_a.load(a, row0, m - row0, mine, k1 - mine);
      next_b.load(b, column0, n - column0, mine, k1 - mine);
    }
#pragma unroll
    for (int p = 0; p < BK; ++p) {
      T u[TM], v[TN];
      Lines<T, BM, TM>::read(u, slice_a + p * SliceA::PITCH, y);
      Lines<T, BN, TN>::read(v, slice_b + p * SliceB::PITCH, x);
#pragma unroll
      for (int i = 0; i < TM; ++i)
#pragma unroll
        for (int j = 0; j < TN; ++j) sums[i][j] += u[i] * v[j];
    }
    now ^= 1;
  }
  if constexpr (GROUPS > 1) {
    static_assert((GROUPS - 1) * BM * BN <= GROUPS * 2 * SIZE_A, "sums go where slices were");
    join_groups<GROUPS, THREADS>(sums, held_a);
    if (group > 0) return;
  }
#pragma unroll
  for (int i = 0; i < TM; ++i)
#pragma unroll
    for (int j = 0; j < TN; ++j) {
      const i64 row = row0 + Lines<T, BM, TM>::of(y, i);
      const i64 column = column0 + Lines<T, BN, TN>::of(x, j);
      if (row < m && column < n) store(row, column, sums[i][j]);
    }
}

// The same, in shared memory of its own.
template <class T, int BM, int BN, int BK, int TM, int TN, int GROUPS, class A, class B, class Store>
__device__ __forceinline__ void gemm(const A& a, const B& b, i64 m, i64 n, i64 k0, i64 k1,
                                     i64 tile_m, i64 tile_n, Store store) {
  __shared__ __align__(16) T held[TileRoom<T, BM, BN, BK, TM, TN, GROUPS, A, B>::COUNT];
  gemm_tile<T, BM, BN, BK, TM, TN, GROUPS>(held, a, b, m, n, k0, k1, tile_m, tile_n, store);
}

// Rows first <= row < stop of C, by one block, a tile after the other. Each sum is added up as
// `gemm` does it with the same BK and GROUPS. All threads of the block must call it.
template <class T, int BM, int BN, int BK, int TM, int TN, int GROUPS, class Scratch, class A,
          class B, class Store>
__device__ __forceinline__ void gemm_rows(const Scratch& scratch, A a, const B& b, i64 first,
                                          i64 stop, i64 n, i64 k, Store store) {
  T* held = scratch.template of<T, TileRoom<T, BM, BN, BK, TM, TN, GROUPS, A, B>::COUNT>();
  a.data += first * a.line;
  auto placed = [&](i64 row, i64 column, T sum) { store(first + row, column, sum); };
  for (i64 row = 0; row * BM < stop - first; ++row) {
    for (i64 column = 0; column * BN < n; ++column) {
      if (row + column > 0) __syncthreads();  // the tile before is done with its slices
      gemm_tile<T, BM, BN, BK, TM, TN, GROUPS>(held, a, b, stop - first, n, 0, k, row, column,
                                               placed);
    }
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
