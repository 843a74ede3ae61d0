// The first kernel of every step: where this step's batch and outputs are.
//
// `run` is shared by all programs of a run: [step, schedule, order, status]. The schedule has two
// words a step, (program, position in the order). `table` belongs to one program: `outputs` times
// (entry, base address, bytes a step) stand at `rows`. Writes the table, and counts the step.
// Launch: one block of 32 threads.
#include "base.cuh"

struct Params {
  gp::i64 run, table, rows, outputs, order_entry;
};

extern "C" __global__ void begin_step(const Params p) {
  gp::i64* run = gp::fixed<gp::i64>(p.run);
  gp::i64* table = gp::fixed<gp::i64>(p.table);
  const gp::i64* rows = gp::fixed<const gp::i64>(p.rows);
  const gp::i64 step = run[0];
  for (gp::i64 i = threadIdx.x; i < p.outputs; i += blockDim.x)
    table[rows[3 * i]] = rows[3 * i + 1] + step * rows[3 * i + 2];
  __syncthreads();
  if (threadIdx.x == 0) {
    const gp::i64* schedule = gp::fixed<const gp::i64>(run[1]);
    table[p.order_entry] = run[2] + 8 * schedule[2 * step + 1];
    run[0] = step + 1;
  }
}
GP_KERNEL(begin_step, Params)
