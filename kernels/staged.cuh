// Matrix products on tensor cores of factors that are 16-bit in memory: C (m, n) = A (m, k) B (k, n).
//
// What tensor.cuh rounds for every tile that reads it was rounded once here (convert.cuh). So slices
// go to shared memory as they are, 16 bytes at a time, by copies that go on beside the sums
// (cp.async): while a slice is multiplied, the next STAGES - 1 are on their way. A warp takes 8 x 8
// elements at a time from there (ldmatrix), and turns them where neighbours are not along k; so
// either axis may be the one along which neighbours lie. The sums are those of tensor.cuh, in its
// order: the same bits. Tiles, chunks of k and `store` are as in gemm.cuh. From sm_80 on.
//
// PTX ISA, "cp.async", "ldmatrix", "Matrix fragments for mma.m16n8k16". Without a GPU the tests'
// device says when copies arrive.
#pragma once

#include "tensor.cuh"

namespace gp {

const int STAGES = 3;
const int STAGED_BK = 32;  // of k, in a slice
const int IN_CELL = 8;     // elements of 16 bytes

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

// Four times 8 x 8 elements: lane l names row l % 8 of the (l / 8)-th, 16 bytes. It gets elements
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

// One factor: `pitch` elements from a line to the next (ALONG), or from a step of k. It and `data`
// are whole cells.
template <bool ALONG>
struct Stored {
  static const bool ALONG_K = ALONG;
  const unsigned short* data;
  i64 pitch;
};

// A slice of BX lines in shared memory: a row of cells for each line, or for each step of k. A
// thread copies a cell of every APART-th row, and takes what its warp multiplies: of A 8 lines, the
// next 8, then the same of the next 8 steps (LINES_FIRST); of B the steps go first.
template <class Source, int BX, int THREADS, bool LINES_FIRST>
struct StagedSlice {
  static const bool ALONG = Source::ALONG_K;
  static const int ROWS = ALONG ? BX : STAGED_BK, ACROSS = (ALONG ? STAGED_BK : BX) / IN_CELL;
  static const int CELLS = ROWS * ACROSS, APART = THREADS / ACROSS, COUNT = ROWS / APART;
  static_assert(APART % 8 == 0, "a thread's cells have one place in their rows");
  const unsigned short* from;  // the next slice's first cell
  i64 apart, further;          // elements to the thread's next one, and to the slice after
  int to, lines, taken;        // its place; lines of C; the warp's first cell for this lane

  // The cells of 8 neighbouring rows that ldmatrix takes together are in 32 banks: cells of a row
  // change places by its number. Two rows of 4 cells have all banks, so by half of it there.
  __device__ __forceinline__ static int cell(int row, int across) {
    return row * ACROSS + (across ^ (ACROSS < 8 ? row / 2 % 4 : row % 8));
  }
  __device__ __forceinline__ static int row() { return threadIdx.x / ACROSS; }
  __device__ __forceinline__ static int across() { return threadIdx.x % ACROSS; }

  // `left`: lines from `line0` on; `of_warp`: the first one of the tile that the warp multiplies.
  __device__ __forceinline__ void start(const Source& x, i64 line0, i64 left, i64 k0, int of_warp) {
    from = x.data + (ALONG ? line0 : k0) * x.pitch + (ALONG ? k0 : line0);
    from += row() * x.pitch + across() * IN_CELL;
    apart = APART * x.pitch, further = ALONG ? STAGED_BK : STAGED_BK * x.pitch;
    to = cell(row(), across());
    lines = static_cast<int>(least(left, static_cast<i64>(BX)));
    const int lane = threadIdx.x % 32, second = lane / 8 % 2, third = lane / 16;
    const int line = LINES_FIRST ? second : third, step = LINES_FIRST ? third : second;
    taken = ALONG ? cell(of_warp + 8 * line + lane % 8, step)
                  : cell(8 * step + lane % 8, of_warp / IN_CELL + line);
  }

  // Start to copy the next slice along k; `steps`: that are left, up to a slice's.
  __device__ __forceinline__ void copy(Shared slice, int steps) {
    const int rows = ALONG ? lines : steps;
    const int near = least((ALONG ? steps : lines) - across() * IN_CELL, IN_CELL);
#pragma unroll
    for (int j = 0; j < COUNT; ++j) {
      const int nbytes = row() + j * APART < rows && near > 0 ? 2 * near : 0;
      start_copy(ahead(slice, to + j * APART * ACROSS), from + j * apart, nbytes);
    }
    from += further;
  }

