"""Normalisation of the last axes of each sample; composites.

LayerNorm takes distances from a pivot, as normalisation of channels does (`norm.py` says why), so
neither they nor their gradients are kept in memory.
"""

from __future__ import annotations

from typing import Any

from gpubp.core import bind, describe
from gpubp.errors import DTypeError, ShapeError
from gpubp.ops.elementwise import add, multiply, square
from gpubp.ops.moments import SCALED_DIFFERENCE, WEIGHTED_DIFFERENCE, moments_of_rows
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
    weight = _of_shape("layer_norm", "weight", weight, shape)
    bias, eps = _of_shape("layer_norm", "bias", bias, shape), checked_eps("layer_norm", eps)
    found = moments_of_rows(x, axes)
    scale = inverse_root(found.var, eps)
    if weight is None:
        y = bind(SCALED_DIFFERENCE, scale, x, found.mean)
    else:
        y = bind(WEIGHTED_DIFFERENCE, *promote(scale, x, found.mean, weight))
    return y if bias is None else add(y, bias)


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
    weight = _of_shape("rms_norm", "weight", weight, shape)
    y = multiply(x, inverse_root(mean(square(x), axes, keepdims=True), least))
    return y if weight is None else multiply(y, weight)


def _with_last_axes(op: str, x: Any, shape: tuple[int, ...]) -> tuple[Any, tuple[int, ...]]:
    (x,) = promote(x, floating=True)
    if not shape or tuple(x.shape[-len(shape) :]) != shape:
        raise ShapeError(f"{op}: got x {describe(x)}, expected the last axes to be {shape}.")
    return x, tuple(range(len(x.shape) - len(shape), len(x.shape)))


def _of_shape(op: str, name: str, value: Any, shape: tuple[int, ...]) -> Any:
    """An array of that shape; None stays."""
    if value is None:
        return None
    (value,) = promote(value, floating=True)
    if tuple(value.shape) != shape:
        raise ShapeError(f"{op}: expected {name} {shape}, got {describe(value)}.")
    return value
