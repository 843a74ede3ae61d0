"""Normalisation of the last axes of each sample; composites."""

from __future__ import annotations

from typing import Any

from gpubp.core import describe
from gpubp.errors import DTypeError, ShapeError
from gpubp.ops.elementwise import add, multiply, square, subtract
from gpubp.ops.norm import checked_eps, inverse_root
from gpubp.ops.reduce import mean
from gpubp.ops.shape import as_shape
from gpubp.ops.spec import float_limits, promote


def layer_norm(
    x: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    """The last axes normalised (Ba, Kiros & Hinton 2016, arXiv:1607.06450).

    Args:
        x: (..., *normalized_shape).
        normalized_shape: the sizes of the last axes.
        weight, bias: of that shape, or None.
        eps: added to the variance.

    Raises:
        ShapeError: the last axes of x, or the shapes of weight or bias, are others.
    """
    shape = as_shape(normalized_shape, "layer_norm")
    x, axes = _with_last_axes("layer_norm", x, shape)
    distance = subtract(x, mean(x, axes, keepdims=True))
    var = mean(square(distance), axes, keepdims=True)
    y = multiply(distance, inverse_root(var, checked_eps("layer_norm", eps)))
    return _scaled("layer_norm", y, weight, bias, shape)


def rms_norm(x: Any, normalized_shape: Any, weight: Any = None, eps: float | None = None) -> Any:
    """The last axes divided by their root mean square (Zhang & Sennrich 2019, arXiv:1910.07467).

    Args:
        x: (..., *normalized_shape).
        normalized_shape: the sizes of the last axes.
        weight: of that shape, or None.
        eps: added to the mean of squares; None: the machine epsilon of x's dtype.

    Raises:
        ShapeError: the last axes of x, or the shape of the weight, are others.
        DTypeError: x is not of floats.
    """
    shape = as_shape(normalized_shape, "rms_norm")
    (given,) = promote(x)
    if given.dtype.kind != "f":
        raise DTypeError(f"rms_norm: got x {describe(given)}, expected floats.")
    x, axes = _with_last_axes("rms_norm", given, shape)
    least = float(float_limits(x).eps) if eps is None else checked_eps("rms_norm", eps)
    y = multiply(x, inverse_root(mean(square(x), axes, keepdims=True), least))
    return _scaled("rms_norm", y, weight, None, shape)


def _with_last_axes(op: str, x: Any, shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    (x,) = promote(x, floating=True)
    if not shape or tuple(x.shape[-len(shape) :]) != shape:
        raise ShapeError(f"{op}: got x {describe(x)}, expected the last axes to be {shape}.")
    return x, tuple(range(len(x.shape) - len(shape), len(x.shape)))


def _scaled(op: str, y: Any, weight: Any, bias: Any, shape: tuple[int, ...]) -> Any:
    for name, value, fn in (("weight", weight, multiply), ("bias", bias, add)):
        if value is None:
            continue
        (value,) = promote(value, floating=True)
        if tuple(value.shape) != shape:
            raise ShapeError(f"{op}: expected {name} {shape}, got {describe(value)}.")
        y = fn(y, value)
    return y
