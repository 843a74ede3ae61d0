// Where a step's batch and outputs are.
#pragma once

#include "base.cuh"

namespace gp {

// `run` is shared by all programs of a run: [step, schedule, order, status]. The schedule has two
// words a step, (program, position in the order). `rows` belongs to one program: `outputs` times
// (entry, base address, bytes a step). Writes these entries of `table`, and the batch's place in
// the order to `order_entry`. By the threads of one block.
__device__ __forceinline__ void place_step(const i64* run, const i64* rows, i64 outputs,
                                           i64 order_entry, i64 step, i64* table) {
  for (i64 i = threadIdx.x; i < outputs; i += blockDim.x)
    table[rows[3 * i]] = rows[3 * i + 1] + step * rows[3 * i + 2];
  if (threadIdx.x == 0) {
    const i64* schedule = fixed<const i64>(static_cast<u64>(run[1]));
    table[order_entry] = run[2] + 8 * schedule[2 * step + 1];
  }
}

}  // namespace gp
