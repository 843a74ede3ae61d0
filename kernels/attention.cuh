// Attention and its gradients: tiles of 32 queries and 32 keys, online softmax, no scores in memory.
// Formulas in gpubp/ops/attention_specs.py.
//
// A block of 256 threads makes 32 rows of a result of one head: thread (y, x) owns rows y, y + 8,
// y + 16, y + 24 and columns x, x + 32, ...; sums over tiles go on in the result itself, which is
// overwritten. No atomics: key gradients are summed head by head, query by query, in order. Any
// sizes and strides. Launch: 256 threads, a block for each tile of each head (or head of keys).
#pragma once

#include "functors.cuh"

namespace gp {

const int ATT_SIDE = 32;                          // queries, keys and features of a tile
const int ATT_LINES = 8;                          // lines of threads
const int ATT_OWN = ATT_SIDE / ATT_LINES;         // rows of a thread
const int ATT_PITCH = ATT_SIDE + 1;

// Rows of one head: element e of row i stands at data[i * row + e].
template <class T>
struct HeadRows {
  T* data;
  i64 row;
};

// An array of heads, (sequences, rows, heads, features), by its strides.
template <class T>
struct Heads {
  T* data;
  i64 sequence, row, head;

  __device__ __forceinline__ HeadRows<T> of(i64 n, i64 h) const {
    return {data + n * sequence + h * head, row};
  }
};

// Booleans (HIDES) or floats that are added, or nothing (data is null).
template <class M>
struct Mask {
  const M* data;
  i64 sequence, row, head, column;
};

struct Sizes {
  i64 length, keys, heads, each, size, value_size;
  int causal;
};

template <class T>
struct Tiles {
  T a[ATT_SIDE][ATT_PITCH], b[ATT_SIDE][ATT_PITCH], p[ATT_SIDE][ATT_PITCH], d[ATT_SIDE][ATT_PITCH];
  T top[ATT_SIDE], total[ATT_SIDE], factor[ATT_SIDE];
};

__device__ __forceinline__ int att_x() { return threadIdx.x % ATT_SIDE; }
__device__ __forceinline__ int att_y() { return threadIdx.x / ATT_SIDE; }

// 32 x 32 elements of rows from `first` on and features from `from` on; 0 beyond the ends.
template <class T>
__device__ __forceinline__ void fetch(T (*tile)[ATT_PITCH], const HeadRows<const T>& rows, i64 first,
                                      i64 count, i64 from, i64 features) {
  const i64 e = from + att_x();
#pragma unroll
  for (int r = 0; r < ATT_OWN; ++r) {
    const int at = att_y() + r * ATT_LINES;
    const i64 i = first + at;
    tile[at][att_x()] = i < count && e < features ? rows.data[i * rows.row + e] : T(0);
  }
}

// sums[r] = row y + 8 r of a times row x of b. When it returns, all threads have done what stands
// before it, whatever the number of features.
template <class T>
__device__ __forceinline__ void meet(Tiles<T>& tiles, const HeadRows<const T>& a, i64 i0, i64 rows,
                                     const HeadRows<const T>& b, i64 j0, i64 columns, i64 features,
                                     T* sums) {
#pragma unroll
  for (int r = 0; r < ATT_OWN; ++r) sums[r] = T(0);
  i64 from = 0;
  do {
    __syncthreads();
    fetch(tiles.a, a, i0, rows, from, features);
    fetch(tiles.b, b, j0, columns, from, features);
    __syncthreads();
#pragma unroll 8
    for (int e = 0; e < ATT_SIDE; ++e) {
      const T other = tiles.b[att_x()][e];
#pragma unroll
      for (int r = 0; r < ATT_OWN; ++r) sums[r] += tiles.a[att_y() + r * ATT_LINES][e] * other;
    }
    from += ATT_SIDE;
  } while (from < features);
}

// out[i] = out[i] factor[i] + the sum over j of w[i][j] x[j] (TURNED: w[j][i]); factor may be null.
// Weights and factors that any thread has written before are seen.
template <bool TURNED, class T>
__device__ __forceinline__ void gather_rows(Tiles<T>& tiles, T (*w)[ATT_PITCH], const T* factor,
                                            const HeadRows<const T>& x, i64 j0, i64 count,
                                            i64 features, const HeadRows<T>& out, i64 i0, i64 rows) {
#pragma unroll 1
  for (i64 from = 0; from < features; from += ATT_SIDE) {
    __syncthreads();
    fetch(tiles.b, x, j0, count, from, features);
    __syncthreads();
    const i64 e = from + att_x();
#pragma unroll
    for (int r = 0; r < ATT_OWN; ++r) {
      const int at = att_y() + r * ATT_LINES;
      const i64 i = i0 + at;
      if (i >= rows || e >= features) continue;
      T sum = T(0);
#pragma unroll 8
      for (int j = 0; j < ATT_SIDE; ++j)
        sum += (TURNED ? w[j][at] : w[at][j]) * tiles.b[j][att_x()];
      T* target = out.data + i * out.row + e;
      *target = *target * (factor == nullptr ? T(1) : factor[at]) + sum;
    }
  }
}

// The rows of a result that this block makes, times a factor: null clears them.
template <class T>
__device__ __forceinline__ void scale_rows(const HeadRows<T>& out, i64 i0, i64 rows, i64 features,
                                           const T* factor) {
#pragma unroll
  for (int r = 0; r < ATT_OWN; ++r) {
    const int at = att_y() + r * ATT_LINES;
    if (i0 + at >= rows) continue;
    for (i64 e = att_x(); e < features; e += ATT_SIDE) {
      T* target = out.data + (i0 + at) * out.row + e;
      *target = factor == nullptr ? T(0) : *target * factor[at];
    }
  }
}

__device__ __forceinline__ float masked(float score, bool seen) {
  return seen ? score : -infinity();
}
__device__ __forceinline__ double masked(double score, bool seen) {
  return seen ? score : -static_cast<double>(infinity());
}
__device__ __forceinline__ float masked(float score, float added) { return score + added; }
__device__ __forceinline__ double masked(double score, double added) { return score + added; }

// The score of query i and key j: -infinity where the query does not see it.
template <class T, class M>
__device__ __forceinline__ T score(T product, T scale, const Sizes& s, const Mask<M>& mask, i64 n,
                                   i64 h, i64 i, i64 j) {
  const bool there = i < s.length && j < s.keys && !(s.causal && j > i);
  if (!there) return -static_cast<T>(infinity());
  const T value = product * scale;
  if (mask.data == nullptr) return value;
  const i64 at = n * mask.sequence + h * mask.head + i * mask.row + j * mask.column;
  return masked(value, mask.data[at]);
}

// Weights of a tile of scores in tiles.p, but for their sum: thread i of the first 32 does row i.
template <class T>
__device__ __forceinline__ void soften(Tiles<T>& tiles) {
  __syncthreads();
  if (threadIdx.x < ATT_SIDE) {
    T* row = tiles.p[threadIdx.x];
    const T before = tiles.top[threadIdx.x];
    T top = before;
    for (int j = 0; j < ATT_SIDE; ++j) top = row[j] > top ? row[j] : top;
    const bool none = top == -static_cast<T>(infinity());
    const T shift = none ? T(0) : top;
    const T factor = m_exp(before - shift);
    T total = tiles.total[threadIdx.x] * factor;
    for (int j = 0; j < ATT_SIDE; ++j) {
      row[j] = m_exp(row[j] - shift);
      total += row[j];
    }
    tiles.top[threadIdx.x] = top;
    tiles.total[threadIdx.x] = total;
    tiles.factor[threadIdx.x] = factor;
  }
}

// The result and the logarithms of sums, either of which may be null.
template <class T, class M>
__device__ __forceinline__ void attention(const Sizes& s, T scale, const Heads<const T>& query,
                                          const Heads<const T>& key, const Heads<const T>& value,
                                          const Mask<M>& mask, const Heads<T>& result,
                                          const Heads<T>& sums) {
  __shared__ Tiles<T> tiles;
  const i64 across = (s.length + ATT_SIDE - 1) / ATT_SIDE;
  const i64 head = blockIdx.x / across, n = head / s.heads, h = head % s.heads;
  const i64 i0 = (blockIdx.x % across) * ATT_SIDE;
  const HeadRows<const T> q = query.of(n, h), k = key.of(n, h / s.each), v = value.of(n, h / s.each);
  const HeadRows<T> out = result.of(n, h);
  if (threadIdx.x < ATT_SIDE) {
    tiles.top[threadIdx.x] = -static_cast<T>(infinity());
    tiles.total[threadIdx.x] = T(0);
  }
  if (result.data != nullptr) scale_rows<T>(out, i0, s.length, s.value_size, nullptr);
  const i64 stop = s.causal ? least(s.keys, i0 + ATT_SIDE) : s.keys;
#pragma unroll 1
  for (i64 j0 = 0; j0 < stop; j0 += ATT_SIDE) {
    T products[ATT_OWN];
    meet(tiles, q, i0, s.length, k, j0, s.keys, s.size, products);
#pragma unroll
    for (int r = 0; r < ATT_OWN; ++r) {
      const int at = att_y() + r * ATT_LINES;
      tiles.p[at][att_x()] = score(products[r], scale, s, mask, n, h, i0 + at, j0 + att_x());
    }
    soften(tiles);
    if (result.data != nullptr)
      gather_rows<false>(tiles, tiles.p, tiles.factor, v, j0, s.keys, s.value_size, out, i0,
                         s.length);
  }
  __syncthreads();
  if (threadIdx.x < ATT_SIDE) {
    const T total = tiles.total[threadIdx.x];
    tiles.factor[threadIdx.x] = total == T(0) ? T(0) : T(1) / total;
    const i64 i = i0 + threadIdx.x;
    if (sums.data != nullptr && i < s.length)
      sums.of(n, h).data[i * sums.row] =
          total == T(0) ? static_cast<T>(infinity()) : tiles.top[threadIdx.x] + m_log(total);
  }
  __syncthreads();
  if (result.data != nullptr) scale_rows(out, i0, s.length, s.value_size, tiles.factor);
}

// What gradients are made of: operands, and rows of one head.
template <class T, class M>
struct Given {
  T scale;
  Heads<const T> query, key, value, sums, delta, cotangent;
  Mask<M> mask;
};

// Weights and gradients by scores of a tile, into tiles.p and tiles.d.
template <class T, class M>
__device__ __forceinline__ void weigh(Tiles<T>& tiles, const Sizes& s, const Given<T, M>& x, i64 n,
                                      i64 h, i64 i0, i64 j0) {
  T products[ATT_OWN], to_p[ATT_OWN];
  meet(tiles, x.query.of(n, h), i0, s.length, x.key.of(n, h / s.each), j0, s.keys, s.size, products);
  meet(tiles, x.cotangent.of(n, h), i0, s.length, x.value.of(n, h / s.each), j0, s.keys,
       s.value_size, to_p);
  const HeadRows<const T> sums = x.sums.of(n, h), delta = x.delta.of(n, h);
#pragma unroll
  for (int r = 0; r < ATT_OWN; ++r) {
    const int at = att_y() + r * ATT_LINES;
    const i64 i = i0 + at, j = j0 + att_x();
    T p = T(0), d = T(0);
    const bool there = i < s.length && j < s.keys && !(s.causal && j > i);
    if (there) {
      p = m_exp(score(products[r], x.scale, s, x.mask, n, h, i, j) - sums.data[i * sums.row]);
      d = p * (to_p[r] - delta.data[i * delta.row]) * x.scale;
    }
    tiles.p[at][att_x()] = p;
    tiles.d[at][att_x()] = d;
  }
}

// dq = d k.
template <class T, class M>
__device__ __forceinline__ void attention_query_grad(const Sizes& s, const Given<T, M>& x,
                                                     const Heads<T>& result) {
  __shared__ Tiles<T> tiles;
  const i64 across = (s.length + ATT_SIDE - 1) / ATT_SIDE;
  const i64 head = blockIdx.x / across, n = head / s.heads, h = head % s.heads;
  const i64 i0 = (blockIdx.x % across) * ATT_SIDE;
  const HeadRows<T> out = result.of(n, h);
  scale_rows<T>(out, i0, s.length, s.size, nullptr);
  const i64 stop = s.causal ? least(s.keys, i0 + ATT_SIDE) : s.keys;
#pragma unroll 1
  for (i64 j0 = 0; j0 < stop; j0 += ATT_SIDE) {
    weigh(tiles, s, x, n, h, i0, j0);
    gather_rows<false, T>(tiles, tiles.d, nullptr, x.key.of(n, h / s.each), j0, s.keys, s.size, out,
                          i0, s.length);
  }
}

// dk = d^T q and dv = p^T g, either of which may be null.
template <class T, class M>
__device__ __forceinline__ void attention_key_grads(const Sizes& s, const Given<T, M>& x,
                                                    const Heads<T>& of_keys,
                                                    const Heads<T>& of_values) {
  __shared__ Tiles<T> tiles;
  const i64 across = (s.keys + ATT_SIDE - 1) / ATT_SIDE, groups = s.heads / s.each;
  const i64 head = blockIdx.x / across, n = head / groups, group = head % groups;
  const i64 j0 = (blockIdx.x % across) * ATT_SIDE;
  const HeadRows<T> dk = of_keys.of(n, group), dv = of_values.of(n, group);
  if (of_keys.data != nullptr) scale_rows<T>(dk, j0, s.keys, s.size, nullptr);
  if (of_values.data != nullptr) scale_rows<T>(dv, j0, s.keys, s.value_size, nullptr);
#pragma unroll 1
  for (i64 h = group * s.each; h < (group + 1) * s.each; ++h) {
#pragma unroll 1
    for (i64 i0 = s.causal ? j0 : 0; i0 < s.length; i0 += ATT_SIDE) {
      weigh(tiles, s, x, n, h, i0, j0);
      if (of_keys.data != nullptr)
        gather_rows<true, T>(tiles, tiles.d, nullptr, x.query.of(n, h), i0, s.length, s.size, dk, j0,
                             s.keys);
      if (of_values.data != nullptr)
        gather_rows<true, T>(tiles, tiles.p, nullptr, x.cotangent.of(n, h), i0, s.length,
                             s.value_size, dv, j0, s.keys);
    }
  }
}

}  // namespace gp
