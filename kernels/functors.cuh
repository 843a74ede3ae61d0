// Elementwise functions: what formulas of ops are made of. `formulas.cuh`, which is printed from the
// ops' specs (gpubp/backends/cuda/codegen/formulas.py), has the ops themselves, under their names.
//
// Operands of an op come first, then numbers made of its attributes as doubles. `T` is float or
// double, or an integer type where the op has one. Functions that stand here by hand are those of the
// C library, and ones that a plain formula would make inexact. What happens at NaN and at kinks is
// what the NumPy references do.
#pragma once

#include "base.cuh"

namespace gp {

// The C math library by type. CUDA's own overloads would do; g++ wants them spelled out.
#define GP_MATH_1(name)                                                              \
  __device__ __forceinline__ float m_##name(float x) { return ::name##f(x); }        \
  __device__ __forceinline__ double m_##name(double x) { return ::name(x); }
GP_MATH_1(exp)
GP_MATH_1(log)
GP_MATH_1(log1p)
GP_MATH_1(expm1)
GP_MATH_1(sqrt)
GP_MATH_1(sin)
GP_MATH_1(cos)
GP_MATH_1(atan)
GP_MATH_1(floor)
GP_MATH_1(erf)
GP_MATH_1(erfc)
GP_MATH_1(tanh)
#undef GP_MATH_1
__device__ __forceinline__ float m_fmod(float x, float y) { return ::fmodf(x, y); }
__device__ __forceinline__ double m_fmod(double x, double y) { return ::fmod(x, y); }
// Of integers: 0 where the divisor is, as NumPy; by -1 apart, for the smallest one has no opposite.
#define GP_WHOLE(T)                                                                               \
  __device__ __forceinline__ T m_fmod(T a, T b) {                                                 \
    return b == T(0) || b == T(-1) ? T(0) : static_cast<T>(a % b);                                \
  }                                                                                               \
  __device__ __forceinline__ T floor_quotient(T a, T b) {                                         \
    const T rest = m_fmod(a, b);                                                                  \
    return static_cast<T>(a / b - (rest != T(0) && (rest < T(0)) != (b < T(0)) ? T(1) : T(0)));   \
  }
GP_WHOLE(int)
GP_WHOLE(i64)
#undef GP_WHOLE
__device__ __forceinline__ float m_pow(float x, float y) { return ::powf(x, y); }
__device__ __forceinline__ double m_pow(double x, double y) { return ::pow(x, y); }

// Integers wrap around as NumPy's do; of signed ones the compiler may assume that they never do.
template <class T>
struct Wrapping {
  typedef T Type;
};
template <>
struct Wrapping<int> {
  typedef u32 Type;
};
template <>
struct Wrapping<i64> {
  typedef u64 Type;
};

#define GP_OP template <class T> __device__ __forceinline__
#define GP_WRAPPING(x) static_cast<typename Wrapping<T>::Type>(x)

GP_OP T w_add(T a, T b) { return static_cast<T>(GP_WRAPPING(a) + GP_WRAPPING(b)); }
GP_OP T w_subtract(T a, T b) { return static_cast<T>(GP_WRAPPING(a) - GP_WRAPPING(b)); }
GP_OP T w_multiply(T a, T b) { return static_cast<T>(GP_WRAPPING(a) * GP_WRAPPING(b)); }
GP_OP T w_negative(T a) { return static_cast<T>(-GP_WRAPPING(a)); }

GP_OP T m_abs(T a) { return a < T(0) ? w_negative(a) : (a == T(0) ? T(0) : a); }
GP_OP T m_power(T a, T b) { return m_pow(a, b); }
// Rounded down. Of floats as Python and NumPy: from the rest, which is exact, not from a / b.
__device__ __forceinline__ int m_floordiv(int a, int b) {
  return b == 0 ? 0 : (b == -1 ? w_negative(a) : floor_quotient(a, b));
}
__device__ __forceinline__ i64 m_floordiv(i64 a, i64 b) {
  return b == 0 ? 0 : (b == -1 ? w_negative(a) : floor_quotient(a, b));
}
GP_OP T m_floordiv(T a, T b) {
  const T rest = m_fmod(a, b);
  T whole = (a - rest) / b;
  if ((rest < T(0) && b > T(0)) || (rest > T(0) && b < T(0))) whole -= T(1);
  const T down = m_floor(whole);
  const T near = whole - down > T(0.5) ? down + T(1) : down;
  return b == T(0) ? a / b : (whole == T(0) ? a / b * T(0) : near);
}
GP_OP T m_exp_below(T a) { return m_exp(a); }
GP_OP T m_sigmoid(T x) {
  const T small = m_exp(x < T(0) ? x : -x);
  return (x < T(0) ? small : T(1)) / (T(1) + small);
}
GP_OP T m_silu_slope(T x) {
  const T s = m_sigmoid(x);
  return s * (T(1) + x * (T(1) - s));
}
GP_OP T m_softplus(T x, T beta, T threshold) {
  const T z = x * beta;
  const T soft = ((z > T(0) ? z : T(0)) + m_log1p(m_exp(z < T(0) ? z : -z))) / beta;
  return z > threshold ? x : (z == z ? soft : z);
}
// GELU (Hendrycks & Gimpel, 2016): x Phi(x); far out Phi is 0 or 1 and x^2 must not overflow.
GP_OP T gelu_near(T x) { return x > T(40) ? T(40) : (x < T(-40) ? T(-40) : x); }
GP_OP T m_gelu(T x) { return x * (T(0.5) * m_erfc(gelu_near(x) * T(-0.70710678118654752440))); }
GP_OP T m_gelu_slope(T x) {
  const T near = gelu_near(x);
  const T density = m_exp(near * near * T(-0.5)) * T(0.39894228040143267794);
  return T(0.5) * m_erfc(near * T(-0.70710678118654752440)) + near * density;
}
// (1 + tanh(u)) / 2 is the sigmoid of 2 u, which keeps its digits where tanh(u) is near -1.
GP_OP T gelu_share(T x) {
  return m_sigmoid(T(1.59576912160573071176) * (x + T(0.044715) * x * x * x));
}
GP_OP T m_gelu_tanh(T x) { return x * gelu_share(gelu_near(x)); }
GP_OP T m_gelu_tanh_slope(T x) {
  const T near = gelu_near(x);
  const T s = gelu_share(near);
  const T slope = T(1.59576912160573071176) * (T(1) + T(0.134145) * near * near);
  return s + near * (s * (T(1) - s) * slope);
}

#include "formulas.cuh"

// cast<To>(x): to bool by "is not zero", to integers by dropping the fraction.
template <class To, class From>
struct Cast {
  __device__ __forceinline__ static To of(From x) { return static_cast<To>(x); }
};
template <class From>
struct Cast<bool, From> {
  __device__ __forceinline__ static bool of(From x) { return x != From(0); }
};
template <class To, class From>
__device__ __forceinline__ To cast(From x) {
  return Cast<To, From>::of(x);
}

#undef GP_WRAPPING
#undef GP_OP

}  // namespace gp
