// IEEE half precision as storage, with conversions; arithmetic goes through float, as in gpubp's
// kernels. Stands in for CUDA's header of the same name.
#pragma once

struct __half_raw {
    unsigned short x;
};

// To nearest even, by hand: not every compiler and processor has the type.
static inline unsigned short gp_half_bits(float value) {
    unsigned bits = gp_bits<unsigned>(value), sign = bits >> 16 & 0x8000u;
    bits &= 0x7fffffffu;
    if (bits > 0x7f800000u) return 0x7fff;                                // CUDA's NaN
    if (bits >= 0x477ff000u) return (unsigned short)(sign | 0x7c00u);     // 65520 and more
    if (bits < 0x38800000u) {                                             // subnormal: 2^-24 steps
        float steps = rintf(gp_bits<float>(bits) * 16777216.0f);
        return (unsigned short)(sign | unsigned(steps));
    }
    unsigned rounded = bits + 0xfffu + (bits >> 13 & 1u);
    return (unsigned short)(sign | ((rounded >> 13) - (112u << 10)));
}

static inline float gp_half_value(unsigned short half) {
    unsigned sign = (half & 0x8000u) << 16, exponent = half >> 10 & 31u, mantissa = half & 1023u;
    if (exponent == 31u) return gp_bits<float>(sign | 0x7f800000u | mantissa << 13);
    if (exponent != 0u) return gp_bits<float>(sign | (exponent + 112u) << 23 | mantissa << 13);
    float value = float(mantissa) / 16777216.0f;
    return sign ? -value : value;
}

struct __align__(2) __half {
    unsigned short bits;
    __half() = default;
    __half(float value) : bits(gp_half_bits(value)) {}
    operator float() const { return gp_half_value(bits); }
};
typedef __half half;

struct __align__(4) __half2 {
    __half x, y;
};
typedef __half2 half2;

static inline __half __float2half(float x) { return __half(x); }
static inline __half __float2half_rn(float x) { return __half(x); }
static inline float __half2float(__half x) { return float(x); }
static inline __half2 __floats2half2_rn(float x, float y) { return {__half(x), __half(y)}; }
static inline __half2 __halves2half2(__half x, __half y) { return {x, y}; }
static inline float2 __half22float2(__half2 v) { return {float(v.x), float(v.y)}; }
static inline unsigned short __half_as_ushort(__half x) { return x.bits; }
static inline __half __ushort_as_half(unsigned short x) { return gp_bits<__half>(x); }
