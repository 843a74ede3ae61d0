"""Softmax, log-softmax and softmax cross-entropy, over the last axis of two or more.

All three subtract the row's maximum first, so nothing overflows; sums of a row accumulate in
float64. The public functions take other axes and single rows by rearranging.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.core import Array, ArrayType, Indices, Kind, OpSpec, Typed, bind, describe
from gpubp.errors import DataError, ShapeError
from gpubp.ops.elementwise import exp
from gpubp.ops.index import one_hot, require_integer
from gpubp.ops.reduce import sum
from gpubp.ops.shape import expand_dims, reshape, swapaxes
from gpubp.ops.spec import FLOAT64, normalized_axis, promote, register, require_float

_Cotangents = list[Array | None]


def _require_rows(name: str, x: Typed) -> None:
    require_float(name, x)
    if len(x.shape) < 2 or x.shape[-1] == 0:
        raise ShapeError(f"{name}: expected rows (..., C) with C > 0, got {describe(x)}.")


def _shifted(x: Any) -> tuple[Any, Any]:
    """Rows minus their maximum, and the sums of their exponentials (..., 1) in float64."""
    z = x - np.max(x, axis=-1, keepdims=True)
    return z, np.sum(np.exp(z), axis=-1, keepdims=True, dtype=FLOAT64)


def _softmax_reference(x: Any) -> Any:
    z, total = _shifted(x)
    return (np.exp(z) / total).astype(x.dtype)


def _softmax_infer(x: Typed) -> ArrayType:
    _require_rows("softmax", x)
    return ArrayType(x.shape, x.dtype)


def _softmax_vjp(g: Array, y: Array, x: Array) -> _Cotangents:
    return [y * (g - sum(g * y, -1, keepdims=True))]


def _log_softmax_infer(x: Typed) -> ArrayType:
    _require_rows("log_softmax", x)
    return ArrayType(x.shape, x.dtype)


def _log_softmax_reference(x: Any) -> Any:
    z, total = _shifted(x)
    return (z - np.log(total)).astype(x.dtype)


def _log_softmax_vjp(g: Array, y: Array, x: Array) -> _Cotangents:
    return [g - exp(y) * sum(g, -1, keepdims=True)]


def _check_types(name: str, logits: Typed, labels: Typed) -> None:
    _require_rows(name, logits)
    require_integer(name, "labels", labels)
    if labels.shape != logits.shape[:-1]:
        raise ShapeError(
            f"{name}: logits {describe(logits)} need labels of shape {logits.shape[:-1]}, got "
            f"{describe(labels)}."
        )


def _check_labels(labels: Any, classes: int) -> None:
    bad = (labels < 0) | (labels >= classes)
    if bad.any():
        at = tuple(int(i) for i in np.argwhere(bad)[0])
        raise DataError(
            f"softmax_cross_entropy: label {labels[at]} at {at} is out of range: the logits "
            f"have {classes} classes, so labels go from 0 to {classes - 1}."
        )


def _xent_infer(logits: Typed, labels: Typed) -> ArrayType:
    _check_types("softmax_cross_entropy", logits, labels)
    return ArrayType(labels.shape, logits.dtype)


def _xent_reference(logits: Any, labels: Any) -> Any:
    _check_labels(labels, logits.shape[-1])
    z, total = _shifted(logits)
    picked = np.take_along_axis(z, labels[..., None], axis=-1)
    return (np.log(total) - picked)[..., 0].astype(logits.dtype)


def _xent_vjp(g: Array, y: Array, logits: Array, labels: Array) -> _Cotangents:
    return [bind(SOFTMAX_CROSS_ENTROPY_GRAD, logits, labels, g), None]


def _xent_grad_infer(logits: Typed, labels: Typed, dloss: Typed) -> ArrayType:
    _check_types("softmax_cross_entropy_grad", logits, labels)
    require_float("softmax_cross_entropy_grad", logits, dloss)
    if dloss.shape != labels.shape:
        raise ShapeError(
            f"softmax_cross_entropy_grad: labels {describe(labels)} need dloss of that shape, got "
            f"{describe(dloss)}."
        )
    return ArrayType(logits.shape, logits.dtype)


def _xent_grad_reference(logits: Any, labels: Any, dloss: Any) -> Any:
    _check_labels(labels, logits.shape[-1])
    z, total = _shifted(logits)
    out = np.exp(z) / total
    at = labels[..., None]
    np.put_along_axis(out, at, np.take_along_axis(out, at, axis=-1) - 1, axis=-1)
    return (out * dloss[..., None]).astype(logits.dtype)


def _xent_grad_vjp(g: Array, y: Array, logits: Array, labels: Array, dloss: Array) -> _Cotangents:
    """y = (p - onehot) d, p = softmax: dp reaches the logits as p * (dp - sum(dp * p))."""
    p: Array = bind(SOFTMAX, logits)
    to_p = g * expand_dims(dloss, -1)
    to_logits = p * (to_p - sum(to_p * p, -1, keepdims=True))
    hot = one_hot(labels, logits.shape[-1], logits.dtype)
    return [to_logits, None, sum(g * (p - hot), -1)]


SOFTMAX = register(
    OpSpec("softmax", Kind.ROWWISE, _softmax_infer, _softmax_reference, _softmax_vjp, flops=5.0)
)
LOG_SOFTMAX = register(
    OpSpec(
        "log_softmax",
        Kind.ROWWISE,
        _log_softmax_infer,
        _log_softmax_reference,
        _log_softmax_vjp,
        flops=4.0,
    )
)
_LABELS = Indices(1, lambda logits, *_: logits.shape[-1])
SOFTMAX_CROSS_ENTROPY = register(
    OpSpec(
        "softmax_cross_entropy",
        Kind.ROWWISE,
        _xent_infer,
        _xent_reference,
        _xent_vjp,
        flops=4.0,
        indices=_LABELS,
    )
)
SOFTMAX_CROSS_ENTROPY_GRAD = register(
    OpSpec(
        "softmax_cross_entropy_grad",
        Kind.ROWWISE,
        _xent_grad_infer,
        _xent_grad_reference,
        _xent_grad_vjp,
        flops=6.0,
        kernel="softmax_cross_entropy",
        indices=_LABELS,
        scalar_inputs=(2,),  # most often the losses' cotangent is one number for all rows
        joins=SOFTMAX_CROSS_ENTROPY,
    )
)


def _over_axis(spec: OpSpec, x: Any, axis: int) -> Any:
    (x,) = promote(x, floating=True)
    last = len(x.shape) - 1
    if normalized_axis(axis, len(x.shape), spec.name) != last:
        return swapaxes(_over_axis(spec, swapaxes(x, axis, last), last), axis, last)
    if last == 0:
        return reshape(bind(spec, expand_dims(x, 0)), x.shape)
    return bind(spec, x)


def softmax(x: Any, axis: int = -1) -> Any:
    """`exp(x) / sum(exp(x))` along `axis`. Raises ShapeError if the axis is missing or empty."""
    return _over_axis(SOFTMAX, x, axis)


def log_softmax(x: Any, axis: int = -1) -> Any:
    """`x - log(sum(exp(x)))` along `axis`. Raises ShapeError if the axis is missing or empty."""
    return _over_axis(LOG_SOFTMAX, x, axis)


def softmax_cross_entropy(logits: Any, labels: Any) -> Any:
    """The loss of each row, `log(sum(exp(logits))) - logits[label]`.

    Args:
        logits: (..., C).
        labels: (...) int32 or int64, from 0 to C - 1.

    Returns:
        (...): one loss a row, not averaged.

    Raises:
        DataError: a label is out of range.
        DTypeError: labels are not integers.
        ShapeError: shapes do not fit.
    """
    (x,), (found,) = promote(logits, floating=True), promote(labels)
    if len(x.shape) == 1 and found.shape == ():
        row = bind(SOFTMAX_CROSS_ENTROPY, expand_dims(x, 0), expand_dims(found, 0))
        return reshape(row, ())
    return bind(SOFTMAX_CROSS_ENTROPY, x, found)
