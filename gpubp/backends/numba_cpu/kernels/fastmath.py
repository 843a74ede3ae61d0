"""Transcendental functions as plain arithmetic, so that loops over them vectorise.

Bounds (measured over their whole range against float64, asserted in `tests/test_fastmath.py`):
exp, expm1, tanh, sigmoid 3e-7 relative (exp below -86.6 is 0); erf 4e-7; log and log1p 2e-7;
the slope of GELU 3e-7 absolute. In float64 exp is within 5e-16 (below -708 it is 0), and sigmoid
follows it; the others use libm.

exp: x = n ln 2 + r with |r| <= ln 2 / 2, degree-6 polynomial (Cephes, expf.c; in float64 the
Taylor series to r^13 / 13!, whose rest is below 5e-18), and n added to the exponent's bits.
tanh, erf, the normal distribution: x P(x^2) / Q(x^2), minimax fits made for this file (weighted
linear least squares, Lawson's iteration), up to where the limit is reached to float32's rounding.
log: in float64, see `log_wide`.
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
ROUND = F(12582912.0)  # 1.5 * 2^23: adding it leaves the nearest integer in the low bits
LOG2E = F(1.44269504088896341)
LN2_HIGH, LN2_LOW = F(0.693359375), F(-2.12194440e-4)
_ROOT_HALF, _DENSITY = math.sqrt(0.5), 1.0 / math.sqrt(2.0 * math.pi)
LOWEST, HIGHEST = F(-86.6), F(88.72)
EXP = (
    1.9875691500e-4,
    1.3981999507e-3,
    8.3334519073e-3,
    4.1665795894e-2,
    1.6666665459e-1,
    5.0000001201e-1,
)
_E0, _E1, _E2, _E3, _E4, _E5 = (F(c) for c in EXP)
TANH_LIMIT, ERF_LIMIT, SLOPE_LIMIT = 9.02, 3.92, 6.0
NORMAL_LIMIT = ERF_LIMIT * math.sqrt(2.0)
TANH = (
    (1.0, 0.136798903, 0.00386829558, 2.80068034e-05, 3.05834327e-08, -1.22022878e-11),
    (1.0, 0.470132232, 0.0272457227, 0.000393857423, 1.28732052e-06),
)
ERF = (
    (1.12837911, 0.190396875, 0.0527472757, 0.00376515882, 0.000284864858, 2.05006177e-06),
    (1.0, 0.502067566, 0.114104986, 0.0149683021, 0.00116241048, 3.80905149e-05),
)
# erf(x / sqrt(2)).
NORMAL = (
    (0.797884524, 0.0673154593, 0.00932448916, 0.00033279616, 1.25893675e-05, 4.53003963e-08),
    (1.0, 0.251033783, 0.0285262465, 0.00187103776, 7.26506551e-05, 1.19032859e-06),
)
# The derivative of GELU less 1/2.
SLOPE = (
    (
        0.797884524,
        -0.0223738626,
        0.0138574354,
        0.000202684096,
        3.40917832e-05,
        9.22398272e-07,
        1.70451493e-08,
    ),
    (
        1.0,
        0.305291474,
        0.0441326201,
        0.00397137087,
        0.00024531188,
        1.0307077e-05,
        3.38940367e-07,
        1.31471578e-09,
    ),
)


ROUND64 = 6755399441055744.0  # 1.5 * 2^52
LN2_HIGH64, LN2_LOW64 = 6.93147180369123816490e-01, 1.90821492927058770002e-10
LOWEST64, HIGHEST64 = -708.0, 709.782712893384
TAYLOR = tuple(1.0 / math.factorial(k) for k in range(14))


@intrinsic
def _scaled64(_typing: Any, y: Any, shifted: Any) -> Any:
    """y 2^n, where `shifted` is 1.5 * 2^52 + n, for results that are normal numbers."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        i64 = ir.IntType(64)
        bits, exponent = (builder.bitcast(x, i64) for x in args)
        return builder.bitcast(builder.add(bits, builder.shl(exponent, i64(52))), ir.DoubleType())

    return types.float64(types.float64, types.float64), codegen


@intrinsic
def _scaled(_typing: Any, y: Any, shifted: Any) -> Any:
    """y 2^n, where `shifted` is 1.5 * 2^23 + n, for results that are normal numbers."""

    def codegen(_context: Any, builder: Any, _signature: Any, args: Any) -> Any:
        bits, exponent = (builder.bitcast(x, I32) for x in args)
        return builder.bitcast(builder.add(bits, builder.shl(exponent, I32(23))), ir.FloatType())

    return types.float32(types.float32, types.float32), codegen


