"""Elementwise ops that ONNX has an operator for; all others are written by their formulas."""

from __future__ import annotations

from gpubp.core.formula import Formula
from gpubp.onnx.export_formula import by_formula
from gpubp.onnx.rules import RULES, Op, rule
from gpubp.onnx.writer import Writer

# gpubp's name -> ONNX's, of operators that take the same inputs and no attributes.
DIRECT = {
    "greater": "Greater", "greater_equal": "GreaterOrEqual", "less": "Less",
    "less_equal": "LessOrEqual", "equal": "Equal", "logical_and": "And", "logical_or": "Or",
    "logical_not": "Not", "subtract": "Sub", "multiply": "Mul", "divide": "Div",
    "power": "Pow", "maximum": "Max", "minimum": "Min", "negative": "Neg", "abs": "Abs",
    "sign": "Sign", "floor": "Floor", "exp": "Exp", "log": "Log", "sqrt": "Sqrt", "sin": "Sin",
    "cos": "Cos", "erf": "Erf", "relu": "Relu", "sigmoid": "Sigmoid", "tanh": "Tanh",
    "round": "Round", "isnan": "IsNaN", "atan": "Atan",
}  # fmt: skip
# Which ONNX Runtime has in float32 alone.
SINGLE = {
    "asin": "Asin", "acos": "Acos", "sinh": "Sinh", "cosh": "Cosh", "asinh": "Asinh",
    "acosh": "Acosh", "atanh": "Atanh",
}  # fmt: skip


def _direct(name: str) -> None:
    RULES[name] = lambda w, op: w.node(DIRECT[name], *op.names)


for _name in DIRECT:
    _direct(_name)


@rule(*SINGLE)
def _single(w: Writer, op: Op) -> str:
    if op.dtype.itemsize == 8:
        return by_formula(w, op)
    return w.node(SINGLE[op.spec.name], *op.names)


@rule("copy", "after", "stop_gradient", "alias")
def _itself(w: Writer, op: Op) -> str:
    return op.names[0]


@rule("not_equal")
def _not_equal(w: Writer, op: Op) -> str:
    return w.node("Not", w.node("Equal", *op.names))


@rule("isfinite")
def _isfinite(w: Writer, op: Op) -> str:
    (x,) = op.names
    return w.node("Not", w.node("Or", w.node("IsNaN", x), w.node("IsInf", x)))


@rule("where")
def _where(w: Writer, op: Op) -> str:
    """Booleans by logic: ONNX Runtime chooses among numbers alone."""
    condition, a, b = op.names
    if op.dtype.kind != "b":
        return w.node("Where", condition, a, b)
    other = w.node("And", w.node("Not", condition), b)
    return w.node("Or", w.node("And", condition, a), other)


@rule("cast")
def _cast(w: Writer, op: Op) -> str:
    return w.cast(op.names[0], op.dtype)


@rule("square")
def _square(w: Writer, op: Op) -> str:
    return w.node("Mul", op.names[0], op.names[0])


@rule("clip")
def _clip(w: Writer, op: Op) -> str:
    low, high = (
        "" if op.attrs[k] is None else w.constant(op.attrs[k], op.dtype) for k in ("low", "high")
    )
    return w.node("Clip", op.names[0], low, *[high] if high else [])


@rule("leaky_relu", "elu")
def _with_slope(w: Writer, op: Op) -> str:
    """ONNX Runtime has them in float32 alone."""
    if op.dtype.itemsize == 8:
        return by_formula(w, op)
    alpha = _numbers(op)[0]
    return w.node({"elu": "Elu"}.get(op.spec.name, "LeakyRelu"), op.names[0], alpha=alpha)


@rule("silu")
def _silu(w: Writer, op: Op) -> str:
    return w.node("Mul", op.names[0], w.node("Sigmoid", op.names[0]))


@rule("gelu")
def _gelu(w: Writer, op: Op) -> str:
    return w.node("Gelu", op.names[0], approximate=op.attrs["approximate"])


@rule("softplus")
def _softplus(w: Writer, op: Op) -> str:
    """log(1 + exp(p x)) / p; x itself where p x is above q.

    ONNX Runtime has Softplus in float32 alone.
    """
    (x,), (p, q) = op.names, _numbers(op)
    single = op.dtype.itemsize == 4
    if p == 1.0 and q >= 20.0 and single:  # where the two are one
        return w.node("Softplus", x)
    scale = w.constant(p, op.dtype)
    scaled = w.node("Mul", x, scale)
    grown = w.node("Softplus", scaled) if single else _grown(w, scaled, op)
    soft = w.node("Div", grown, scale)
    return w.node("Where", w.node("Greater", scaled, w.constant(q, op.dtype)), x, soft)


def _grown(w: Writer, x: str, op: Op) -> str:
    """max(x, 0) + log(1 + exp(-|x|))."""
    e = w.node("Exp", w.node("Neg", w.node("Abs", x)))
    rest = w.node("Log", w.node("Add", e, w.constant(1, op.dtype)))
    return w.node("Add", w.node("Relu", x), rest)


def _numbers(op: Op) -> tuple[float, ...]:
    """p and q of the formula."""
    assert isinstance(op.spec.formula, Formula)
    return op.spec.formula.attrs(op.attrs)
