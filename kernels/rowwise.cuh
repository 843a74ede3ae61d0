// Ops along the last axis of (rows, columns): softmax, log-softmax, softmax cross-entropy.
//
// W threads share a row (W: a power of two up to 256, which is the block); rows are independent.
// A call takes 256 / W rows from `first` on. Overwrites its outputs. Any sizes. Launch: 256 threads.
#pragma once

#include "functors.cuh"

namespace gp {

const int ROW_THREADS = 256;

// The first row of a block, where blocks take 256 / W rows each.
template <int W>
__device__ __forceinline__ i64 first_row() {
  return static_cast<i64>(blockIdx.x) * (ROW_THREADS / W);
}

struct Larger {
  template <class T>
  __device__ __forceinline__ static T of(T a, T b) {
    return maximum(a, b);
  }
};
struct Plus {
  template <class T>
  __device__ __forceinline__ static T of(T a, T b) {
    return a + b;
  }
};

// Joins one value of each of W threads of a warp, W neighbours; all of them get the result.
template <int W, class Op, class T>
__device__ __forceinline__ T join_lanes(T mine) {
#pragma unroll
  for (int half = W / 2; half > 0; half /= 2)
    mine = Op::of(mine, __shfl_xor_sync(0xffffffffu, mine, half));
  return mine;
}

// Joins one value of each of the W threads of a row; all of them get the result. Every thread of
// the block must call it. A kernel calls it once for each Op: what the warps found has a place of
// its own then, and nobody has to wait before it is written.
template <int W, class Op, class T>
__device__ __forceinline__ T join(T mine) {
  if constexpr (W <= 32) {
    return join_lanes<W, Op>(mine);
  } else {
    __shared__ T held[ROW_THREADS / 32];
    mine = join_lanes<32, Op>(mine);
    if (threadIdx.x % 32 == 0) held[threadIdx.x / 32] = mine;
    __syncthreads();
    const T* of_row = held + threadIdx.x / W * (W / 32);
    T all = of_row[0];
    for (int i = 1; i < W / 32; ++i) all = Op::of(all, of_row[i]);
    return all;
  }
}

// The row's largest element, and the sum of exp(x - largest).
template <int W, class T>
__device__ __forceinline__ void row_scale(const T* x, i64 columns, bool inside, T* top, T* total) {
  const int at = threadIdx.x % W;
  T largest = inside && at < columns ? x[at] : -static_cast<T>(infinity());
  if (inside)
    for (i64 j = at + W; j < columns; j += W) largest = maximum(largest, x[j]);
  *top = join<W, Larger>(largest);
  T sum = T(0);
  if (inside)
    for (i64 j = at; j < columns; j += W) sum += m_exp(x[j] - *top);
  *total = join<W, Plus>(sum);
}

template <class T, int W, bool LOG>
__device__ __forceinline__ void softmax(i64 first, i64 rows, i64 columns, const T* x, T* y) {
  const i64 row = first + threadIdx.x / W;
  const bool inside = row < rows;
  T top, total;
  row_scale<W>(x + row * columns, columns, inside, &top, &total);
  if (!inside) return;
  const T shift = LOG ? m_log(total) : T(0);
  for (i64 j = threadIdx.x % W; j < columns; j += W) {
    const T z = x[row * columns + j] - top;
    y[row * columns + j] = LOG ? z - shift : m_exp(z) / total;
  }
}

// loss[row] = log(sum(exp(x))) - x[label], and dx = (softmax(x) - onehot(label)) * dloss[row].
// `loss` or `dx` may be null. `dloss_step`: 0 if one number serves all rows. A label out of range
// sets `status` to 1 and leaves a NaN loss and a zero gradient.
template <class T, class Label, int W>
__device__ __forceinline__ void cross_entropy(i64 first, i64 rows, i64 columns, const T* x,
                                              const Label* labels, const T* dloss, i64 dloss_step,
                                              T* loss, T* dx, int* status) {
  const i64 row = first + threadIdx.x / W;
  const bool inside = row < rows;
  x += row * columns;
  T top, total;
  row_scale<W>(x, columns, inside, &top, &total);
  if (!inside) return;
  const i64 label = labels[row];
  const bool valid = label >= 0 && label < columns;
  const int at = threadIdx.x % W;
  if (!valid && at == 0) atomicMax(status, 1);
  if (loss != nullptr && at == 0)
    loss[row] = valid ? m_log(total) - (x[label] - top) : static_cast<T>(not_a_number());
  if (dx == nullptr) return;
  const T scale = valid ? dloss[row * dloss_step] : T(0);
  const T each = scale / total;
  for (i64 j = at; j < columns; j += W)
    dx[row * columns + j] = m_exp(x[j] - top) * each - (j == label ? scale : T(0));
}

}  // namespace gp