  // The i-th 16 lines of the warp, and the s-th 16 steps of k.
  __device__ __forceinline__ void fragment(u32 (&out)[4], Shared slice, int i, int s) const {
    const int along = ALONG ? i : s, across = ALONG ? s : i;
    load_matrices<!ALONG>(out, ahead(slice, (taken + along * 16 * ACROSS) ^ (2 * across)));
  }

  __device__ __forceinline__ static u32 element(const Cell* slice, int line, int step) {
    const int row = ALONG ? line : step, column = ALONG ? step : line;
    const Cell& found = slice[cell(row, column / IN_CELL)];
    return found.at[column % IN_CELL / 2] >> column % 2 * 16 & 0xffffu;
  }
};

// Adds to a warp's sums what the s-th 16 steps of slices give: WM rows from `row`, WN columns from
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
  const int g = threadIdx.x % 32 / 4, t = threadIdx.x % 4;
  for (int i = 0; i < WM / 16; ++i)
    for (int j = 0; j < WN / 8; ++j)
      for (int e = 0; e < 4; ++e)
        for (int k = 16 * s; k < 16 * s + 16; ++k)
          sums[i][j][e] +=
              Type::value(SliceA::element(slice_a, row + 16 * i + g + e / 2 * 8, k), 0) *
              Type::value(SliceB::element(slice_b, column + 8 * j + 2 * t + e % 2, k), 0);
#endif
}

// As `gemm_tensor`. Launch: 32 (BM / WM) (BN / WN) threads.
template <class Type, int BM, int BN, int WM, int WN, class A, class B, class Store>
__device__ __forceinline__ void gemm_staged(const A& a, const B& b, i64 m, i64 n, i64 k0, i64 k1,
                                            i64 tile_m, i64 tile_n, Store store) {
  const int THREADS = 32 * (BM / WM) * (BN / WN);
  typedef StagedSlice<A, BM, THREADS, true> SliceA;
  typedef StagedSlice<B, BN, THREADS, false> SliceB;
  __shared__ Cell held_a[STAGES * SliceA::CELLS];
  __shared__ Cell held_b[STAGES * SliceB::CELLS];
  const Shared slices_a = shared_of(held_a), slices_b = shared_of(held_b);
  const int warp = threadIdx.x / 32;
  const int row = warp % (BM / WM) * WM, column = warp / (BM / WM) * WN;
  const i64 row0 = tile_m * BM, column0 = tile_n * BN;
  float sums[WM / 16][WN / 8][4];
  clear(sums);
  SliceA of_a;
  SliceB of_b;
  of_a.start(a, row0, m - row0, k0, row);
  of_b.start(b, column0, n - column0, k0, column);
  i64 left = k1 - k0;  // steps that are not copied yet
  auto copy = [&](int stage) {
    const int steps = static_cast<int>(least(left, static_cast<i64>(STAGED_BK)));
    if (steps > 0) {
      of_a.copy(ahead(slices_a, stage * SliceA::CELLS), steps);
      of_b.copy(ahead(slices_b, stage * SliceB::CELLS), steps);
    }
    left -= STAGED_BK;
    close_group();  // empty behind the last slice, so that as many are left at each wait
  };
#pragma unroll
  for (int stage = 0; stage < STAGES - 1; ++stage) copy(stage);
  int now = 0, free = STAGES - 1;
#pragma unroll 1
  for (i64 k = k0; k < k1; k += STAGED_BK) {
    wait_for_groups<STAGES - 2>();
    __syncthreads();  // all threads' copies of this slice are there, and all are done with the last
    copy(free);
    const Shared slice_a = ahead(slices_a, now * SliceA::CELLS);
    const Shared slice_b = ahead(slices_b, now * SliceB::CELLS);
#pragma unroll
    for (int s = 0; s < STAGED_BK / 16; ++s)
      multiply_staged<Type, WM, WN>(sums, of_a, of_b, slice_a, slice_b, row, column, s);
    free = now;
    now = now + 1 == STAGES ? 0 : now + 1;
  }
  store_sums<WM, WN>(sums, row0 + row, column0 + column, m, n, store);
}

#endif

}  // namespace gp
