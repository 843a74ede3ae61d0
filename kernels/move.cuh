// Indexed data movement. Elements are moved as units of 1, 4, 8 or 16 bytes. Overwrites. Any sizes.
// `Number` counts positions: u32 where all of them have 31 bits, else i64.
// Launch: any number of threads; each takes units in steps of the number of threads.
#pragma once

#include "base.cuh"

namespace gp {

// out[i, u] = data[order[i], u]: the rows of a batch by the index order. `width`: units a row;
// `units`: which of all rows' units a thread takes.
template <class Unit, class Number>
__device__ __forceinline__ void load_batch(Span<Number> units, Number width, const i64* order,
                                           const Unit* data, Unit* out) {
#pragma unroll 1
  for (Number i = units.first; i < units.stop; i += units.step)
    out[i] = data[order[i / width] * width + i % width];
}

// out[o, start + u] = in[o, u]: one array of a concatenation. Pitches and width in units.
template <class Unit, class Number>
__device__ __forceinline__ void place_rows(Number outer, Number width, const Unit* in,
                                           Number out_pitch, Unit* out) {
#pragma unroll 1
  for (Number i = thread_number(); i < outer * width; i += thread_count())
    out[i / width * out_pitch + i % width] = in[i];
}

// out[o, c, u] = data[o, indices[c], u], of which data has `size` along the indexed axis. `units`:
// which of out's units a thread takes.
template <class Unit, class Number, class Index>
__device__ __forceinline__ void gather(Span<Number> units, Number size, Number count, Number width,
                                       const Unit* data, const Index* indices, Unit* out,
                                       int* status) {
#pragma unroll 1
  for (Number i = units.first; i < units.stop; i += units.step) {
    const Number u = i % width, row = i / width, c = row % count, o = row / count;
    const i64 index = indices[c];
    if (index < 0 || index >= static_cast<i64>(size)) {
      atomicMax(status, 2);
    } else {
      out[i] = data[(static_cast<i64>(o) * size + index) * width + u];
    }
  }
}

// out[o, indices[c], u] += updates[o, c, u], in the order of c, into zeros: a thread owns (o, u) and
// walks all c, so the sums are in one order. Needs no atomics. Accumulates.
template <class T, class Number, class Index>
__device__ __forceinline__ void scatter_add(Number outer, Number size, Number count, Number inner,
                                            const T* updates, const Index* indices, T* out,
                                            int* status) {
#pragma unroll 1
  for (Number i = thread_number(); i < outer * inner; i += thread_count()) {
    const Number u = i % inner, o = i / inner;
    for (Number c = 0; c < count; ++c) {
      const i64 index = indices[c];
      if (index < 0 || index >= static_cast<i64>(size)) {
        atomicMax(status, 2);
      } else {
        out[(static_cast<i64>(o) * size + index) * inner + u] += updates[(o * count + c) * inner + u];
      }
    }
  }
}

}  // namespace gp
