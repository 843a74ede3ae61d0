"""Transcendental functions as plain arithmetic, so that loops over them vectorise.

Bounds (measured over their whole range against float64, asserted in `tests/test_fastmath.py`):
exp, expm1, tanh, sigmoid 3e-7 relative; erf 4e-7; log and log1p 2e-7. In float64 exp is within
5e-16, and sigmoid follows it; the others use libm. Results below the smallest normal number are
rounded as the format rounds them. GELU and its slope in float32 are in `vectormath`.

exp: x = n ln 2 + r with |r| <= ln 2 / 2, degree-6 polynomial (Cephes, expf.c; in float64 the
Taylor series to r^13 / 13!, whose rest is below 5e-18), times 2^n in two factors, see `scaled`.
tanh, erf: x P(x^2) / Q(x^2), minimax fits made for this file (weighted linear least squares,
Lawson's iteration), up to where the limit is reached to float32's rounding.
log: in float64, see `log_wide`.
"""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
from llvmlite import ir

from gpubp.backends.numba_cpu.kernels.coefficients import (
    DENSITY,
    ERF,
    ERF_LIMIT,
    EXP,
    HIGHEST,
    HIGHEST64,
    LN2_HIGH,
    LN2_HIGH64,
    LN2_LOW,
    LN2_LOW64,
    LOG2E,
    LOWEST,
    LOWEST64,
    ROOT_HALF,
    ROUND,
    ROUND64,
    TANH,
    TANH_LIMIT,
    TAYLOR,
    F,
)
from gpubp.backends.numba_cpu.kernels.language import define, intrinsic, native, types
from gpubp.backends.numba_cpu.kernels.lowlevel import I32

_E0, _E1, _E2, _E3, _E4, _E5 = (F(c) for c in EXP)


def scaled(builder: Any, y: Any, shifted: Any, bits: Any, fraction: Any) -> Any:
    """y 2^n for y from 0.7 to 1.5, rounded as the format does where that is not a normal number.

    In two factors, each of which is normal or 0, and without a comparison: with m = n + 254 (2046
    in float64) in the low bits of `shifted`, m >> 1 and m - (m >> 1) are their exponents' bits.

    Args:
        builder: of LLVM instructions.
        y: a float, or a vector.
        shifted: `ROUND` plus n, of the same type.
        bits: the integers of that size.
        fraction: how many bits stand below the exponent.
    """
    whole = builder.bitcast(shifted, bits)
    half = builder.lshr(whole, ir.Constant(bits, _every(bits, 1)))
    for part in (half, builder.sub(whole, half)):
        factor = builder.shl(part, ir.Constant(bits, _every(bits, fraction)))
        y = builder.fmul(y, builder.bitcast(factor, y.type))
    return y


def _every(kind: Any, number: int) -> Any:
    return [number] * kind.count if isinstance(kind, ir.VectorType) else number


@intrinsic
def _scaled64(_typing: Any, y: Any, shifted: Any) -> Any:
    """See `scaled`."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return scaled(builder, args[0], args[1], ir.IntType(64), 52)

    return types.float64(types.float64, types.float64), codegen


@intrinsic
def _scaled32(_typing: Any, y: Any, shifted: Any) -> Any:
    """See `scaled`."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        return scaled(builder, args[0], args[1], I32, 23)

    return types.float32(types.float32, types.float32), codegen


# A multiply and an add become one instruction where there is one. Inlined whatever their size: a
# loop with a call left in it is not vectorised.
_inline = native(contract=True, inline=True)


@_inline
def exp_below32(x):
    """e^x for x up to 0."""
    bounded = LOWEST if x < LOWEST else x  # NaN stays
    shifted = bounded * LOG2E + ROUND
    n = shifted - ROUND
    r = (bounded - n * LN2_HIGH) - n * LN2_LOW
    p = _E0 * r + _E1
    p = p * r + _E2
    p = p * r + _E3
    p = p * r + _E4
    p = p * r + _E5
    return _scaled32(p * (r * r) + r + F(1), shifted)


@_inline
def exp32(x):
    """e^x."""
    return exp_below32(HIGHEST if x > HIGHEST else x)


