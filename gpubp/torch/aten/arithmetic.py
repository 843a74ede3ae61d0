"""Rules of elementwise arithmetic, comparison and logic."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp import ops
from gpubp.errors import ArgumentError
from gpubp.torch.rules import rule, same

same(
    {
        "abs": ops.abs,
        "absolute": ops.abs,
        "acos": ops.acos,
        "acosh": ops.acosh,
        "asin": ops.asin,
        "asinh": ops.asinh,
        "atan": ops.atan,
        "atan2": ops.atan2,
        "atanh": ops.atanh,
        "ceil": ops.ceil,
        "copysign": ops.copysign,
        "cos": ops.cos,
        "cosh": ops.cosh,
        "deg2rad": ops.deg2rad,
        "erf": ops.erf,
        "erfinv": ops.erfinv,
        "exp": ops.exp,
        "exp2": ops.exp2,
        "expm1": ops.expm1,
        "floor": ops.floor,
        "floor_divide": ops.floor_divide,
        "fmod": ops.fmod,
        "frac": ops.frac,
        "heaviside": ops.heaviside,
        "hypot": ops.hypot,
        "isfinite": ops.isfinite,
        "isinf": ops.isinf,
        "isnan": ops.isnan,
        "isneginf": ops.isneginf,
        "isposinf": ops.isposinf,
        "lerp": ops.lerp,
        "log": ops.log,
        "log10": ops.log10,
        "log1p": ops.log1p,
        "log2": ops.log2,
        "logaddexp": ops.logaddexp,
        "logaddexp2": ops.logaddexp2,
        "logical_and": ops.logical_and,
        "logical_not": ops.logical_not,
        "logical_or": ops.logical_or,
        "logit": ops.logit,
        "maximum": ops.maximum,
        "max.other": ops.maximum,
        "minimum": ops.minimum,
        "min.other": ops.minimum,
        "nan_to_num": ops.nan_to_num,
        "neg": ops.negative,
        "negative": ops.negative,
        "rad2deg": ops.rad2deg,
        "reciprocal": ops.reciprocal,
        "remainder": ops.remainder,
        "rsqrt": ops.rsqrt,
        "sgn": ops.sign,
        "sign": ops.sign,
        "signbit": ops.signbit,
        "sin": ops.sin,
        "sinc": ops.sinc,
        "sinh": ops.sinh,
        "special_xlogy": ops.xlogy,
        "sqrt": ops.sqrt,
        "square": ops.square,
        "tan": ops.tan,
        "trunc": ops.trunc,
        "fix": ops.trunc,
        "xlogy": ops.xlogy,
        "eq": ops.equal,
        "ne": ops.not_equal,
        "gt": ops.greater,
        "ge": ops.greater_equal,
        "lt": ops.less,
        "le": ops.less_equal,
        "greater": ops.greater,
        "greater_equal": ops.greater_equal,
        "less": ops.less,
        "less_equal": ops.less_equal,
        "not_equal": ops.not_equal,
    }
)


def _scaled(x: Any, alpha: Any) -> Any:
    return x if alpha == 1 else ops.multiply(x, alpha)


def _is_bool(x: Any) -> bool:
    return isinstance(x, bool) or getattr(x, "dtype", None) == np.bool_


@rule("add")
def add(a: Any, b: Any, alpha: Any = 1) -> Any:
    """a + alpha b; of booleans, or."""
    if _is_bool(a) and _is_bool(b):
        return ops.logical_or(a, b)
    return ops.add(a, _scaled(b, alpha))


@rule("sub", "subtract")
def sub(a: Any, b: Any, alpha: Any = 1) -> Any:
    """a - alpha b."""
    return ops.subtract(a, _scaled(b, alpha))


@rule("rsub")
def rsub(a: Any, b: Any, alpha: Any = 1) -> Any:
    """b - alpha a."""
    return ops.subtract(b, _scaled(a, alpha))


@rule("mul", "multiply")
def mul(a: Any, b: Any) -> Any:
    """a b; of booleans, and."""
    if _is_bool(a) and _is_bool(b):
        return ops.logical_and(a, b)
    return ops.multiply(a, b)


@rule("div", "divide", "true_divide")
def div(a: Any, b: Any, rounding_mode: str | None = None) -> Any:
    """a / b, rounded down or towards zero where that is asked for."""
    if rounding_mode == "floor":
        return ops.floor_divide(a, b)
    quotient = ops.divide(a, b)
    return ops.trunc(quotient) if rounding_mode == "trunc" else quotient


@rule("pow", "float_power")
def power(x: Any, exponent: Any) -> Any:
    """x to a power."""
    if isinstance(exponent, (int, float)) and exponent == 2:
        return ops.square(x)
    return ops.power(x, exponent)


@rule("clamp", "clip")
def clamp(x: Any, min: Any = None, max: Any = None) -> Any:
    """x within bounds, of numbers or of arrays."""
    return ops.clamp(x, min, max)


@rule("clamp_min")
def clamp_min(x: Any, min: Any) -> Any:
    """x, at least `min`."""
    return ops.clamp(x, min)


@rule("clamp_max")
def clamp_max(x: Any, max: Any) -> Any:
    """x, at most `max`."""
    return ops.clamp(x, None, max)


@rule("round")
def rounded(x: Any, decimals: int = 0) -> Any:
    """x rounded to even."""
    return ops.round(x, decimals=decimals)


@rule("erfc", "special_erfc")
def erfc(x: Any) -> Any:
    """1 - erf(x)."""
    return ops.subtract(1.0, ops.erf(x))


@rule("addcmul")
def addcmul(x: Any, a: Any, b: Any, value: Any = 1) -> Any:
    """x + value a b."""
    return ops.addcmul(x, a, b, value=value)


@rule("addcdiv")
def addcdiv(x: Any, a: Any, b: Any, value: Any = 1) -> Any:
    """x + value a / b."""
    return ops.addcdiv(x, a, b, value=value)


@rule("bitwise_and", "__and__")
def bitwise_and(a: Any, b: Any) -> Any:
    """Of booleans alone."""
    _require_bools("bitwise_and", a, b)
    return ops.logical_and(a, b)


@rule("bitwise_or", "__or__")
def bitwise_or(a: Any, b: Any) -> Any:
    """Of booleans alone."""
    _require_bools("bitwise_or", a, b)
    return ops.logical_or(a, b)


@rule("bitwise_not")
def bitwise_not(x: Any) -> Any:
    """Of booleans alone."""
    _require_bools("bitwise_not", x)
    return ops.logical_not(x)


@rule("logical_xor", "bitwise_xor", "__xor__")
def logical_xor(a: Any, b: Any) -> Any:
    """Of booleans alone."""
    _require_bools("logical_xor", a, b)
    return ops.not_equal(a, b)


def _require_bools(name: str, *values: Any) -> None:
    if not all(map(_is_bool, values)):
        raise ArgumentError(f"{name} of integers is not supported, only that of booleans.")


@rule("where")
def where(condition: Any, a: Any, b: Any) -> Any:
    """a where the condition holds, else b."""
    return ops.where(condition, a, b)


@rule("masked_fill")
def masked_fill(x: Any, mask: Any, value: Any) -> Any:
    """x, and `value` where the mask is set."""
    return ops.where(mask, value, x)
