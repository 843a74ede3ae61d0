// Many steps in one launch: blocks that share each part's rows, and where they meet.
//
// Every block is alive all the time (a cooperative launch). It takes the same share of the rows of
// every part, so it meets other blocks only where it reads what they wrote; a grid of one block has
// no one to meet. What moves from step to step stands in a table in each block's shared memory.
#pragma once

#include "step.cuh"

#ifndef GP_PAUSE
#define GP_PAUSE() ((void)0)
#endif

namespace gp {

// One of the programs of a launch. `numbers`: the parameters of its parts, `words` of 8 bytes;
// `table`: its moving addresses, `order_entry` of them before that of the index order; `rows`: see
// step.cuh; `body`: which text runs it.
struct Steps {
  u64 numbers, table, rows;
  i64 words, outputs, order_entry, body;
};

// The first row of a block, where the first blocks have one row more than the last ones: with the
// same rows, the same share. Rows have 31 bits.
__device__ __forceinline__ i64 first_of(i64 rows, u32 block) {
  const u32 each = low(rows) / gridDim.x, more = low(rows) % gridDim.x;
  return static_cast<i64>(each) * block + (block < more ? block : more);
}

// Where all blocks of a grid meet. Each adds one to `arrived`, which only ever grows, and waits
// until as many have come as there are blocks, for the meeting that its own arrival belongs to.
// Before the first launch, `arrived` is 0; all launches have the same grid.
struct Meeting {
  u64* arrived;
  u64 wanted;  // 0: not known yet

  __device__ __forceinline__ void meet() {
    __syncthreads();
    if (gridDim.x == 1) return;
    if (threadIdx.x == 0) {
      __threadfence();  // what the block wrote is seen by all before its arrival is
      const u64 before = atomicAdd(arrived, 1ULL);
      wanted = wanted == 0 ? (before / gridDim.x + 1) * gridDim.x : wanted + gridDim.x;
      while (*static_cast<volatile u64*>(arrived) < wanted) GP_PAUSE();
      __threadfence();  // nothing is read from before the others' arrivals
    }
    __syncthreads();
  }
};

// A temporary in a block's own memory, as its rows have it: `start` is where the block's first row
// is, minus the rows before it.
template <class T>
__device__ __forceinline__ T* kept(const unsigned char* own, i64 start) {
  return reinterpret_cast<T*>(reinterpret_cast<u64>(own) + start);
}

// Copies bytes `first` to `stop` of a temporary from a block's own memory to where others read it,
// by elements of class T.
template <class T>
__device__ __forceinline__ void publish(const unsigned char* from, u64 to, i64 first, i64 stop) {
  const int size = sizeof(T);
  T* target = reinterpret_cast<T*>(to + first);
  const int count = static_cast<int>((stop - first) / size);
  for (int i = threadIdx.x; i < count; i += blockDim.x)
    target[i] = reinterpret_cast<const T*>(from)[i];
}

// Copies `count` words by the threads of a block.
__device__ __forceinline__ void copy_words(const u64* from, i64 count, u64* to) {
  for (i64 i = threadIdx.x; i < count; i += blockDim.x) to[i] = from[i];
}

}  // namespace gp
