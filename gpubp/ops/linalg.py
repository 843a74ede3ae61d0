"""Matrix products.

The `matmul` spec takes operands of at least two dimensions; the public function gives vectors their
second one, as NumPy does. Gradients are again matrix products: a weight that is shared by a batch
gets its gradient from one 2-D product over the flattened batch.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from gpubp.core import Array, ArrayType, Kind, OpSpec, Typed, bind, describe
from gpubp.errors import ShapeError
from gpubp.ops.shape import expand_dims, reshape, squeeze, swapaxes, transpose
from gpubp.ops.spec import beside, promote, register, require_float, unbroadcast


def _infer(a: Typed, b: Typed) -> ArrayType:
    require_float("matmul", a, b)
    if len(a.shape) < 2 or len(b.shape) < 2 or a.shape[-1] != b.shape[-2]:
        raise ShapeError(
            f"matmul: {describe(a)} @ {describe(b)}: the last axis of the first must equal the "
            "second-last of the second."
        )
    try:
        batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    except ValueError:
        raise ShapeError(
            f"matmul: the leading axes of {describe(a)} and {describe(b)} do not broadcast."
        ) from None
    return ArrayType((*batch, a.shape[-2], b.shape[-1]), a.dtype)


def _vjp(g: Array, y: Array, a: Array, b: Array) -> list[Array | None]:
    to_a = unbroadcast(bind(MATMUL, g, swapaxes(b, -1, -2)), a)
    if b.ndim == 2 and a.ndim > 2:
        a, g = _rows(a), _rows(g)
    to_b = unbroadcast(bind(MATMUL, swapaxes(a, -1, -2), g), b)
    return [to_a, to_b]


def _rows(x: Any) -> Any:
    """All axes but the last made one."""
    return reshape(x, (math.prod(x.shape[:-1]), x.shape[-1]))


def _flops(out: Typed, a: Typed, b: Typed) -> float:
    return 2.0 * math.prod(out.shape) * a.shape[-1]


MATMUL = register(OpSpec("matmul", Kind.MATMUL, _infer, np.matmul, _vjp, flops=_flops))


def matmul(a: Any, b: Any) -> Any:
    """The matrix product, with NumPy's rules for vectors and batches.

    Args:
        a: (..., M, K) or (K,).
        b: (..., K, N) or (K,).

    Returns:
        (..., M, N), leading axes broadcast; without M or N where that operand was a vector.

    Raises:
        ShapeError: an operand is a scalar, or shapes do not fit.
    """
    a, b = promote(a, b, floating=True)
    if not a.shape or not b.shape:
        raise ShapeError(
            f"matmul: {describe(a)} @ {describe(b)}: scalars have no matrix product; use *."
        )
    row, column = len(a.shape) == 1, len(b.shape) == 1
    out = bind(MATMUL, expand_dims(a, 0) if row else a, expand_dims(b, 1) if column else b)
    if column:
        out = squeeze(out, -1)
    return squeeze(out, -1 if column else -2) if row else out


def linear(x: Any, weight: Any, bias: Any = None) -> Any:
    """`x @ weight.T + bias`, as torch.nn.functional.linear.

    Args:
        x: (..., in); leading axes are flattened, so that it is one 2-D product.
        weight: (out, in).
        bias: (out,) or None.

    Returns:
        (..., out).

    Raises:
        ShapeError: shapes do not fit.
    """
    x, weight = promote(x, weight, floating=True)
    if len(weight.shape) != 2 or x.shape[-1:] != weight.shape[1:]:
        raise ShapeError(
            f"linear: expected x (..., in) and weight (out, in), got {describe(x)} and "
            f"{describe(weight)}."
        )
    out = bind(MATMUL, _rows(x), transpose(beside(weight, x)))
    if bias is not None:
        out, bias = promote(out, bias)
        if bias.shape != weight.shape[:1]:
            raise ShapeError(
                f"linear: expected a bias of shape {weight.shape[:1]}, got {describe(bias)}."
            )
        out = out + bias
    return reshape(out, (*x.shape[:-1], weight.shape[0]))
