// Convolutions as products of matrices (gemm.cuh, tensor.cuh), one factor of which is read out of
// images: no patch is copied. Images are (N, *sizes, C), filters (O, C / groups, *kernel). `Loader`s
// find each element, or give 0 where a window reaches beyond an image. Any sizes.
//
// - conv: y[(n, p), o] = sum over k = (t, c) of x[n, p stride + t dilation - before, c] w[o, c, t]
// - its transpose in x: dx[(n, i), c] = sum over k = (t, o) of dy[n, p, o] w[o, c, t], where i =
//   p stride + t dilation - before. For each remainder of i by the stride only some of the taps meet
//   whole positions p, and those follow each other: with `Turned` windows each such part of the
//   result is a convolution of stride 1, and nothing is multiplied by zeros between positions.
// - its transpose in w: dw[(t, c), o] = sum over k = (n, p) of x[n, ..., c] dy[n, p, o]
#pragma once

#include "gemm.cuh"
#include "windows.cuh"

namespace gp {

// A factor whose lines are positions and whose steps are (tap, channel).
template <class T, int AXES, class I>
struct Patches {
  static const bool ALONG_K = true;
  const T* data;
  Windows<AXES, I> windows;
};

template <class T, int AXES, class I, int BX, int BK, int THREADS>
struct Loader<Patches<T, AXES, I>, BX, BK, THREADS> : Share<BX, BK, THREADS, true> {
  typedef Share<BX, BK, THREADS, true> Mine;
  typedef Patches<T, AXES, I> Source;
  T kept[Mine::COUNT];
  Digits<AXES + 1, I> k;

  // The positions of all lines, which the slices share.
  __device__ __forceinline__ static Spot<AXES, I>* positions() {
    __shared__ Spot<AXES, I> held[BX];
    return held;
  }

  __device__ __forceinline__ void start(const Source& x, i64 line0, i64 k0) {
    Spot<AXES, I>* held = positions();
    for (int i = threadIdx.x; i < BX; i += THREADS) {
      Digits<AXES + 1, I> p;
      p.start(x.windows.found, line0 + i);
      held[i] = x.windows.position(p);
    }
    k.start(x.windows.taps, k0 + Mine::step());
    __syncthreads();
  }

  __device__ __forceinline__ void load(const Source& x, i64, i64 lines, i64, i64 steps) {
    const Spot<AXES, I> tap = x.windows.tap(k);
    const bool any = Mine::step() < steps && lines > 0;  // parts of a result differ in their rows
    const int end = any ? static_cast<int>(least(lines, static_cast<i64>(BX))) : 0;
#pragma unroll
    for (int j = 0; j < Mine::COUNT; ++j) {
      const int line = Mine::line() + j * Mine::APART;
      const Spot<AXES, I>& spot = positions()[line];
      kept[j] = line < end && x.windows.inside(spot, tap) ? x.data[spot.offset + tap.offset] : T(0);
    }
    k.add(x.windows.taps, BK);
  }
};

// A factor whose lines are (tap, channel) and whose steps are positions.
template <class T, int AXES, class I>
struct Columns {
  static const bool ALONG_K = false;
  const T* data;
  Windows<AXES, I> windows;
};

template <class T, int AXES, class I, int BX, int BK, int THREADS>
struct Loader<Columns<T, AXES, I>, BX, BK, THREADS> : Share<BX, BK, THREADS, false> {
  typedef Share<BX, BK, THREADS, false> Mine;
  typedef Columns<T, AXES, I> Source;
  T kept[Mine::COUNT];
  Spot<AXES, I> tap;
  Digits<AXES + 1, I> p;

  __device__ __forceinline__ void start(const Source& x, i64 line0, i64 k0) {
    Digits<AXES + 1, I> t;
    t.start(x.windows.taps, line0 + Mine::line());
    tap = x.windows.tap(t);
    p.start(x.windows.found, k0 + Mine::step());
  }

  __device__ __forceinline__ void load(const Source& x, i64, i64 lines, i64, i64 steps) {
    const int end = Mine::line() < lines ? static_cast<int>(least(steps, static_cast<i64>(BK))) : 0;
#pragma unroll
    for (int j = 0; j < Mine::COUNT; ++j) {
      const Spot<AXES, I> spot = x.windows.position(p);
      const bool met = Mine::step() + j * Mine::APART < end && x.windows.inside(spot, tap);
      kept[j] = met ? x.data[spot.offset + tap.offset] : T(0);
      p.add(x.windows.found, Mine::APART);
    }
  }
};

// A factor whose steps are (tap, channel) of filters: elements between lines, channels, and taps.
template <class T, int AXES, class I>
struct Filters {
  static const bool ALONG_K = true;
  const T* data;
  i64 line, channel, tap[AXES];
  I taps[AXES + 1];

