// Random numbers by element: Philox 4x32-10 (Salmon et al., SC 2011), as gpubp/ops/random.py has it,
// bit for bit for uniform numbers. `state` is (seed, counter); `stream` numbers the draws of a step.
#pragma once

#include "base.cuh"

namespace gp {

struct Words {
  u32 w[4];
};

__device__ __forceinline__ Words philox(u64 block, i64 seed, i64 counter, u32 stream) {
  u32 c0 = static_cast<u32>(block), c1 = static_cast<u32>(block >> 32);
  u32 c2 = static_cast<u32>(counter);
  u32 c3 = stream ^ static_cast<u32>(static_cast<u64>(counter) >> 32);
  u32 k0 = static_cast<u32>(seed), k1 = static_cast<u32>(static_cast<u64>(seed) >> 32);
  for (int round = 0; round < 10; ++round) {
    const u64 p0 = static_cast<u64>(c0) * 0xD2511F53u;
    const u64 p1 = static_cast<u64>(c2) * 0xCD9E8D57u;
    const u32 n0 = static_cast<u32>(p1 >> 32) ^ c1 ^ k0;
    const u32 n2 = static_cast<u32>(p0 >> 32) ^ c3 ^ k1;
    c0 = n0, c1 = static_cast<u32>(p1), c2 = n2, c3 = static_cast<u32>(p0);
    k0 += 0x9E3779B9u, k1 += 0xBB67AE85u;
  }
  Words out = {{c0, c1, c2, c3}};
  return out;
}

template <class T>
struct Draw;

template <>
struct Draw<float> {
  __device__ __forceinline__ static float uniform(const i64* state, i64 i, u32 stream) {
    const Words words = philox(i >> 2, state[0], state[1], stream);
    const int at = i & 3;
    const u32 w = at == 0 ? words.w[0] : (at == 1 ? words.w[1] : (at == 2 ? words.w[2] : words.w[3]));
    return static_cast<float>(w >> 8) * 5.9604644775390625e-8f;  // 2^-24
  }
};

template <>
struct Draw<double> {
  __device__ __forceinline__ static double uniform(const i64* state, i64 i, u32 stream) {
    const Words words = philox(i >> 1, state[0], state[1], stream);
    const u64 high = i & 1 ? words.w[2] : words.w[0], low = i & 1 ? words.w[3] : words.w[1];
    return static_cast<double>(((high << 32) | low) >> 11) * 1.1102230246251565e-16;  // 2^-53
  }
};

// Evenly in [0, 1): element i of draw `stream`.
template <class T>
__device__ __forceinline__ T uniform(const i64* state, i64 i, u32 stream) {
  return Draw<T>::uniform(state, i, stream);
}

// Normal, by Box & Muller (1958), in double precision and then rounded.
template <class T>
__device__ __forceinline__ T normal(const i64* state, i64 i, u32 stream) {
  const Words words = philox(i >> 1, state[0], state[1], stream);
  const double u1 = (static_cast<double>(i & 1 ? words.w[2] : words.w[0]) + 1.0) * 2.3283064365386963e-10;
  const double u2 = static_cast<double>(i & 1 ? words.w[3] : words.w[1]) * 2.3283064365386963e-10;
  return static_cast<T>(::sqrt(-2.0 * ::log(u1)) * ::cos(6.283185307179586477 * u2));
}

}  // namespace gp
