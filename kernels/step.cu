// The first kernel of every step: where this step's batch and outputs are, see step.cuh. Counts the
// step. Launch: one block of 32 threads.
#include "step.cuh"

struct Params {
  gp::i64 run, table, rows, outputs, order_entry;
};

extern "C" __global__ void begin_step(const Params p) {
  gp::i64* run = gp::fixed<gp::i64>(p.run);
  gp::i64* table = gp::fixed<gp::i64>(p.table);
  const gp::i64* rows = gp::fixed<const gp::i64>(p.rows);
  const gp::i64 step = run[0];
  gp::place_step(run, rows, p.outputs, p.order_entry, step, table);
  __syncthreads();
  if (threadIdx.x == 0) run[0] = step + 1;
}
GP_KERNEL(begin_step, Params)
