"""Transcendental functions of float32 as plain arithmetic, so that loops over them vectorise.

Bounds (measured over their whole range against float64, asserted in `tests/test_fastmath.py`):
exp, expm1, tanh, sigmoid 3e-7 relative (exp below -86.6 is 0); erf 4e-7; log and log1p 2e-7.
float64 uses libm.

exp: x = n ln 2 + r with |r| <= ln 2 / 2, degree-6 polynomial (Cephes, expf.c).
tanh: Cephes, tanhf.c.
erf: x P(x^2) up to 1, then 1 - exp(-x^2) Q(1 / (1 + x / 2)); P and Q are Chebyshev fits.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
from llvmlite import ir
from numba import njit, types
from numba.extending import intrinsic

from gpubp.backends.numba_cpu.kernels.lowlevel import I32

F = np.float32
_ROUND = F(12582912.0)  # 1.5 * 2^23: adding it leaves the nearest integer in the low bits
_LOG2E = F(1.44269504088896341)
_LN2_HIGH, _LN2_LOW = F(0.693359375), F(-2.12194440e-4)
_LOWEST, _HIGHEST = F(-86.6), F(88.72)
_ERF_SMALL = (
    1.1283791065216064,
    -0.3761262595653534,
    0.11283597350120544,
    -0.02685432881116867,
    0.005189312156289816,
    -0.0008018855005502701,
    7.882497448008507e-05,
)
_ERF_LARGE = (
    0.0006064087501727045,
    0.2736181616783142,
    0.33084067702293396,
    0.10126824676990509,
    0.4038383662700653,
    -0.057338736951351166,
    -0.05354061722755432,
)


@intrinsic
def _power_of_two(_typing: Any, shifted: Any) -> Any:
    """2^n as float32, where `shifted` is 1.5 * 2^23 + n and -126 <= n <= 127."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        bits = builder.bitcast(args[0], I32)
        exponent = builder.sub(bits, I32(0x4B400000 - 127))
        return builder.bitcast(builder.shl(exponent, I32(23)), ir.FloatType())

    return types.float32(types.float32), codegen


# A multiply and an add become one instruction where there is one. Inlined whatever their size: a
# loop with a call left in it is not vectorised.
_inline = njit(error_model="numpy", fastmath={"contract"}, forceinline=True)


@_inline
def exp32(x):
    """e^x."""
    bounded = min(max(x, _LOWEST), _HIGHEST)
    shifted = bounded * _LOG2E + _ROUND
    n = shifted - _ROUND
    r = (bounded - n * _LN2_HIGH) - n * _LN2_LOW
    p = F(1.9875691500e-4) * r + F(1.3981999507e-3)
    p = p * r + F(8.3334519073e-3)
    p = p * r + F(4.1665795894e-2)
    p = p * r + F(1.6666665459e-1)
    p = p * r + F(5.0000001201e-1)
    # In two factors, because n may be 128: 2^128 is no float32, though e^x still is.
    y = (p * r * r + r + F(1)) * _power_of_two(shifted - F(1)) * F(2)
    y = F(0) if x < _LOWEST else y
    y = F(math.inf) if x > _HIGHEST else y
    return x if x != x else y


@_inline
def expm132(x):
    """e^x - 1, without cancellation near zero."""
    p = F(1.9875691500e-4) * x + F(1.3981999507e-3)
    p = p * x + F(8.3334519073e-3)
    p = p * x + F(4.1665795894e-2)
    p = p * x + F(1.6666665459e-1)
    p = p * x + F(5.0000001201e-1)
    small = p * x * x + x
    return small if abs(x) < F(0.34) else exp32(x) - F(1)


@_inline
def tanh32(x):
    """(e^2x - 1) / (e^2x + 1)."""
    z = x * x
    p = F(-5.70498872745e-3) * z + F(2.06390887954e-2)
    p = p * z + F(-5.37397155531e-2)
    p = p * z + F(1.33314422036e-1)
    p = p * z + F(-3.33332819422e-1)
    small = p * z * x + x
    size = abs(x)
    large = F(1) - F(2) / (exp32(size + size) + F(1))
    large = -large if x < F(0) else large
    return small if size < F(0.625) else large


@_inline
def sigmoid32(x):
    """1 / (1 + e^-x)."""
    t = exp32(-abs(x))
    s = F(1) / (F(1) + t)
    return s if x >= F(0) else t * s


