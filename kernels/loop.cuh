// Loops of a program: where the body's buffers are in each round, and carries that are copied.
//
// A buffer of the body stays where it is, moves on by an element each round, or is one of two
// copies that take turns. What is around a loop may move, too: then a table's word says where it is.
#pragma once

#include "gemm.cuh"

namespace gp {

// `at`: an address, or bytes from the address that the word at `table` holds, if that is not 0.
// `step`: bytes from element to element. `other`: if not 0, the address in every second round.
struct Place {
  u64 at, table, other;
  i64 step;
};

// `bytes` from `source`, or from `other`, if that is not 0, after an odd number of rounds.
struct Copied {
  u64 source, source_table, other, target, target_table;
  i64 bytes;
};

__device__ __forceinline__ u64 start_of(u64 at, u64 table) {
  return table == 0 ? at : *fixed<const u64>(table) + at;
}

// The address in the round of element t, before which `done` are done.
__device__ __forceinline__ u64 place_of(const Place& place, i64 t, i64 done) {
  if (place.other != 0 && (done & 1) != 0) return place.other;
  return start_of(place.at, place.table) + static_cast<u64>(t * place.step);
}

// All addresses of a round, by the threads of a block.
__device__ __forceinline__ void fill(const Place* places, i64 many, u64* table, i64 t, i64 done) {
  for (i64 b = threadIdx.x; b < many; b += blockDim.x) table[b] = place_of(places[b], t, done);
}

// Copies, by all threads of a grid, in words where they can be.
__device__ __forceinline__ void copy_all(const Copied* copied, i64 many, i64 done) {
  for (i64 c = 0; c < many; ++c) {
    const Copied& one = copied[c];
    const u64 source = one.other != 0 && (done & 1) != 0 ? one.other
                                                         : start_of(one.source, one.source_table);
    const u64 target = start_of(one.target, one.target_table);
    if (((source | target | static_cast<u64>(one.bytes)) & 3) == 0) {
      for (i64 i = thread_number(); i < one.bytes / 4; i += thread_count())
        fixed<int>(target)[i] = fixed<const int>(source)[i];
    } else {
      for (i64 i = thread_number(); i < one.bytes; i += thread_count())
        fixed<char>(target)[i] = fixed<const char>(source)[i];
    }
  }
}

// One sum of a product, in order of k, as `gemm` adds it up.
template <class T, class A, class B>
__device__ __forceinline__ T dot(const A& a, const B& b, i64 row, i64 column, i64 k) {
  const T* u = a.data + row * a.line;
  const T* v = b.data + column * b.line;
  T sum = T(0);
  for (i64 i = 0; i < k; ++i) sum += u[i * a.step] * v[i * b.step];
  return sum;
}

}  // namespace gp
