// Matrix products on tensor cores of factors that are rounded in memory: C (m, n) = A (m, k) B (k, n).
//
// What tensor.cuh rounds for every tile that reads it was rounded once here (convert.cuh). So slices
// go to shared memory as they are, 16 bytes at a time, by copies that go on beside the sums
// (cp.async): while a slice is multiplied, the next STAGES - 1 are on their way. A warp takes 8 lines
// of 16 bytes along k at a time from there (ldmatrix). Where neighbours are not along k, ldmatrix
// turns 16-bit elements, and TF32 is read word by word; so either axis may be the one along which
// neighbours lie. The sums are those of tensor.cuh, in its order: the same bits. Tiles, chunks of k
// and `store` are as in gemm.cuh. From sm_80 on.
//
// PTX ISA, "cp.async", "ldmatrix", "Matrix fragments for mma.m16n8k16", "for mma.m16n8k8". Without a
// GPU the tests' device says when copies arrive.
#pragma once

#include "tensor.cuh"

namespace gp {

const int STAGES = 3;

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

// 16 bytes, which are copied as one: the first `nbytes` from `from`, the rest 0.
typedef Vector<u32, 4> Cell;

// Where cells are in shared memory. Addresses there have 32 bits.
#ifdef __CUDA_ARCH__
typedef u32 Shared;
__device__ __forceinline__ Shared shared_of(Cell* cells) {
  return static_cast<u32>(__cvta_generic_to_shared(cells));
}
__device__ __forceinline__ Shared ahead(Shared at, int cells) { return at + cells * 16; }
#else
typedef Cell* Shared;
__device__ __forceinline__ Shared shared_of(Cell* cells) { return cells; }
__device__ __forceinline__ Shared ahead(Shared at, int cells) { return at + cells; }
#endif

// Nothing is read where `nbytes` is 0.
__device__ __forceinline__ void start_copy(Shared to, const void* from, int nbytes) {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;" ::"r"(to), "l"(from), "r"(nbytes)
               : "memory");
#else
  gp_copy_async(to, from, sizeof(Cell), nbytes);
#endif
}

// What a thread has started since is a group.
__device__ __forceinline__ void close_group() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.commit_group;" ::: "memory");
#else
  gp_copies_commit();
#endif
}

// Until all of the thread's groups have arrived but the last LEFT.
template <int LEFT>
__device__ __forceinline__ void wait_for_groups() {
#ifdef __CUDA_ARCH__
  asm volatile("cp.async.wait_group %0;" ::"n"(LEFT) : "memory");
#else
  gp_copies_wait(LEFT);
#endif
}

// Four times 8 x 8 elements of 16 bits: lane l names row l % 8 of the (l / 8)-th, 16 bytes. It gets elements
// 2 t and 2 t + 1 of row g of each, g = l / 4 and t = l % 4; TURNED: of column g.
template <bool TURNED>
__device__ __forceinline__ void load_matrices(u32 (&out)[4], Shared row) {
#ifdef __CUDA_ARCH__
  if (TURNED)
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(row)
                 : "memory");
  else
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0, %1, %2, %3}, [%4];"
                 : "=r"(out[0]), "=r"(out[1]), "=r"(out[2]), "=r"(out[3])
                 : "r"(row)
                 : "memory");
#elif defined(GP_MMA_EMULATED)
  gp_load_matrices(out, row, TURNED);
#endif
}

// A word of shared memory, from the start of a slice.
__device__ __forceinline__ u32 load_word(Shared slice, int word) {
#ifdef __CUDA_ARCH__
  u32 found;
  asm volatile("ld.shared.u32 %0, [%1];" : "=r"(found) : "r"(slice + 4 * word) : "memory");
  return found;
#else
  return slice[word / 4].at[word % 4];
#endif
}

// A slice of BX lines in shared memory: a row of cells for each line (ALONG: neighbours are along k),
// or for each step of k. A thread copies a cell of every APART-th row, and takes what its warp
// multiplies: of A 8 lines, the next 8, then the same of the next 4 words of k (LINES_FIRST); of B
// the words go first.
template <class Type, bool ALONG, int BX, int THREADS, bool LINES_FIRST>
struct StagedPlaces {
  static const int DEPTH = SLICE_WORDS * Type::IN_WORD;  // of k
  static const int IN_CELL = 4 * Type::IN_WORD;          // elements of 16 bytes
  static const int ROWS = ALONG ? BX : DEPTH, ACROSS = (ALONG ? DEPTH : BX) / IN_CELL;
  static const int CELLS = ROWS * ACROSS, APART = THREADS / ACROSS, COUNT = ROWS / APART;
  static const bool BY_WORDS = !ALONG && Type::IN_WORD == 1;  // nothing turns them
  static_assert(APART % 8 == 0, "a thread's cells have one place in their rows");
  int to, taken;  // the place of its first cell; where the warp's fragments start for this lane

