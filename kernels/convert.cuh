// Copies in another form: out[i] = map(in[i]) for 0 <= i < n. LANES elements are read and written as
// one, what is left one by one; LANES > 1 asks for in and out aligned to so many elements.
// Launch: any number of threads.
#pragma once

#include "base.cuh"

namespace gp {

template <int LANES, class From, class To, class Map>
__device__ __forceinline__ void convert(i64 n, const From* in, To* out, Map map) {
  const i64 vectors = LANES > 1 ? n / LANES : 0;
#pragma unroll 1
  for (i64 g = thread_number(); g < vectors; g += thread_count()) {
    const Vector<From, LANES> taken = reinterpret_cast<const Vector<From, LANES>*>(in)[g];
    Vector<To, LANES> made;
#pragma unroll
    for (int j = 0; j < LANES; ++j) made.at[j] = map(taken.at[j]);
    reinterpret_cast<Vector<To, LANES>*>(out)[g] = made;
  }
#pragma unroll 1
  for (i64 i = vectors * LANES + thread_number(); i < n; i += thread_count()) out[i] = map(in[i]);
}

// Filters (O, C, T) as (O, T, C), of n elements in all. Launch: any number of threads.
template <class Number, class From, class To, class Map>
__device__ __forceinline__ void convert_filters(Number n, Number channels, Number taps,
                                                const From* in, To* out, Map map) {
#pragma unroll 1
  for (Number i = static_cast<Number>(thread_number()); i < n;
       i += static_cast<Number>(thread_count())) {
    const Number row = i / channels, channel = i % channels;
    out[i] = map(in[(row / taps * channels + channel) * taps + row % taps]);
  }
}

}  // namespace gp