_S = tuple(F(c) for c in _ERF_SMALL)
_L = tuple(F(c) for c in _ERF_LARGE)
_S0, _S1, _S2, _S3, _S4, _S5, _S6 = _S
_L0, _L1, _L2, _L3, _L4, _L5, _L6 = _L


@_inline
def erf32(x):
    """2 / sqrt(pi) times the integral of e^-t^2 from 0 to x."""
    z = x * x
    p = ((((((_S6 * z + _S5) * z + _S4) * z + _S3) * z + _S2) * z + _S1) * z + _S0) * x
    size = min(abs(x), F(4))
    t = F(1) / (F(1) + F(0.5) * size)
    q = (((((_L6 * t + _L5) * t + _L4) * t + _L3) * t + _L2) * t + _L1) * t + _L0
    large = F(1) - exp32(-size * size) * q
    large = -large if x < F(0) else large
    large = p if abs(x) < F(1) else large
    return x if x != x else large


@intrinsic
def _split(_typing: Any, x: Any) -> Any:
    """(m, n) with x = m 2^n and m from sqrt(1/2) to sqrt(2), for a normal positive float64."""

    def codegen(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        double, i64 = ir.DoubleType(), ir.IntType(64)
        # Adding (1 - sqrt(1/2)) to the fraction's bits carries into the exponent from sqrt(2) on.
        root = i64(0x3FE6A09E667F3BCD)
        bits = builder.sub(builder.bitcast(args[0], i64), root)
        exponent = builder.lshr(builder.add(bits, i64(1024 << 52)), i64(52))
        mantissa = builder.add(builder.and_(bits, i64((1 << 52) - 1)), root)
        # 2^52 + exponent, made from bits: AVX2 has no vector conversion of int64.
        whole = builder.bitcast(builder.or_(exponent, i64(0x4330000000000000)), double)
        n = builder.fsub(whole, ir.Constant(double, 2.0**52 + 1024.0))
        pair = builder.bitcast(mantissa, double), n
        return context.make_tuple(builder, signature.return_type, pair)

    return types.UniTuple(types.float64, 2)(types.float64), codegen


@_inline
def log_wide(x):
    """The natural logarithm of a normal positive float64, to 1e-10 relative.

    x = m 2^n; with f = (m - 1) / (m + 1), log m = 2 atanh(f) = 2 (f + f^3 / 3 + f^5 / 5 + ...).
    """
    m, n = _split(x)
    f = (m - 1.0) / (m + 1.0)
    s = f * f
    p = s * (1.0 / 11.0) + 1.0 / 9.0
    p = p * s + 1.0 / 7.0
    p = p * s + 1.0 / 5.0
    p = p * s + 1.0 / 3.0
    return n * 0.69314718055994531 + (f + f) * (p * s + 1.0)


@_inline
def log32(x):
    """The natural logarithm."""
    y = F(log_wide(max(np.float64(x), 1e-300)))
    y = y if x > F(0) else (F(-math.inf) if x == F(0) else F(math.nan))
    return y if x < F(math.inf) else x


@_inline
def log1p32(x):
    """log(1 + x): exact sums in float64 keep what is small."""
    wide = np.float64(x)
    y = F(log_wide(max(1.0 + wide, 1e-300)))
    y = x if abs(x) < F(1e-7) else y
    y = y if x > F(-1) else (F(-math.inf) if x == F(-1) else F(math.nan))
    return y if x < F(math.inf) else x


def fast_functions(kind: Any) -> SimpleNamespace:
    """exp, expm1, log, log1p, tanh, sigmoid and erf for a float type.

    `log_of_sum` takes a float64 of at least 1 for either type.
    """
    if kind is types.float32:
        return SimpleNamespace(
            exp=exp32,
            expm1=expm132,
            log=log32,
            log1p=log1p32,
            log_of_sum=log_wide,
            tanh=tanh32,
            sigmoid=sigmoid32,
            erf=erf32,
        )

    @_inline
    def sigmoid(x):
        t = math.exp(-abs(x))
        return 1.0 / (1.0 + t) if x >= 0.0 else t / (1.0 + t)

    return SimpleNamespace(
        exp=math.exp,
        expm1=math.expm1,
        log=math.log,
        log1p=math.log1p,
        log_of_sum=math.log,
        tanh=math.tanh,
        sigmoid=sigmoid,
        erf=math.erf,
    )
