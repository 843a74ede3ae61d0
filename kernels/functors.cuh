// Every elementwise function, its gradient and every update rule, once; all kernels use these.
//
// Names are those of `gpubp.ops`, whose files give the formulas' sources. Operands come first, then
// attributes as doubles. `T` is float or double, or an integer type where the op has one. What
// happens at NaN and at kinks is what the NumPy references do.
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
GP_MATH_1(floor)
GP_MATH_1(erf)
GP_MATH_1(erfc)
GP_MATH_1(tanh)
#undef GP_MATH_1
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

// Arithmetic.
GP_OP T add(T a, T b) { return static_cast<T>(GP_WRAPPING(a) + GP_WRAPPING(b)); }
GP_OP T subtract(T a, T b) { return static_cast<T>(GP_WRAPPING(a) - GP_WRAPPING(b)); }
GP_OP T multiply(T a, T b) { return static_cast<T>(GP_WRAPPING(a) * GP_WRAPPING(b)); }
GP_OP T divide(T a, T b) { return a / b; }
GP_OP T power(T a, T b) { return m_pow(a, b); }
GP_OP T maximum(T a, T b) { return a > b || a != a ? a : b; }
GP_OP T minimum(T a, T b) { return a < b || a != a ? a : b; }
GP_OP T negative(T a) { return static_cast<T>(-GP_WRAPPING(a)); }
GP_OP T abs(T a) { return a < T(0) ? negative(a) : (a == T(0) ? T(0) : a); }
GP_OP T sign(T a) { return a > T(0) ? T(1) : (a < T(0) ? T(-1) : a); }
GP_OP T square(T a) { return multiply(a, a); }
GP_OP T copy(T a) { return a; }
GP_OP T floor(T a) { return m_floor(a); }
GP_OP T exp(T a) { return m_exp(a); }
GP_OP T log(T a) { return m_log(a); }
GP_OP T log1p(T a) { return m_log1p(a); }
GP_OP T expm1(T a) { return m_expm1(a); }
GP_OP T sqrt(T a) { return m_sqrt(a); }
GP_OP T sin(T a) { return m_sin(a); }
GP_OP T cos(T a) { return m_cos(a); }
GP_OP T erf(T a) { return m_erf(a); }
GP_OP T clip(T a, double low, double high) {
  const T raised = a < T(low) ? T(low) : a;
  return raised > T(high) ? T(high) : raised;  // last: it holds where low > high
}

// Comparisons and logic.
GP_OP bool greater(T a, T b) { return a > b; }
GP_OP bool greater_equal(T a, T b) { return a >= b; }
GP_OP bool less(T a, T b) { return a < b; }
GP_OP bool less_equal(T a, T b) { return a <= b; }
GP_OP bool equal(T a, T b) { return a == b; }
GP_OP bool not_equal(T a, T b) { return a != b; }
GP_OP bool isfinite(T a) { return a - a == T(0); }
__device__ __forceinline__ bool logical_and(bool a, bool b) { return a && b; }
__device__ __forceinline__ bool logical_or(bool a, bool b) { return a || b; }
__device__ __forceinline__ bool logical_not(bool a) { return !a; }
GP_OP T where(bool condition, T a, T b) { return condition ? a : b; }

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

// Activations and their gradients: dy times the derivative, by the output y or the input x.
GP_OP T relu(T x) { return x > T(0) || x != x ? x : T(0); }
GP_OP T relu_grad(T dy, T y) { return y > T(0) ? dy : T(0); }
GP_OP T leaky_relu(T x, double slope) { return x > T(0) ? x : x * T(slope); }
GP_OP T leaky_relu_grad(T dy, T x, double slope) { return x > T(0) ? dy : dy * T(slope); }
GP_OP T elu(T x, double alpha) { return x > T(0) ? x : T(alpha) * m_expm1(x); }
GP_OP T elu_grad(T dy, T x, double alpha) { return x > T(0) ? dy : dy * (T(alpha) * m_exp(x)); }
GP_OP T sigmoid(T x) {
  const T small = m_exp(x < T(0) ? x : -x);
  return (x < T(0) ? small : T(1)) / (T(1) + small);
}
GP_OP T sigmoid_grad(T dy, T y) { return dy * (y * (T(1) - y)); }
GP_OP T silu(T x) { return x * sigmoid(x); }
GP_OP T silu_grad(T dy, T x) {
  const T s = sigmoid(x);
  return dy * (s * (T(1) + x * (T(1) - s)));
}
GP_OP T tanh(T x) { return m_tanh(x); }
GP_OP T tanh_grad(T dy, T y) { return dy * (T(1) - y * y); }
GP_OP T tanhshrink(T x) { return x - m_tanh(x); }
GP_OP T softplus(T x, double beta, double threshold) {
  const T z = x * T(beta);
  const T soft = ((z > T(0) ? z : T(0)) + m_log1p(m_exp(z < T(0) ? z : -z))) / T(beta);
  return z > T(threshold) ? x : (z == z ? soft : z);
}
GP_OP T softplus_grad(T dy, T x, double beta, double threshold) {
  const T z = x * T(beta);
  return z > T(threshold) ? dy : dy * sigmoid(z);
}
// GELU (Hendrycks & Gimpel, 2016): x Phi(x); far out Phi is 0 or 1 and x^2 must not overflow.
GP_OP T gelu_near(T x) { return x > T(40) ? T(40) : (x < T(-40) ? T(-40) : x); }
GP_OP T gelu_none(T x) { return x * (T(0.5) * m_erfc(gelu_near(x) * T(-0.70710678118654752440))); }
GP_OP T gelu_grad_none(T dy, T x) {
  const T near = gelu_near(x);
  const T density = m_exp(near * near * T(-0.5)) * T(0.39894228040143267794);
  return dy * (T(0.5) * m_erfc(near * T(-0.70710678118654752440)) + near * density);
}
// (1 + tanh(u)) / 2 is the sigmoid of 2 u, which keeps its digits where tanh(u) is near -1.
GP_OP T gelu_share(T x) {
  return sigmoid(T(1.59576912160573071176) * (x + T(0.044715) * x * x * x));
}
GP_OP T gelu_tanh(T x) { return x * gelu_share(gelu_near(x)); }
GP_OP T gelu_grad_tanh(T dy, T x) {
  const T near = gelu_near(x);
  const T s = gelu_share(near);
  const T slope = T(1.59576912160573071176) * (T(1) + T(0.134145) * near * near);
  return dy * (s + near * (s * (T(1) - s) * slope));
}

// Update rules; see gpubp/ops/update.py.
GP_OP T ema(T m, T g, double decay) { return m * T(decay) + g * T(1.0 - decay); }
GP_OP T ema_square(T v, T g, double decay) { return v * T(decay) + g * g * T(1.0 - decay); }
GP_OP T momentum_update(T buffer, T g, double momentum, double dampening) {
  return buffer * T(momentum) + g * T(1.0 - dampening);
}
GP_OP T sgd_update(T w, T g, T lr) { return w - lr * g; }
GP_OP T adam_update(T w, T m, T v, T step_size, T bias2_sqrt, double eps) {
  return w - step_size * m / (m_sqrt(v) / bias2_sqrt + T(eps));
}

#undef GP_WRAPPING
#undef GP_OP

}  // namespace gp
