// Convolutions on tensor cores, whose images and filters are rounded in memory (staged.cuh): the
// products of conv.cuh with factors that come to shared memory by whole cells of channels. What lies
// beyond an image is copied as nothing, which leaves 0 there.
//
// Filters are copied as (O, *kernel, C / groups), so channels are neighbours (convert.cuh). Channels
// of a group, and with the transpose in x its filters, are whole cells.
#pragma once

#include "staged.cuh"
#include "windows.cuh"

namespace gp {

// A factor whose lines are positions and whose steps are (tap, channel).
template <class Kept, int AXES, class I>
struct StoredPatches {
  static const bool ALONG_K = true;
  const Kept* data;
  Windows<AXES, I> windows;
};

// A factor whose lines are (tap, channel) and whose steps are positions.
template <class Kept, int AXES, class I>
struct StoredColumns {
  static const bool ALONG_K = false;
  const Kept* data;
  Windows<AXES, I> windows;
};

// A factor whose lines are channels and whose steps are (tap, filter): elements between filters, and
// between taps.
template <class Kept, int AXES, class I>
struct StoredFilters {
  static const bool ALONG_K = false;
  const Kept* data;
  i64 filter, tap[AXES];
  I taps[AXES + 1];

  __device__ __forceinline__ i64 offset(const Digits<AXES + 1, I>& k) const {
    i64 offset = k.at[AXES] * filter;
#pragma unroll
    for (int a = 0; a < AXES; ++a) offset += k.at[a] * tap[a];
    return offset;
  }
};

#if !defined(__CUDA_ARCH__) || __CUDA_ARCH__ >= 800

// The position of each of a thread's cells stays; along k, all have one tap.
template <class Type, int AXES, class I, int BX, int THREADS, bool LINES_FIRST>
struct StagedSlice<Type, StoredPatches<typename Type::Kept, AXES, I>, BX, THREADS, LINES_FIRST>
    : StagedPlaces<Type, true, BX, THREADS, LINES_FIRST> {
  typedef StagedPlaces<Type, true, BX, THREADS, LINES_FIRST> Places;
  typedef StoredPatches<typename Type::Kept, AXES, I> Source;
  Spot<AXES, I> spots[Places::COUNT];
  Digits<AXES + 1, I> k;
  int lines;

  __device__ __forceinline__ void start(const Source& x, i64 line0, i64 left, i64 k0) {
#pragma unroll
    for (int j = 0; j < Places::COUNT; ++j) {
      Digits<AXES + 1, I> p;
      p.start(x.windows.found, line0 + Places::row() + j * Places::APART);
      spots[j] = x.windows.position(p);
    }
    k.start(x.windows.taps, k0 + Places::across() * Places::IN_CELL);
    lines = static_cast<int>(least(left, static_cast<i64>(BX)));
  }

  __device__ __forceinline__ void copy(const Source& x, Shared slice, int steps) {
    const Spot<AXES, I> tap = x.windows.tap(k);
    const int end = Places::across() * Places::IN_CELL < steps ? lines : 0;
#pragma unroll
    for (int j = 0; j < Places::COUNT; ++j) {
      const bool met = Places::row() + j * Places::APART < end && x.windows.inside(spots[j], tap);
      const Shared to = ahead(slice, this->to + j * Places::APART * Places::ACROSS);
      start_copy(to, x.data + spots[j].offset + tap.offset, met ? 16 : 0);
    }
    k.add(x.windows.taps, Places::DEPTH);
  }
};

// A thread's cells have one tap, which stays; positions follow each other along k.
template <class Type, int AXES, class I, int BX, int THREADS, bool LINES_FIRST>
struct StagedSlice<Type, StoredColumns<typename Type::Kept, AXES, I>, BX, THREADS, LINES_FIRST>
    : StagedPlaces<Type, false, BX, THREADS, LINES_FIRST> {
  typedef StagedPlaces<Type, false, BX, THREADS, LINES_FIRST> Places;
  typedef StoredColumns<typename Type::Kept, AXES, I> Source;
  Spot<AXES, I> tap;
  Digits<AXES + 1, I> p;
  bool any;

  __device__ __forceinline__ void start(const Source& x, i64 line0, i64 left, i64 k0) {
    const int line = Places::across() * Places::IN_CELL;
    Digits<AXES + 1, I> t;
    t.start(x.windows.taps, line0 + line);
    tap = x.windows.tap(t);
    p.start(x.windows.found, k0 + Places::row());
    any = line < left;
  }

  __device__ __forceinline__ void copy(const Source& x, Shared slice, int steps) {
    const int end = any ? steps : 0;
#pragma unroll
    for (int j = 0; j < Places::COUNT; ++j) {
      const Spot<AXES, I> spot = x.windows.position(p);
      const bool met = Places::row() + j * Places::APART < end && x.windows.inside(spot, tap);
      const Shared to = ahead(slice, this->to + j * Places::APART * Places::ACROSS);
      start_copy(to, x.data + spot.offset + tap.offset, met ? 16 : 0);
      p.add(x.windows.found, Places::APART);
    }
  }
};

template <class Type, int AXES, class I, int BX, int THREADS, bool LINES_FIRST>
struct StagedSlice<Type, StoredFilters<typename Type::Kept, AXES, I>, BX, THREADS, LINES_FIRST>
    : StagedPlaces<Type, false, BX, THREADS, LINES_FIRST> {
  typedef StagedPlaces<Type, false, BX, THREADS, LINES_FIRST> Places;
  typedef StoredFilters<typename Type::Kept, AXES, I> Source;
  const typename Type::Kept* from;
  Digits<AXES + 1, I> k;
  bool any;

  __device__ __forceinline__ void start(const Source& x, i64 line0, i64 left, i64 k0) {
    const int line = Places::across() * Places::IN_CELL;
    from = x.data + line0 + line;
    k.start(x.taps, k0 + Places::row());
    any = line < left;
  }

  __device__ __forceinline__ void copy(const Source& x, Shared slice, int steps) {
    const int end = any ? steps : 0;
#pragma unroll
    for (int j = 0; j < Places::COUNT; ++j) {
      const int nbytes = Places::row() + j * Places::APART < end ? 16 : 0;
      const Shared to = ahead(slice, this->to + j * Places::APART * Places::ACROSS);
      start_copy(to, from + x.offset(k), nbytes);
      k.add(x.taps, Places::APART);
    }
  }
};

#endif

// Filters of a group, copied, for the elements of images with `turned` windows.
template <class Kept, int AXES, class I>
__device__ __forceinline__ StoredFilters<Kept, AXES, I> stored_filters(
    const Geometry<AXES>& g, const Turned<AXES, I>& turned, const Kept* w) {
  StoredFilters<Kept, AXES, I> made;
  made.filter = after(g.kernel, -1) * g.channels;
  made.data = w;
#pragma unroll
  for (int a = 0; a < AXES; ++a) {
    const i64 each = after(g.kernel, a) * g.channels;
    made.data += turned.tap[a] * each;
    made.tap[a] = turned.every[a] * each;
    made.taps[a] = turned.windows.taps[a];
  }
  made.taps[AXES] = static_cast<I>(g.filters);
  return made;
}

}  // namespace gp
