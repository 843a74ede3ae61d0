// Pools of images (N, D, H, W, C), their gradients, and what undoes a pool. Windows are clipped to
// the image: nothing outside of it is read. Functions of a pool return element i of the result, so
// that elementwise ops may follow; sums run over taps, or over windows, in their order: no atomics.
// Launch of `unpool`, which overwrites: any number of threads.
#pragma once

#include "base.cuh"

namespace gp {

// One axis: window i has the elements i stride - pad + t dilation, t < kernel, that are inside.
struct PoolAxis {
  int size, found, kernel, stride, pad, dilation;

  __device__ __forceinline__ int at(int window, int tap) const {
    return window * stride - pad + tap * dilation;
  }
  __device__ __forceinline__ bool inside(int place) const { return place >= 0 && place < size; }

  // The window whose tap is at this element, or -1.
  __device__ __forceinline__ int window(int place, int tap) const {
    const int begin = place + pad - tap * dilation;
    if (begin < 0 || begin % stride != 0 || begin / stride >= found) return -1;
    return begin / stride;
  }
};

struct Pool {
  PoolAxis d, h, w;
  int channels;

  // The first element of the image and channel of a window or an element.
  __device__ __forceinline__ i64 start(i64 image, int channel) const {
    return image * d.size * h.size * w.size * channels + channel;
  }
};

// Where a window or an element stands: element i of (N, D, H, W, C).
struct PoolPlace {
  i64 image;
  int d, h, w, channel;

  __device__ __forceinline__ PoolPlace(i64 i, int depth, int height, int width, int channels) {
    const int size = depth * height * width * channels;
    image = i / size;
    int rest = static_cast<int>(i - image * size);
    channel = rest % channels;
    rest /= channels;
    w = rest % width;
    rest /= width;
    h = rest % height;
    d = rest / height;
  }
};

// The largest element of a window, of which x is the first of the image and channel: the first of
// equal ones, and of NaN the last. Returns its flat index.
template <class T>
__device__ __forceinline__ i64 largest(const Pool& p, const T* x, int od, int oh, int ow, T* top) {
  i64 best = -1;
  T most = T(0);
#pragma unroll 1
  for (int i = 0; i < p.d.kernel; ++i) {
    const int d = p.d.at(od, i);
    if (!p.d.inside(d)) continue;
#pragma unroll 1
    for (int j = 0; j < p.h.kernel; ++j) {
      const int h = p.h.at(oh, j);
      if (!p.h.inside(h)) continue;
#pragma unroll 1
      for (int k = 0; k < p.w.kernel; ++k) {
        const int w = p.w.at(ow, k);
        if (!p.w.inside(w)) continue;
        const i64 place = (static_cast<i64>(d) * p.h.size + h) * p.w.size + w;
        const T value = x[place * p.channels];
        if (best < 0 || value > most || value != value) {
          most = value;
          best = place;
        }
      }
    }
  }
  *top = most;
  return best;
}

// The largest of a window of x.
template <class T>
__device__ __forceinline__ T max_pool(const Pool& p, const T* x, i64 i) {
  const PoolPlace o(i, p.d.found, p.h.found, p.w.found, p.channels);
  T top;
  largest(p, x + p.start(o.image, o.channel), o.d, o.h, o.w, &top);
  return top;
}

// Its flat index over the sizes.
template <class T>
__device__ __forceinline__ i64 max_pool_indices(const Pool& p, const T* x, i64 i) {
  const PoolPlace o(i, p.d.found, p.h.found, p.w.found, p.channels);
  T top;
  return largest(p, x + p.start(o.image, o.channel), o.d, o.h, o.w, &top);
}

// g where it stands.
template <class T>
__device__ __forceinline__ T max_pool_pick(const Pool& p, const T* x, const T* g, i64 i) {
  const PoolPlace o(i, p.d.found, p.h.found, p.w.found, p.channels);
  const i64 start = p.start(o.image, o.channel);
  T top;
  return g[start + largest(p, x + start, o.d, o.h, o.w, &top) * p.channels];
}

// The sum of dy over the windows that an element is in (MAX: of which it is the largest).
template <bool MAX, class T>
__device__ __forceinline__ T pool_grad(const Pool& p, const T* x, const T* dy, i64 i) {
  const PoolPlace e(i, p.d.size, p.h.size, p.w.size, p.channels);
  const T* image = MAX ? x + p.start(e.image, e.channel) : nullptr;
  const i64 mine = (static_cast<i64>(e.d) * p.h.size + e.h) * p.w.size + e.w;
  T sum = T(0);
  // The last tap first: windows come in their order.
#pragma unroll 1
  for (int a = p.d.kernel - 1; a >= 0; --a) {
    const int d = p.d.window(e.d, a);
    if (d < 0) continue;
#pragma unroll 1
    for (int b = p.h.kernel - 1; b >= 0; --b) {
      const int h = p.h.window(e.h, b);
      if (h < 0) continue;
#pragma unroll 1
      for (int c = p.w.kernel - 1; c >= 0; --c) {
        const int w = p.w.window(e.w, c);
        if (w < 0) continue;
        T top;
        if (MAX && largest(p, image, d, h, w, &top) != mine) continue;
        const i64 line = (e.image * p.d.found + d) * p.h.found + h;
        sum += dy[(line * p.w.found + w) * p.channels + e.channel];
      }
    }
  }
  return sum;
}

template <class T>
__device__ __forceinline__ T max_pool_grad(const Pool& p, const T* x, const T* dy, i64 i) {
  return pool_grad<true>(p, x, dy, i);
}

template <class T>
__device__ __forceinline__ T sum_pool_grad(const Pool& p, const T* dy, i64 i) {
  return pool_grad<false>(p, dy, dy, i);
}

// The sum of a window of x.
template <class T>
__device__ __forceinline__ T sum_pool(const Pool& p, const T* x, i64 i) {
  const PoolPlace o(i, p.d.found, p.h.found, p.w.found, p.channels);
  const T* image = x + p.start(o.image, o.channel);
  T sum = T(0);
#pragma unroll 1
  for (int a = 0; a < p.d.kernel; ++a) {
    const int d = p.d.at(o.d, a);
    if (!p.d.inside(d)) continue;
#pragma unroll 1
    for (int b = 0; b < p.h.kernel; ++b) {
      const int h = p.h.at(o.h, b);
      if (!p.h.inside(h)) continue;
#pragma unroll 1
      for (int c = 0; c < p.w.kernel; ++c) {
        const int w = p.w.at(o.w, c);
        if (!p.w.inside(w)) continue;
        const i64 place = (static_cast<i64>(d) * p.h.size + h) * p.w.size + w;
        sum += image[place * p.channels];
      }
    }
  }
  return sum;
}

// out[r, indices[r, i]] = values[r, i], into zeros: a thread owns a row and walks it in order, so the
// last of equal indices counts. An index out of range sets `status` to 2.
template <class T, class Index>
__device__ __forceinline__ void unpool(i64 rows, i64 count, i64 size, const T* values,
                                       const Index* indices, T* out, int* status) {
  for (i64 r = thread_number(); r < rows; r += thread_count()) {
    for (i64 i = 0; i < size; ++i) out[r * size + i] = T(0);
    for (i64 i = r * count; i < (r + 1) * count; ++i) {
      const i64 index = indices[i];
      if (index < 0 || index >= size) {
        atomicMax(status, 2);
      } else {
        out[r * size + index] = values[i];
      }
    }
  }
}

}  // namespace gp
