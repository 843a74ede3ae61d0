"""The elementwise ops of the CPU backend, each formula once.

An entry gives the number of operands and an expression over a, b, c, d, e (operands), p, q (static
attributes) and helpers. `C(x)` makes a constant in the kernel's own type. From this table come the
strip loops of `kernels/chain.py` and the scalar interpreter of `kernels/scalar.py`.
Formulas are those of `gpubp.ops`; each file there names its sources.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple


class Functor(NamedTuple):
    """One elementwise op: operand count, expression, usable on integers, static attributes."""

    arity: int
    expression: str
    integer: bool = False
    attrs: Callable[[dict[str, Any]], tuple[float, ...]] = lambda attrs: ()


def _truth(condition: str) -> str:
    return f"C(1) if {condition} else C(0)"


def _clip(attrs: dict[str, Any]) -> tuple[float, ...]:
    low, high = attrs["low"], attrs["high"]
    infinity = float("inf")
    return (-infinity if low is None else low, infinity if high is None else high)


_ARITHMETIC = {
    "add": Functor(2, "a + b", True),
    "subtract": Functor(2, "a - b", True),
    "multiply": Functor(2, "a * b", True),
    "divide": Functor(2, "a / b"),
    "power": Functor(2, "power(a, b)"),
    "maximum": Functor(2, "a if a > b or a != a else b", True),
    "minimum": Functor(2, "a if a < b or a != a else b", True),
    "negative": Functor(1, "-a", True),
    "abs": Functor(1, "abs(a)", True),
    "sign": Functor(1, "C(1) if a > C(0) else (C(-1) if a < C(0) else a)", True),
    "square": Functor(1, "a * a", True),
    "copy": Functor(1, "a", True),
    "exp": Functor(1, "exp(a)"),
    "log": Functor(1, "log(a)"),
    "log1p": Functor(1, "log1p(a)"),
    "expm1": Functor(1, "expm1(a)"),
    "sqrt": Functor(1, "sqrt(a)"),
    "sin": Functor(1, "sin(a)"),
    "cos": Functor(1, "cos(a)"),
    "floor": Functor(1, "floor(a)"),
    "erf": Functor(1, "erf(a)"),
    # The upper limit last: it holds where the lower one is above it.
    "clip": Functor(1, "q if (p if a < p else a) > q else (p if a < p else a)", False, _clip),
}

_LOGIC = {
    "greater": Functor(2, _truth("a > b"), True),
    "greater_equal": Functor(2, _truth("a >= b"), True),
    "less": Functor(2, _truth("a < b"), True),
    "less_equal": Functor(2, _truth("a <= b"), True),
    "equal": Functor(2, _truth("a == b"), True),
    "not_equal": Functor(2, _truth("a != b"), True),
    "logical_and": Functor(2, _truth("a != C(0) and b != C(0)"), True),
    "logical_or": Functor(2, _truth("a != C(0) or b != C(0)"), True),
    "logical_not": Functor(1, _truth("a == C(0)"), True),
    "isfinite": Functor(1, _truth("a - a == C(0)"), True),
    "where": Functor(3, "b if a != C(0) else c", True),
}

# `cast` becomes one of these by its target; loads and stores convert between memory types.
_CAST = {
    "cast_same": Functor(1, "a", True),
    "cast_truth": Functor(1, _truth("a != C(0)"), True),
    "cast_integer": Functor(1, "truncate(a)", True),
    "cast_int32": Functor(1, "C(I32(a))", True),
    "cast_float32": Functor(1, "C(F32(a))"),
}

_ACTIVATION = {
    "relu": Functor(1, "a if a > C(0) or a != a else C(0)"),
    "relu_grad": Functor(2, "a if b > C(0) else C(0)"),
    "leaky_relu": Functor(1, "a if a > C(0) else a * p", False, lambda x: (x["slope"],)),
    "leaky_relu_grad": Functor(2, "a if b > C(0) else a * p", False, lambda x: (x["slope"],)),
    "elu": Functor(1, "a if a > C(0) else p * expm1(a)", False, lambda x: (x["alpha"],)),
    "elu_grad": Functor(
        2, "a if b > C(0) else a * (p * exp_below(b))", False, lambda x: (x["alpha"],)
    ),
    # gelu and gelu_grad become one of these by attrs["approximate"].
    "gelu_none": Functor(1, "gelu(a)"),
    "gelu_tanh": Functor(1, "gelu_tanh(a)"),
    "gelu_grad_none": Functor(2, "a * gelu_slope(b)"),
    "gelu_grad_tanh": Functor(2, "a * gelu_tanh_slope(b)"),
    "tanhshrink": Functor(1, "a - tanh(a)"),
    "silu": Functor(1, "a * sigmoid(a)"),
    "silu_grad": Functor(2, "a * silu_slope(b)"),
    "sigmoid": Functor(1, "sigmoid(a)"),
    "sigmoid_grad": Functor(2, "a * b * (C(1) - b)"),
    "tanh": Functor(1, "tanh(a)"),
    "tanh_grad": Functor(2, "a * (C(1) - b * b)"),
    "softplus": Functor(1, "softplus(a, p, q)", False, lambda x: (x["beta"], x["threshold"])),
    "softplus_grad": Functor(
        2,
        "a if b * p > q else a * sigmoid(b * p)",
        False,
        lambda x: (x["beta"], x["threshold"]),
    ),
}

_UPDATE = {
    "ema": Functor(2, "p * a + q * b", False, lambda x: (x["decay"], 1 - x["decay"])),
    "ema_square": Functor(2, "p * a + q * b * b", False, lambda x: (x["decay"], 1 - x["decay"])),
    "momentum_update": Functor(
        2, "p * a + q * b", False, lambda x: (x["momentum"], 1 - x["dampening"])
    ),
    "sgd_update": Functor(3, "a - c * b"),
    "adam_update": Functor(5, "a - d * e * b / (sqrt(c) + p * e)", False, lambda x: (x["eps"],)),
}

FUNCTORS: dict[str, Functor] = {**_ARITHMETIC, **_LOGIC, **_CAST, **_ACTIVATION, **_UPDATE}
OPCODES: dict[str, int] = {name: i for i, name in enumerate(FUNCTORS)}
RANDOM_UNIFORM = len(OPCODES)
RANDOM_NORMAL = len(OPCODES) + 1
DTYPE_CODES = {"bool": 0, "int32": 1, "int64": 2, "float32": 3, "float64": 4}