# A multiply and an add become one instruction where there is one. Inlined whatever their size: a
# loop with a call left in it is not vectorised.
_inline = njit(error_model="numpy", fastmath={"contract"}, forceinline=True)


@_inline
def exp32(x):
    """e^x."""
    bounded = max(x, LOWEST)
    shifted = bounded * LOG2E + ROUND
    n = shifted - ROUND
    r = (bounded - n * LN2_HIGH) - n * LN2_LOW
    p = _E0 * r + _E1
    p = p * r + _E2
    p = p * r + _E3
    p = p * r + _E4
    p = p * r + _E5
    y = _scaled(p * (r * r) + r + F(1), shifted)
    y = F(0) if x < LOWEST else y
    return y if x <= HIGHEST else x + F(math.inf)  # NaN stays


def _series() -> Any:
    """The Taylor series of e^r, by Horner's rule."""
    lines = ["def value(r):", "    p = c13"]
    lines += [f"    p = p * r + c{k}" for k in reversed(range(13))]
    scope: dict[str, Any] = {}
    exec("\n".join([*lines, "    return p"]), {f"c{k}": c for k, c in enumerate(TAYLOR)}, scope)
    return _inline(scope["value"])


_series64 = _series()


@_inline
def exp64(x):
    """e^x."""
    shifted = min(max(x, LOWEST64), HIGHEST64) * 1.44269504088896341 + ROUND64
    n = shifted - ROUND64
    y = _scaled64(_series64((x - n * LN2_HIGH64) - n * LN2_LOW64), shifted)
    y = 0.0 if x < LOWEST64 else y
    return y if x <= HIGHEST64 else x + math.inf  # NaN stays


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
    return F(1) / (F(1) + exp32(-x))


def _rational(coefficients: Any, limit: float, end: float = 1.0) -> Any:
    """x P(x^2) / Q(x^2), and `end` with the sign of x from `limit` on."""
    lines = ["def value(x):", "    z = x * x"]
    constants = {"F": F, "limit": F(limit), "end": F(end)}
    for name, numbers in zip("pq", coefficients):
        constants |= {f"{name}{i}": F(c) for i, c in enumerate(numbers)}
        lines.append(f"    {name} = {name}{len(numbers) - 1}")
        lines += [f"    {name} = {name} * z + {name}{i}" for i in reversed(range(len(numbers) - 1))]
    lines += [
        "    y = x * p / q",
        "    far = end if x > F(0) else (-end if x < F(0) else x)",
        "    return y if abs(x) < limit else far",
    ]
    scope: dict[str, Any] = {}
    exec("\n".join(lines), constants, scope)
    return _inline(scope["value"])


tanh32 = _rational(TANH, TANH_LIMIT)
erf32 = _rational(ERF, ERF_LIMIT)
normal32 = _rational(NORMAL, NORMAL_LIMIT)
_slope32 = _rational(SLOPE, SLOPE_LIMIT, 0.5)


@_inline
def gelu32(x):
    """x times the normal distribution function, which is (1 + erf(x / sqrt(2))) / 2."""
    half = F(0.5) * x
    return half + half * normal32(x)


@_inline
def gelu_slope32(x):
    """The derivative of GELU: the normal distribution function, and x times its density."""
    return F(0.5) + _slope32(x)


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
    """exp, expm1, log, log1p, tanh, sigmoid, erf, GELU and its slope for a float type.

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
            gelu=gelu32,
            gelu_slope=gelu_slope32,
        )

    @_inline
    def sigmoid(x):
        t = exp64(-abs(x))
        return 1.0 / (1.0 + t) if x >= 0.0 else t / (1.0 + t)

    @_inline
    def gelu(x):
        return 0.5 * x * (1.0 + math.erf(x * _ROOT_HALF))

    @_inline
    def gelu_slope(x):
        density = exp64(-0.5 * x * x) * _DENSITY
        return 0.5 * (1.0 + math.erf(x * _ROOT_HALF)) + x * density

    return SimpleNamespace(
        exp=exp64,
        expm1=math.expm1,
        log=math.log,
        log1p=math.log1p,
        log_of_sum=math.log,
        tanh=math.tanh,
        sigmoid=sigmoid,
        erf=math.erf,
        gelu=gelu,
        gelu_slope=gelu_slope,
    )
