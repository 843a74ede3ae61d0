// Convolutions in groups of few channels, which would leave the tiles of conv.cuh empty: each element
// by itself. Overwrites its results. Any sizes.
#pragma once

#include "conv.cuh"
#include "reduce.cuh"

namespace gp {

// One element of a product: position `number`, and `line` of the filters.
template <class T, int AXES, class I>
__device__ __forceinline__ T direct(const Patches<T, AXES, I>& x, const Filters<T, AXES, I>& w,
                                    const Spot<AXES, I>& spot, i64 line, i64 depth) {
  Digits<AXES + 1, I> k = {};
  const T* filter = w.data + line * w.line;
  T sum = T(0);
  for (i64 i = 0; i < depth; ++i) {
    const Spot<AXES, I> tap = x.windows.tap(k);
    if (x.windows.inside(spot, tap)) sum += x.data[spot.offset + tap.offset] * filter[w.offset(k)];
    k.next(w.taps);
  }
  return sum;
}

// Element (row, channel) of a convolution.
template <class I, class T, int AXES>
__device__ __forceinline__ T direct_conv(const Geometry<AXES>& g, const T* x, const T* w, i64 row,
                                         i64 channel) {
  const i64 group = channel / g.filters;
  const Patches<T, AXES, I> a = patches<I>(g, x, group);
  const Filters<T, AXES, I> b = filters<I>(g, w, group);
  Digits<AXES + 1, I> p;
  p.start(a.windows.found, row);
  const i64 depth = g.channels * after(g.kernel, -1);
  return direct(a, b, a.windows.position(p), channel % g.filters, depth);
}

// Element (row, channel) of its transpose in x.
template <class I, class T, int AXES>
__device__ __forceinline__ T direct_conv_input(const Geometry<AXES>& g, const T* dy, const T* w,
                                               i64 row, i64 channel) {
  const i64 group = channel / g.channels;
  I first[AXES];
  Digits<AXES + 1, I> p;
#pragma unroll
  for (int a = AXES - 1; a >= 0; --a) {
    const i64 at = row % g.size[a];
    row /= g.size[a];
    first[a] = static_cast<I>(at % g.stride[a]);
    p.at[a + 1] = static_cast<I>(at / g.stride[a]);
  }
  p.at[0] = static_cast<I>(row);
  const Turned<AXES, I> turned = turn<I>(g, first);
  const Patches<T, AXES, I> a = patches(g, turned, dy, group);
  const Filters<T, AXES, I> b = filters(g, turned, w, group);
  return direct(a, b, a.windows.position(p), channel % g.channels, turned.depth);
}

// The transpose in w, in sums over `each` images; Y threads add up one. The outputs are numbered
// (chunk, tap, channel, filter), and neighbours read neighbours. Pieces of `piece` positions, and
// `finish`, as in `reduce`. Launch: X * Y threads; outputs / X blocks; pieces.
template <int X, int Y, class I, class T, int AXES, class Finish>
__device__ __forceinline__ void direct_weights(const Geometry<AXES>& g, const T* x, const T* dy,
                                               i64 each, i64 outputs, i64 piece, double* partials,
                                               Finish finish) {
  typedef Sum<T, T> Op;
  const i64 q = static_cast<i64>(blockIdx.x) * X + threadIdx.x % X;
  typename Op::State mine = Op::start();
  if (q < outputs) {
    const i64 all = g.filters * g.groups, filter = q % all, taps = g.channels * after(g.kernel, -1);
    const i64 image = q / all / taps * each, positions = after(g.found, -1);
    const Columns<T, AXES, I> a = columns<I>(g, x, image, filter / g.filters);
    Digits<AXES + 1, I> t, p;
    t.start(a.windows.taps, q / all % taps);
    const Spot<AXES, I> tap = a.windows.tap(t);
    const i64 first = blockIdx.y * piece + threadIdx.x / X;
    const i64 last = least(least(each, g.images - image) * positions, blockIdx.y * piece + piece);
    p.start(a.windows.found, first);
    dy += image * positions * all + filter;
    for (i64 r = first; r < last; r += Y) {
      const Spot<AXES, I> spot = a.windows.position(p);
      if (a.windows.inside(spot, tap))
        mine = Op::take(mine, a.data[spot.offset + tap.offset] * dy[r * all], r);
      p.add(a.windows.found, Y);
    }
  }
  __shared__ typename Op::State held[X * Y];
  settle<Op, X, Y>(held, mine, q, outputs, 1, partials, finish);
}

}  // namespace gp
