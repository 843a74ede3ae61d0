// How windows lie over images of one to three axes, channels last, (N, *sizes, C): which elements a
// convolution and its transposes meet, as in gpubp/ops/conv.py. Coordinates are of class I (int where
// they fit), places in memory of 64 bits.
#pragma once

#include "base.cuh"

namespace gp {

// A number written with digits of the given sizes. The first digit has no end.
template <int N, class I>
struct Digits {
  I at[N];

  __device__ __forceinline__ void start(const I (&sizes)[N], i64 number) {
#pragma unroll
    for (int d = N - 1; d > 0; --d) {
      at[d] = static_cast<I>(number % sizes[d]);
      number /= sizes[d];
    }
    at[0] = static_cast<I>(number);
  }
  __device__ __forceinline__ void add(const I (&sizes)[N], I more) {
#pragma unroll
    for (int d = N - 1; d > 0; --d) {
      at[d] += more;
      if (at[d] < sizes[d]) return;
      more = at[d] / sizes[d];
      at[d] -= more * sizes[d];
    }
    at[0] += more;
  }
  __device__ __forceinline__ void next(const I (&sizes)[N]) {
#pragma unroll
    for (int d = N - 1; d > 0; --d) {
      if (++at[d] < sizes[d]) return;
      at[d] = 0;
    }
    ++at[0];
  }
};

// A convolution: sizes of an image, positions of the result, and what lies between them along each
// axis; channels of a group. `common`: the greatest common divisor of stride and dilation.
template <int AXES>
struct Geometry {
  i64 images, channels, filters, groups;
  i64 size[AXES], found[AXES], kernel[AXES], stride[AXES], before[AXES], dilation[AXES],
      common[AXES];
};

// The elements of all sizes after an axis.
template <int AXES, class Size>
__device__ __forceinline__ i64 after(const Size (&sizes)[AXES], int axis) {
  i64 total = 1;
#pragma unroll
  for (int a = 0; a < AXES; ++a)
    if (a > axis) total *= sizes[a];
  return total;
}

// A position in an image, or how far a tap is from it: coordinates, and elements from the start.
template <int AXES, class I>
struct Spot {
  i64 offset;
  I at[AXES];
};

// Which elements of images are met by position p and tap t: p step + start + t apart. `found`: of
// images, then along each axis; `taps`: along each axis, then of channels.
template <int AXES, class I>
struct Windows {
  I size[AXES], step[AXES], start[AXES], apart[AXES];
  I found[AXES + 1], taps[AXES + 1];
  i64 along[AXES];  // elements between neighbours

  __device__ __forceinline__ void pitch(i64 channels) {
#pragma unroll
    for (int a = 0; a < AXES; ++a) along[a] = channels * after(size, a);
  }
  __device__ __forceinline__ Spot<AXES, I> position(const Digits<AXES + 1, I>& p) const {
    Spot<AXES, I> spot;
    spot.offset = p.at[0] * (along[0] * size[0]);
#pragma unroll
    for (int a = 0; a < AXES; ++a) {
      spot.at[a] = p.at[a + 1] * step[a] + start[a];
      spot.offset += spot.at[a] * along[a];
    }
    return spot;
  }
  __device__ __forceinline__ Spot<AXES, I> tap(const Digits<AXES + 1, I>& t) const {
    Spot<AXES, I> spot;
    spot.offset = t.at[AXES];
#pragma unroll
    for (int a = 0; a < AXES; ++a) {
      spot.at[a] = t.at[a] * apart[a];
      spot.offset += spot.at[a] * along[a];
    }
    return spot;
  }
  __device__ __forceinline__ bool inside(const Spot<AXES, I>& p, const Spot<AXES, I>& t) const {
    bool all = true;
#pragma unroll
    for (int a = 0; a < AXES; ++a)
      all = all && p.at[a] + t.at[a] >= 0 && p.at[a] + t.at[a] < size[a];
    return all;
  }
};

// Windows over images as the convolution has them.
template <class I, int AXES>
__device__ __forceinline__ Windows<AXES, I> windows(const Geometry<AXES>& g) {
  Windows<AXES, I> w;
  w.found[0] = static_cast<I>(g.images);
  w.taps[AXES] = static_cast<I>(g.channels);
#pragma unroll
  for (int a = 0; a < AXES; ++a) {
    w.size[a] = static_cast<I>(g.size[a]);
    w.step[a] = static_cast<I>(g.stride[a]);
    w.start[a] = static_cast<I>(-g.before[a]);
    w.apart[a] = static_cast<I>(g.dilation[a]);
    w.found[a + 1] = static_cast<I>(g.found[a]);
    w.taps[a] = static_cast<I>(g.kernel[a]);
  }
  w.pitch(g.channels * g.groups);
  return w;
}

// Windows over results for the elements of images at first, first + stride, ... along each axis.
// `tap`, `every`: their first tap, and taps between those that they have; `depth`: steps of k.
template <int AXES, class I>
struct Turned {
  Windows<AXES, I> windows;
  I first[AXES], tap[AXES], every[AXES];
  i64 depth;

  // Of these elements, in order, the row in the whole result.
  __device__ __forceinline__ i64 row(const Geometry<AXES>& g, i64 number) const {
    Digits<AXES + 1, I> p;
    p.start(windows.found, number);
    i64 row = p.at[0];
#pragma unroll
    for (int a = 0; a < AXES; ++a)
      row = row * g.size[a] + first[a] + p.at[a + 1] * g.stride[a];
    return row;
  }
  __device__ __forceinline__ i64 rows() const { return windows.found[0] * after(windows.found, 0); }
};

template <class I, int AXES>
__device__ __forceinline__ Turned<AXES, I> turn(const Geometry<AXES>& g, const I (&first)[AXES]) {
  Turned<AXES, I> made;
  Windows<AXES, I>& w = made.windows;
  w.found[0] = static_cast<I>(g.images);
  w.taps[AXES] = static_cast<I>(g.filters);
  made.depth = g.filters;
#pragma unroll
  for (int a = 0; a < AXES; ++a) {
    const I stride = static_cast<I>(g.stride[a]), dilation = static_cast<I>(g.dilation[a]);
    const I kernel = static_cast<I>(g.kernel[a]), from = first[a] + static_cast<I>(g.before[a]);
    const I turn = dilation % stride;
    I left = from % stride, t = 0;
    for (; t < kernel && left != 0; ++t) left = left < turn ? left - turn + stride : left - turn;
    made.first[a] = first[a];
    made.tap[a] = t;
    made.every[a] = stride / static_cast<I>(g.common[a]);
    const I count = t < kernel ? (kernel - t - 1) / made.every[a] + 1 : 0;
    made.depth *= count;
    w.size[a] = static_cast<I>(g.found[a]);
    w.step[a] = 1;
    w.start[a] = count > 0 ? (from - t * dilation) / stride : 0;
    w.apart[a] = -(dilation / static_cast<I>(g.common[a]));
    w.found[a + 1] = (static_cast<I>(g.size[a]) - first[a] - 1) / stride + 1;
    w.taps[a] = count > 0 ? count : 1;
  }
  w.pitch(g.filters * g.groups);
  return made;
}

// The part of the result with this number: the first elements are below stride and size.
template <class I, int AXES>
__device__ __forceinline__ Turned<AXES, I> turn(const Geometry<AXES>& g, i64 part) {
  I first[AXES];
#pragma unroll
  for (int a = AXES - 1; a >= 0; --a) {
    const i64 count = least(g.stride[a], g.size[a]);
    first[a] = static_cast<I>(part % count);
    part /= count;
  }
  return turn<I>(g, first);
}

}  // namespace gp