def _series() -> Any:
    """The Taylor series of e^r, by Horner's rule."""
    lines = ["def value(r):", "    p = c13"]
    lines += [f"    p = p * r + c{k}" for k in reversed(range(13))]
    source = "\n".join([*lines, "    return p"])
    return _inline(define(source, "value", {f"c{k}": c for k, c in enumerate(TAYLOR)}))


_series64 = _series()


@_inline
def exp_below64(x):
    """e^x for x up to 0."""
    bounded = LOWEST64 if x < LOWEST64 else x  # NaN stays
    shifted = bounded * 1.44269504088896341 + ROUND64
    n = shifted - ROUND64
    return _scaled64(_series64((bounded - n * LN2_HIGH64) - n * LN2_LOW64), shifted)


@_inline
def exp64(x):
    """e^x."""
    return exp_below64(HIGHEST64 if x > HIGHEST64 else x)


@_inline
def expm132(x):
    """e^x - 1, without cancellation near zero."""
    p = _E0 * x + _E1
    p = p * x + _E2
    p = p * x + _E3
    p = p * x + _E4
    p = p * x + _E5
    small = p * x * x + x
    return small if abs(x) < F(0.34) else exp32(x) - F(1)


@_inline
def sigmoid32(x):
    """1 / (1 + e^-x)."""
    t = exp_below32(-abs(x))
    return (t if x < F(0) else F(1)) / (F(1) + t)


def _rational(coefficients: Any, limit: float) -> Any:
    """x P(x^2) / Q(x^2), and 1 with the sign of x from `limit` on."""
    lines = ["def value(x):", "    z = x * x"]
    constants: dict[str, Any] = {"F": F, "limit": F(limit)}
    for name, numbers in zip("pq", coefficients):
        constants |= {f"{name}{i}": F(c) for i, c in enumerate(numbers)}
        lines.append(f"    {name} = {name}{len(numbers) - 1}")
        lines += [f"    {name} = {name} * z + {name}{i}" for i in reversed(range(len(numbers) - 1))]
    lines += [
        "    y = x * p / q",
        "    far = F(1) if x > F(0) else (F(-1) if x < F(0) else x)",
        "    return y if abs(x) < limit else far",
    ]
    return _inline(define("\n".join(lines), "value", constants))


tanh32 = _rational(TANH, TANH_LIMIT)
erf32 = _rational(ERF, ERF_LIMIT)


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


_FLOAT32 = SimpleNamespace(
    exp=exp32,
    exp_below=exp_below32,
    expm1=expm132,
    log=log32,
    log1p=log1p32,
    log_of_sum=log_wide,
    tanh=tanh32,
    sigmoid=sigmoid32,
    erf=erf32,
)


@_inline
def sigmoid64(x):
    """1 / (1 + e^-x)."""
    t = exp_below64(-abs(x))
    return 1.0 / (1.0 + t) if x >= 0.0 else t / (1.0 + t)


@_inline
def gelu64(x):
    """x times the normal distribution function."""
    return 0.5 * x * math.erfc(x * -ROOT_HALF)


@_inline
def gelu_slope64(x):
    """The derivative of GELU."""
    near = -40.0 if x < -40.0 else (40.0 if x > 40.0 else x)
    density = exp_below64(-0.5 * near * near) * DENSITY
    return 0.5 * math.erfc(x * -ROOT_HALF) + near * density


_FLOAT64 = SimpleNamespace(
    exp=exp64,
    exp_below=exp_below64,
    expm1=math.expm1,
    log=math.log,
    log1p=math.log1p,
    log_of_sum=math.log,
    tanh=math.tanh,
    sigmoid=sigmoid64,
    erf=math.erf,
    gelu=gelu64,
    gelu_slope=gelu_slope64,
)


def fast_functions(kind: Any) -> SimpleNamespace:
    """exp, expm1, log, log1p, tanh, sigmoid, erf for a float type; in float64 GELU and its slope.

    `exp_below` takes numbers up to 0, `log_of_sum` a float64 of at least 1 for either type.
    """
    return _FLOAT32 if kind is types.float32 else _FLOAT64
