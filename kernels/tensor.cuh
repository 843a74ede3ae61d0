// Matrix products on tensor cores: C (m, n) = A (m, k) B (k, n), float32 in memory.
//
// A and B are rounded to a shorter type on their way to shared memory, products are exact, sums are
// float32: what PyTorch calls TF32 matmul, and autocast for bf16 and fp16 (with the weights, the
// activations and the gradients kept in float32). The tile, the chunks of k and `store` are as in
// gemm.cuh, types and instructions in narrow.cuh.
//
// `gemm_warps` is the frame of all such products; where a slice of k comes from is said by a feed:
// `RoundedFeed` here, `StagedFeed` in staged.cuh.
//
// Without a GPU the same sums are made element by element from the same shared memory, or, slowly,
// from the instruction's registers by an emulation of it (GP_MMA_EMULATED).
#pragma once

#include "gemm.cuh"
#include "narrow.cuh"

namespace gp {

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
__device__ __forceinline__ void multiply_words(float (&sums)[WM / 16][WN / 8][4],
                                               const u32* a, const u32* b) {
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

// As `gemm` in gemm.cuh. A warp makes WM x WN sums. All threads call `start` of the feed, then, for
// each slice of DEPTH steps from k0 on, `next`, after which the slice is there for all of them, and
// `multiply`, which adds what it gives to their warps' sums. Launch: 32 (BM / WM) (BN / WN) threads.
template <int BM, int BN, int WM, int WN, class Feed, class A, class B, class Store>
__device__ __forceinline__ void gemm_warps(Feed& feed, const A& a, const B& b, i64 m, i64 n, i64 k0,
                                           i64 k1, i64 tile_m, i64 tile_n, Store store) {
  const int warp = threadIdx.x / 32;
  const int row = warp % (BM / WM) * WM, column = warp / (BM / WM) * WN;
  const i64 row0 = tile_m * BM, column0 = tile_n * BN;
  float sums[WM / 16][WN / 8][4];
  clear(sums);
  feed.start(a, b, row0, column0, m - row0, n - column0, k0, k1, row, column);
#pragma unroll 1
  for (i64 k = k0; k < k1; k += Feed::DEPTH) {
    feed.next(a, b, k1 - k);
    feed.template multiply<WM, WN>(sums, row, column);
  }
  store_sums<WM, WN>(sums, row0 + row, column0 + column, m, n, store);
}

// Slices that threads load while another is multiplied, and round on their way to shared memory, of
// which there are two.
template <class Type, class A, class B, int BM, int BN, int THREADS>
struct RoundedFeed {
  static const int DEPTH = SLICE_WORDS * Type::IN_WORD;
  static const int SIZE_A = BM * SLICE_PITCH, SIZE_B = BN * SLICE_PITCH;
  u32 *held_a, *held_b;
  RoundedSlice<Type, A, BM, THREADS> next_a;
  RoundedSlice<Type, B, BN, THREADS> next_b;
  i64 row0, column0, rows, columns, k;
  int now;

  __device__ __forceinline__ void start(const A& a, const B& b, i64 from_row, i64 from_column,
                                        i64 rows_left, i64 columns_left, i64 k0, i64 k1, int, int) {
    row0 = from_row, column0 = from_column, rows = rows_left, columns = columns_left;
    k = k0, now = 1;
    next_a.start(a, row0, k);
    next_b.start(b, column0, k);
    load(a, b, k1 - k0);
  }

  __device__ __forceinline__ void load(const A& a, const B& b, i64 steps) {
    next_a.load(a, row0, rows, k, steps);
    next_b.load(b, column0, columns, k, steps);
  }

  __device__ __forceinline__ void next(const A& a, const B& b, i64 left) {
    now = 1 - now;
    next_a.store(held_a + now * SIZE_A);
    next_b.store(held_b + now * SIZE_B);
    __syncthreads();
    k += DEPTH;
    if (left > DEPTH) load(a, b, left - DEPTH);
  }

  template <int WM, int WN>
  __device__ __forceinline__ void multiply(float (&sums)[WM / 16][WN / 8][4], int row,
                                           int column) const {
    const u32* slice_a = held_a + now * SIZE_A + row * SLICE_PITCH;
    const u32* slice_b = held_b + now * SIZE_B + column * SLICE_PITCH;
#pragma unroll 1
    for (int word = 0; word < SLICE_WORDS; word += 8)
      multiply_words<Type, WM, WN>(sums, slice_a + word, slice_b + word);
  }
};

template <class Type, int BM, int BN, int WM, int WN, class A, class B, class Store>
__device__ __forceinline__ void gemm_tensor(const A& a, const B& b, i64 m, i64 n, i64 k0, i64 k1,
                                            i64 tile_m, i64 tile_n, Store store) {
  typedef RoundedFeed<Type, A, B, BM, BN, 32 * (BM / WM) * (BN / WN)> Feed;
  __shared__ __align__(16) u32 held_a[2 * Feed::SIZE_A];
  __shared__ __align__(16) u32 held_b[2 * Feed::SIZE_B];
  Feed feed;
  feed.held_a = held_a, feed.held_b = held_b;
  gemm_warps<BM, BN, WM, WN>(feed, a, b, m, n, k0, k1, tile_m, tile_n, store);
}

}  // namespace gp