  // What is taken together is in 32 banks: cells of a row change places by its number. With ldmatrix
  // that are cells of 8 neighbouring rows, of which two have all banks where a row has 4 cells; else
  // words of 4 rows and of 2 neighbouring cells.
  __device__ __forceinline__ static int cell(int row, int across) {
    const int moved = BY_WORDS ? row % 4 * 2 : ACROSS < 8 ? row / 2 % 4 : row % 8;
    return row * ACROSS + (across ^ moved);
  }
  __device__ __forceinline__ static int row() { return threadIdx.x / ACROSS; }
  __device__ __forceinline__ static int across() { return threadIdx.x % ACROSS; }

  // `of_warp`: the first line of the tile that the warp multiplies.
  __device__ __forceinline__ void place(int of_warp) {
    to = cell(row(), across());
    const int lane = threadIdx.x % 32, second = lane / 8 % 2, third = lane / 16;
    const int line = LINES_FIRST ? second : third, step = LINES_FIRST ? third : second;
    if (BY_WORDS)
      taken = 4 * cell(lane % 4, of_warp / IN_CELL + lane / 16) + lane / 4 % 4;
    else
      taken = ALONG ? cell(of_warp + 8 * line + lane % 8, step)
                    : cell(8 * step + lane % 8, of_warp / IN_CELL + line);
  }

  // The i-th 16 lines of the warp, and the s-th 8 words of k. Rows are powers of two of cells, so
  // they may be added behind what moves cells within a row.
  __device__ __forceinline__ void fragment(u32 (&out)[4], Shared slice, int i, int s) const {
    if constexpr (BY_WORDS) {
#pragma unroll
      for (int e = 0; e < 4; ++e) {
        const int line = LINES_FIRST ? e % 2 : e / 2, step = LINES_FIRST ? e / 2 : e % 2;
        const int at = taken ^ (16 * i + 8 * line);
        out[e] = load_word(slice, at + (8 * s + 4 * step) * 4 * ACROSS);
      }
    } else {
      const int along = ALONG ? i : s, across = ALONG ? s : i;
      load_matrices<!ALONG>(out, ahead(slice, (taken ^ (2 * across)) + along * 16 * ACROSS));
    }
  }

  __device__ __forceinline__ static float value(const Cell* slice, int line, int step) {
    const int row = ALONG ? line : step, column = ALONG ? step : line;
    const u32 word = slice[cell(row, column / IN_CELL)].at[column % IN_CELL / Type::IN_WORD];
    return Type::value(word, column % Type::IN_WORD);
  }
};

// How a factor's cells come to shared memory; there is one for each class of factors, conv_staged.cuh
// has others. All threads call `start` with the first line and step and how many lines are left from
// there, then `copy` for slices that follow each other along k, with the steps that are left.
template <class Type, class Source, int BX, int THREADS, bool LINES_FIRST>
struct StagedSlice;

// One factor: `pitch` elements from a line to the next (ALONG), or from a step of k. It and `data`
// are whole cells.
template <class Kept, bool ALONG>
struct Stored {
  static const bool ALONG_K = ALONG;
  const Kept* data;
  i64 pitch;
};

template <class Type, bool ALONG, int BX, int THREADS, bool LINES_FIRST>
struct StagedSlice<Type, Stored<typename Type::Kept, ALONG>, BX, THREADS, LINES_FIRST>
    : StagedPlaces<Type, ALONG, BX, THREADS, LINES_FIRST> {
  typedef StagedPlaces<Type, ALONG, BX, THREADS, LINES_FIRST> Places;
  typedef Stored<typename Type::Kept, ALONG> Source;
  const typename Type::Kept* from;  // the next slice's first cell
  i64 apart, further;               // elements to the thread's next one, and to the slice after
  int lines;                        // of C

  __device__ __forceinline__ void start(const Source& x, i64 line0, i64 left, i64 k0) {
    from = x.data + (ALONG ? line0 : k0) * x.pitch + (ALONG ? k0 : line0);
    from += Places::row() * x.pitch + Places::across() * Places::IN_CELL;
    apart = Places::APART * x.pitch, further = ALONG ? Places::DEPTH : Places::DEPTH * x.pitch;
    lines = static_cast<int>(least(left, static_cast<i64>(BX)));
  }

  __device__ __forceinline__ void copy(const Source&, Shared slice, int steps) {
    const int rows = ALONG ? lines : steps, IN_CELL = Places::IN_CELL;
    const int near = least((ALONG ? steps : lines) - Places::across() * IN_CELL, IN_CELL);
    const int size = sizeof(typename Type::Kept);
#pragma unroll
    for (int j = 0; j < Places::COUNT; ++j) {
      const int nbytes = Places::row() + j * Places::APART < rows && near > 0 ? size * near : 0;
      const Shared to = ahead(slice, this->to + j * Places::APART * Places::ACROSS);
      start_copy(to, from + j * apart, nbytes);
    }
    from += further;
  }
};

