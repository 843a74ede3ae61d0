// Reductions over an axis: out[o, i] = reduce over r of in[o, r, i], sizes (outer, red, inner).
//
// A block of X * Y threads makes X outputs; Y threads walk the reduced axis of each, in steps of Y,
// and a tree joins what they found, so the order of additions depends on the sizes alone. Where the
// outputs are few and the axis is long, blockIdx.y takes a chunk of the axis each, the blocks write
// partial results, and `finish_partials` joins them in order. Overwrites its outputs. Any sizes.
#pragma once

#include "base.cuh"

namespace gp {

// Floats are added in double precision and rounded once.
template <class T>
struct Wide {
  typedef i64 Type;
};
template <>
struct Wide<float> {
  typedef double Type;
};
template <>
struct Wide<double> {
  typedef double Type;
};

template <class T, class Out>
struct Sum {
  typedef typename Wide<T>::Type State;
  __device__ __forceinline__ static State start() { return State(0); }
  __device__ __forceinline__ static State take(State s, T x, i64) { return s + State(x); }
  __device__ __forceinline__ static State merge(State a, State b) { return a + b; }
  __device__ __forceinline__ static Out result(State s, i64) { return static_cast<Out>(s); }
};

// Of floats: the sum is divided before it is rounded.
template <class T, class Out>
struct Mean : Sum<T, Out> {
  typedef typename Sum<T, Out>::State State;
  __device__ __forceinline__ static Out result(State s, i64 red) {
    return static_cast<Out>(s / static_cast<State>(red));
  }
};

// The extremum and where it is first; a NaN beats every number.
template <class T>
struct Found {
  T value;
  i64 at;  // -1: nothing yet
};

template <class T, class Out, bool LARGEST, bool INDEX>
struct Extremum {
  typedef Found<T> State;
  __device__ __forceinline__ static State start() {
    State s = {T(0), -1};
    return s;
  }
  __device__ __forceinline__ static State take(State s, T x, i64 r) {
    State other = {x, r};
    return merge(s, other);
  }
  __device__ __forceinline__ static State merge(State a, State b) {
    if (b.at < 0) return a;
    if (a.at < 0) return b;
    const bool nan_a = a.value != a.value, nan_b = b.value != b.value;
    if (nan_a || nan_b) {
      if (nan_a && nan_b) return a.at < b.at ? a : b;
      return nan_a ? a : b;
    }
    if (a.value == b.value) return a.at < b.at ? a : b;
    return (LARGEST ? a.value > b.value : a.value < b.value) ? a : b;
  }
  __device__ __forceinline__ static Out result(State s, i64) {
    return static_cast<Out>(INDEX ? static_cast<Out>(s.at) : static_cast<Out>(s.value));
  }
};

// Joins what the Y threads of each output found, and finishes output q or keeps a partial result.
// Every thread of the block must call it. `held`: shared memory for X * Y states.
template <class Op, int X, int Y, class Finish>
__device__ __forceinline__ void settle(typename Op::State* held, typename Op::State mine, i64 q,
                                       i64 outputs, i64 red, typename Op::State* partials,
                                       Finish finish) {
  const int y = threadIdx.x / X;
  held[threadIdx.x] = mine;
  for (int half = Y / 2; half > 0; half /= 2) {
    __syncthreads();
    if (y < half) held[threadIdx.x] = Op::merge(held[threadIdx.x], held[threadIdx.x + half * X]);
  }
  if (y != 0 || q >= outputs) return;
  if (partials != nullptr) {
    partials[blockIdx.y * outputs + q] = held[threadIdx.x];
  } else {
    finish(q, Op::result(held[threadIdx.x], red));
  }
}

// What the calling thread finds of output q over `first` <= r < `last` of the reduced axis.
template <class Op, int X, int Y, class Value>
__device__ __forceinline__ typename Op::State walked(i64 q, i64 outputs, i64 red, i64 inner,
                                                     i64 first, i64 last, Value value) {
  typename Op::State mine = Op::start();
  if (q < outputs) {
    const i64 start = q / inner * (red * inner) + q % inner;
    for (i64 r = first + threadIdx.x / X; r < last; r += Y)
      mine = Op::take(mine, value(start + r * inner), r);
  }
  return mine;
}

// `value(e)`: element e of the input. `finish(q, x)`: output q is x. `partials`: null, or room for
// gridDim.y times `outputs` states. Launch: X * Y threads; outputs / X blocks; chunks.
template <class Op, int X, int Y, class Value, class Finish>
__device__ __forceinline__ void reduce(i64 outputs, i64 red, i64 inner, i64 chunk,
                                       typename Op::State* partials, Value value, Finish finish) {
  __shared__ typename Op::State held[X * Y];
  const i64 q = static_cast<i64>(blockIdx.x) * X + threadIdx.x % X;
  const i64 first = blockIdx.y * chunk, last = least(red, first + chunk);
  const typename Op::State mine = walked<Op, X, Y>(q, outputs, red, inner, first, last, value);
  settle<Op, X, Y>(held, mine, q, outputs, red, partials, finish);
}

// Outputs from <= q < stop, by one block of X * Y threads, all of which must call it; in the order
// of `reduce` without chunks.
template <class Op, int X, int Y, class Scratch, class Value, class Finish>
__device__ __forceinline__ void reduce_rows(const Scratch& scratch, i64 from, i64 stop, i64 red,
                                            i64 inner, Value value, Finish finish) {
  typename Op::State* held = scratch.template of<typename Op::State, X * Y>();
  typename Op::State* none = nullptr;
  for (i64 at = from; at < stop; at += X) {
    if (at > from) __syncthreads();  // what was held is read
    const i64 q = at + threadIdx.x % X;
    const typename Op::State mine = walked<Op, X, Y>(q, stop, red, inner, 0, red, value);
    settle<Op, X, Y>(held, mine, q, stop, red, none, finish);
  }
}

// Joins `chunks` partial results of each output, in order. Launch: one thread an output.
template <class Op, class Finish>
__device__ __forceinline__ void finish_partials(i64 outputs, i64 red, i64 chunks,
                                                const typename Op::State* partials, Finish finish) {
  const i64 q = thread_number();
  if (q >= outputs) return;
  typename Op::State all = partials[q];
  for (i64 c = 1; c < chunks; ++c) all = Op::merge(all, partials[c * outputs + q]);
  finish(q, Op::result(all, red));
}

}  // namespace gp
