// Around a loop whose body is launched round by round, and around one that is a single kernel.
//
// `state` has two words: how many rounds are done, and whether another one begins. `begin_loop`
// copies carries to where they begin; `begin_round` writes the body's table of addresses and counts
// the round; `end_loop` copies carries to where they are wanted. `until`: the entry of a bool, of
// the carry, without which no round begins; -1.
// Launch: begin_round one block; the others any grid.
#include "loop.cuh"

struct Params {
  gp::u64 places, table, state, before, after;
  gp::i64 many_places, many_before, many_after, length, reverse, until;
};

extern "C" __global__ void begin_loop(const Params p) {
  gp::copy_all(gp::fixed<const gp::Copied>(p.before), p.many_before, 0);
  if (gp::thread_number() == 0) gp::fixed<gp::i64>(p.state)[0] = 0;
}
GP_KERNEL(begin_loop, Params)

extern "C" __global__ void begin_round(const Params p) {
  gp::i64* state = gp::fixed<gp::i64>(p.state);
  gp::u64* table = gp::fixed<gp::u64>(p.table);
  const gp::i64 done = state[0], t = p.reverse != 0 ? p.length - 1 - done : done;
  gp::fill(gp::fixed<const gp::Place>(p.places), p.many_places, table, t, done);
  __syncthreads();
  if (threadIdx.x == 0) {
    const bool begins = p.until < 0 || *gp::fixed<const bool>(table[p.until]);
    state[0] = done + begins;
    state[1] = begins;
  }
}
GP_KERNEL(begin_round, Params)

extern "C" __global__ void end_loop(const Params p) {
  const gp::i64 done = gp::fixed<const gp::i64>(p.state)[0];
  gp::copy_all(gp::fixed<const gp::Copied>(p.after), p.many_after, done);
}
GP_KERNEL(end_loop, Params)