// Adds to a warp's sums what the s-th 8 words of slices give: WM rows from `row`, WN columns from
// `column`.
template <class Type, int WM, int WN, class SliceA, class SliceB>
__device__ __forceinline__ void multiply_staged(float (&sums)[WM / 16][WN / 8][4], const SliceA& a,
                                                const SliceB& b, Shared slice_a, Shared slice_b,
                                                int row, int column, int s) {
#if defined(__CUDA_ARCH__) || defined(GP_MMA_EMULATED)
  u32 right[WN / 8][2];
#pragma unroll
  for (int j = 0; j < WN / 16; ++j) {
    u32 pair[4];
    b.fragment(pair, slice_b, j, s);
    right[2 * j][0] = pair[0], right[2 * j][1] = pair[1];
    right[2 * j + 1][0] = pair[2], right[2 * j + 1][1] = pair[3];
  }
#pragma unroll
  for (int i = 0; i < WM / 16; ++i) {
    u32 left[4];
    a.fragment(left, slice_a, i, s);
#pragma unroll
    for (int j = 0; j < WN / 8; ++j) Type::mma(sums[i][j], left, right[j]);
  }
#else
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4, STEPS = 8 * Type::IN_WORD;
  for (int i = 0; i < WM / 16; ++i)
    for (int j = 0; j < WN / 8; ++j)
      for (int e = 0; e < 4; ++e)
        for (int k = STEPS * s; k < STEPS * (s + 1); ++k)
          sums[i][j][e] += SliceA::value(slice_a, row + 16 * i + g + e / 2 * 8, k) *
                           SliceB::value(slice_b, column + 8 * j + 2 * t + e % 2, k);
#endif
}

// Slices that are copied while others are multiplied: see `gemm_warps`.
template <class Type, class A, class B, int BM, int BN, int THREADS>
struct StagedFeed {
  static const int DEPTH = SLICE_WORDS * Type::IN_WORD;
  typedef StagedSlice<Type, A, BM, THREADS, true> SliceA;
  typedef StagedSlice<Type, B, BN, THREADS, false> SliceB;
  Shared slices_a, slices_b;
  SliceA of_a;
  SliceB of_b;
  i64 left;  // steps that are not copied yet
  int now, free;

  __device__ __forceinline__ void start(const A& a, const B& b, i64 row0, i64 column0, i64 rows,
                                        i64 columns, i64 k0, i64 k1, int row, int column) {
    of_a.place(row);
    of_b.place(column);
    of_a.start(a, row0, rows, k0);
    of_b.start(b, column0, columns, k0);
    left = k1 - k0, now = STAGES - 1, free = STAGES - 2;
#pragma unroll
    for (int stage = 0; stage < STAGES - 1; ++stage) copy(a, b, stage);
  }

  __device__ __forceinline__ void copy(const A& a, const B& b, int stage) {
    const int steps = static_cast<int>(least(left, static_cast<i64>(DEPTH)));
    if (steps > 0) {
      of_a.copy(a, ahead(slices_a, stage * SliceA::CELLS), steps);
      of_b.copy(b, ahead(slices_b, stage * SliceB::CELLS), steps);
    }
    left -= DEPTH;
    close_group();  // empty behind the last slice, so that as many are left at each wait
  }

  __device__ __forceinline__ void next(const A& a, const B& b, i64) {
    free = now;
    now = now + 1 == STAGES ? 0 : now + 1;
    wait_for_groups<STAGES - 2>();
    __syncthreads();  // all threads' copies of this slice are there, and all are done with the last
    copy(a, b, free);
  }

  template <int WM, int WN>
  __device__ __forceinline__ void multiply(float (&sums)[WM / 16][WN / 8][4], int row,
                                           int column) const {
    const Shared slice_a = ahead(slices_a, now * SliceA::CELLS);
    const Shared slice_b = ahead(slices_b, now * SliceB::CELLS);
#pragma unroll
    for (int s = 0; s < SLICE_WORDS / 8; ++s)
      multiply_staged<Type, WM, WN>(sums, of_a, of_b, slice_a, slice_b, row, column, s);
  }
};

template <class Type, int BM, int BN, int WM, int WN, class A, class B, class Store>
__device__ __forceinline__ void gemm_staged(const A& a, const B& b, i64 m, i64 n, i64 k0, i64 k1,
                                            i64 tile_m, i64 tile_n, Store store) {
  typedef StagedFeed<Type, A, B, BM, BN, 32 * (BM / WM) * (BN / WN)> Feed;
  __shared__ Cell held_a[STAGES * Feed::SliceA::CELLS];
  __shared__ Cell held_b[STAGES * Feed::SliceB::CELLS];
  Feed feed;
  feed.slices_a = shared_of(held_a), feed.slices_b = shared_of(held_b);
  gemm_warps<BM, BN, WM, WN>(feed, a, b, m, n, k0, k1, tile_m, tile_n, store);
}

#endif

}  // namespace gp