  __device__ __forceinline__ i64 offset(const Digits<AXES + 1, I>& k) const {
    i64 offset = k.at[AXES] * channel;
#pragma unroll
    for (int a = 0; a < AXES; ++a) offset += k.at[a] * tap[a];
    return offset;
  }
};

template <class T, int AXES, class I, int BX, int BK, int THREADS>
struct Loader<Filters<T, AXES, I>, BX, BK, THREADS> : Share<BX, BK, THREADS, true> {
  typedef Share<BX, BK, THREADS, true> Mine;
  typedef Filters<T, AXES, I> Source;
  T kept[Mine::COUNT];
  Digits<AXES + 1, I> k;

  __device__ __forceinline__ void start(const Source& x, i64, i64 k0) {
    k.start(x.taps, k0 + Mine::step());
  }

  __device__ __forceinline__ void load(const Source& x, i64 line0, i64 lines, i64, i64 steps) {
    const T* at = x.data + (line0 + Mine::line()) * x.line + x.offset(k);
    const int end = Mine::step() < steps ? static_cast<int>(least(lines, static_cast<i64>(BX))) : 0;
#pragma unroll
    for (int j = 0; j < Mine::COUNT; ++j) {
      kept[j] = Mine::line() + j * Mine::APART < end ? *at : T(0);
      at += Mine::APART * x.line;
    }
    k.add(x.taps, BK);
  }
};

// The factors of a group, as the convolution has them.
template <class I, class T, int AXES>
__device__ __forceinline__ Patches<T, AXES, I> patches(const Geometry<AXES>& g, const T* x,
                                                       i64 group) {
  const Patches<T, AXES, I> made = {x + group * g.channels, windows<I>(g)};
  return made;
}

template <class I, class T, int AXES>
__device__ __forceinline__ Filters<T, AXES, I> filters(const Geometry<AXES>& g, const T* w,
                                                       i64 group) {
  Filters<T, AXES, I> made;
  made.channel = after(g.kernel, -1);
  made.line = g.channels * made.channel;
  made.data = w + group * g.filters * made.line;
#pragma unroll
  for (int a = 0; a < AXES; ++a) {
    made.tap[a] = after(g.kernel, a);
    made.taps[a] = static_cast<I>(g.kernel[a]);
  }
  made.taps[AXES] = static_cast<I>(g.channels);
  return made;
}

// The factors of a group for the elements of images with `turned` windows.
template <class T, int AXES, class I>
__device__ __forceinline__ Patches<T, AXES, I> patches(const Geometry<AXES>& g,
                                                       const Turned<AXES, I>& turned, const T* dy,
                                                       i64 group) {
  const Patches<T, AXES, I> made = {dy + group * g.filters, turned.windows};
  return made;
}

template <class T, int AXES, class I>
__device__ __forceinline__ Filters<T, AXES, I> filters(const Geometry<AXES>& g,
                                                       const Turned<AXES, I>& turned, const T* w,
                                                       i64 group) {
  Filters<T, AXES, I> made;
  made.line = after(g.kernel, -1);
  made.channel = g.channels * made.line;
  made.data = w + group * g.filters * made.channel;
#pragma unroll
  for (int a = 0; a < AXES; ++a) {
    const i64 each = after(g.kernel, a);
    made.data += turned.tap[a] * each;
    made.tap[a] = turned.every[a] * each;
    made.taps[a] = turned.windows.taps[a];
  }
  made.taps[AXES] = static_cast<I>(g.filters);
  return made;
}

// Images from `image` on, for the gradient by a group's filters.
template <class I, class T, int AXES>
__device__ __forceinline__ Columns<T, AXES, I> columns(const Geometry<AXES>& g, const T* x,
                                                       i64 image, i64 group) {
  Columns<T, AXES, I> made = {x + group * g.channels, windows<I>(g)};
  made.data += image * (made.windows.along[0] * g.size[0]);
  return made;
}

}  // namespace gp
