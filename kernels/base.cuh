// What every kernel source stands on: short names of types, addresses, the numbering of threads.
//
// A kernel takes one struct `Params` by value. Addresses in it are plain numbers. Some memory moves
// from step to step (the batch's place in the index order, the row of an output) or from run to run
// (inputs): its addresses stand in a table in device memory, which `begin_step` (step.cuh) advances,
// so that recorded launches never freeze one.
#pragma once

#ifndef GP_KERNEL
#define GP_KERNEL(name, Params)
#endif
#ifndef GP_DYNAMIC_SHARED
#define GP_DYNAMIC_SHARED(type, name)                                   \
  extern __shared__ __align__(16) unsigned char name##_bytes[];         \
  type* name = reinterpret_cast<type*>(name##_bytes)
#endif

namespace gp {

typedef long long i64;
typedef unsigned long long u64;
typedef unsigned int u32;

// Memory that stays where it is while the program lives.
template <class T>
__device__ __forceinline__ T* fixed(u64 address) {
  return reinterpret_cast<T*>(address);
}

// Memory whose start is entry `slot` of the table, `offset` bytes in.
template <class T>
__device__ __forceinline__ T* moving(u64 table, int slot, u64 offset) {
  return reinterpret_cast<T*>(reinterpret_cast<const u64*>(table)[slot] + offset);
}

// Elements that are loaded and stored as one.
template <class T, int N>
struct __align__(sizeof(T) * N) Vector {
  T at[N];
};

__device__ __forceinline__ i64 thread_number() {
  return static_cast<i64>(blockIdx.x) * blockDim.x + threadIdx.x;
}

__device__ __forceinline__ i64 thread_count() {
  return static_cast<i64>(gridDim.x) * blockDim.x;
}

// Positions that a thread takes: from `first` on, `step` apart, below `stop`.
template <class Number>
struct Span {
  Number first, stop, step;
};

// The share of each thread of a grid in `count` positions.
template <class Number>
__device__ __forceinline__ Span<Number> of_grid(Number count) {
  Span<Number> found = {static_cast<Number>(thread_number()), count,
                        static_cast<Number>(thread_count())};
  return found;
}

// The share of each thread of a block in positions that are the block's alone.
template <class Number>
__device__ __forceinline__ Span<Number> of_block(i64 first, i64 stop) {
  Span<Number> found = {static_cast<Number>(first + threadIdx.x), static_cast<Number>(stop),
                        static_cast<Number>(blockDim.x)};
  return found;
}

// Shared memory of a block for what one part needs in turn: BYTES, aligned to 16.
template <int BYTES>
struct Scratch {
  unsigned char* start;

  template <class T, int COUNT>
  __device__ __forceinline__ T* of() const {
    static_assert(sizeof(T) * COUNT <= BYTES, "the scratch memory is too small");
    return reinterpret_cast<T*>(start);
  }
};

// A number that is known to fit: division and multiplication of 32 bits are several times faster.
__device__ __forceinline__ u32 low(i64 x) { return static_cast<u32>(x); }

__device__ __forceinline__ int least(int a, int b) { return a < b ? a : b; }
__device__ __forceinline__ i64 least(i64 a, i64 b) { return a < b ? a : b; }

__device__ __forceinline__ float infinity() { return __int_as_float(0x7f800000); }
__device__ __forceinline__ float not_a_number() { return __int_as_float(0x7fffffff); }

}  // namespace gp
