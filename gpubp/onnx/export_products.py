"""Products as operators of ONNX: of matrices, convolutions, attention.

Images are channels last here and channels first there: the writer joins the moves of axes between
two of them, so that none is left inside of a network of convolutions.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpubp.errors import FixedSizeError
from gpubp.onnx.rules import Op, Value, rule
from gpubp.onnx.sizes import Size, whole
from gpubp.onnx.writer import Writer


@rule("matmul")
def _matmul(w: Writer, op: Op) -> str:
    made = w.node("MatMul", *op.names)
    if all(len(v.shape) == 2 for v in op.inputs):
        w.with_bias[made] = lambda bias: _gemm(w, op.names, bias)
    return made


def _gemm(w: Writer, names: Sequence[str], bias: str) -> str:
    """Matrices and a bias in one; transposed ones as they were."""
    plain, turned = [], {}
    for name, option in zip(names, ("transA", "transB"), strict=True):
        source, perm = w.moved.get(name, (name, ()))
        plain.append(source if perm == (1, 0) else name)
        turned.update({option: 1} if perm == (1, 0) else {})
    return w.node("Gemm", *plain, bias, **turned)


@rule("add")
def _add(w: Writer, op: Op) -> str:
    """A bias goes into the product, which is left out where nothing else uses it."""
    for product, bias in (op.inputs, op.inputs[::-1]):
        if product.name in w.with_bias and bias.shape == product.shape[-1:]:
            return w.with_bias[product.name](bias.name)
    return w.node("Add", *op.names)


def to_channels_first(w: Writer, name: str, ndim: int) -> str:
    """(N, *sizes, C) as (N, C, *sizes)."""
    return w.transpose(name, (0, ndim - 1, *range(1, ndim - 1)))


def to_channels_last(w: Writer, name: str, ndim: int) -> str:
    """(N, C, *sizes) as (N, *sizes, C)."""
    return w.transpose(name, (0, *range(2, ndim), 1))


def cut(w: Writer, name: str, padding: Any, sizes: Any, first: int) -> tuple[str, list[int]]:
    """Elements at the end that are in no window are left out; ONNX's pads of what remains."""
    out = [
        (first + i, n + after)
        for i, ((_, after), n) in enumerate(zip(padding, whole(sizes, "the size of an image")))
        if after < 0
    ]
    if out:
        axes, ends = (list(column) for column in zip(*out, strict=True))
        name = w.slice(name, [0] * len(axes), ends, axes, [1] * len(axes))
    return name, [*(lo for lo, _ in padding), *(max(hi, 0) for _, hi in padding)]


@rule("conv")
def _conv(w: Writer, op: Op) -> str:
    x, weight = op.inputs
    ndim = len(x.shape)
    name, pads = cut(w, to_channels_first(w, x.name, ndim), op.attrs["padding"], x.shape[1:-1], 2)
    return _image_product(w, "Conv", [name, weight.name], ndim, pads=pads, **_options(op))


def _options(op: Op) -> dict[str, Any]:
    return {
        "strides": list(op.attrs["stride"]),
        "dilations": list(op.attrs["dilation"]),
        "group": op.attrs["groups"],
        "kernel_shape": list(op.inputs[1].shape[2:]),
    }


def _image_product(w: Writer, kind: str, names: list[str], ndim: int, **options: Any) -> str:
    """Channels last; with a bias when one is added."""
    made = to_channels_last(w, w.node(kind, *names, **options), ndim)
    w.with_bias[made] = lambda bias: to_channels_last(
        w, w.node(kind, *names, bias, **options), ndim
    )
    return made


@rule("conv_input")
def _transposed(w: Writer, op: Op) -> str:
    """What is cut off at the end, or stands there beyond all windows."""
    y, weight = op.inputs
    ndim, padding = len(y.shape), op.attrs["padding"]
    return _image_product(
        w,
        "ConvTranspose",
        [to_channels_first(w, y.name, ndim), weight.name],
        ndim,
        pads=[*(lo for lo, _ in padding), *(max(hi, 0) for _, hi in padding)],
        output_padding=_beyond(op, y, weight),
        **_options(op),
    )


def _beyond(op: Op, y: Value, weight: Value) -> list[int]:
    found = []
    axes = zip(
        whole(op.attrs["sizes"], "the size of an image"),
        whole(y.shape[1:-1], "the size of an image"),
        whole(weight.shape[2:], "a kernel"),
        op.attrs["stride"],
        op.attrs["dilation"],
        op.attrs["padding"],
        strict=True,
    )
    for size, n, k, stride, dilation, (lo, hi) in axes:
        reach = (n - 1) * stride + dilation * (k - 1) + 1
        found.append(size + lo + max(hi, 0) - reach)
    return found


@rule("attention")
def _attention(w: Writer, op: Op) -> str:
    """softmax(scale q k^T + mask) v by heads; 0 where a query sees no key."""
    q, k, v, *masks = op.inputs
    batch, length, heads, _ = q.shape
    keys, groups = k.shape[1], _fixed(k.shape[2])
    each = _fixed(heads) // groups
    queries = _of_queries(w, q, groups, each)
    known, values = (_of_keys(w, x, groups, each) for x in (k, v))
    last = (*range(3 + (each > 1)), 4, 3) if each > 1 else (0, 1, 3, 2)
    scores = w.node("MatMul", queries, w.transpose(known, last))
    scores = w.node("Mul", scores, w.constant(op.attrs["scale"], op.dtype))
    hidden = w.constant(-math.inf, op.dtype)
    for mask in masks:
        spread = _mask(w, mask, groups, each)
        is_bool = mask.dtype.kind == "b"
        scores = (
            w.node("Where", spread, scores, hidden) if is_bool else w.node("Add", scores, spread)
        )
    if op.attrs["causal"]:
        seen = w.constant(np.tri(*whole((length, keys), "the length of a sequence"), dtype=bool))
        scores = w.node("Where", seen, scores, hidden)
    weights = _weights(w, scores, op) if masks else w.node("Softmax", scores, axis=-1)
    found = w.node("MatMul", weights, values)
    if each == 1:
        return w.transpose(found, (0, 2, 1, 3))
    moved = w.transpose(found, (0, 3, 1, 2, 4))
    return w.reshape(moved, (batch, length, groups, each, v.shape[3]), op.shape)


def _fixed(size: Size) -> int:
    (found,) = whole((size,), "the number of heads")
    return found


def _of_queries(w: Writer, q: Value, groups: int, each: int) -> str:
    if each == 1:
        return w.transpose(q.name, (0, 2, 1, 3))
    batch, length, _, size = q.shape
    apart = w.reshape(q.name, q.shape, (batch, length, groups, each, size))
    return w.transpose(apart, (0, 2, 3, 1, 4))


def _of_keys(w: Writer, k: Value, groups: int, each: int) -> str:
    moved = w.transpose(k.name, (0, 2, 1, 3))
    if each == 1:
        return moved
    batch, keys, _, size = k.shape
    return w.reshape(moved, (batch, groups, keys, size), (batch, groups, 1, keys, size))


def _mask(w: Writer, mask: Value, groups: int, each: int) -> str:
    """A mask with its axis of heads as two, where heads share keys."""
    if each == 1:
        return mask.name
    batch, heads, length, keys = mask.shape
    spread = (batch, 1, 1, length, keys) if heads == 1 else (batch, groups, each, length, keys)
    return w.reshape(mask.name, mask.shape, spread)


def _weights(w: Writer, scores: str, op: Op) -> str:
    """A softmax whose rows may be of nothing but minus infinity."""
    last, zero = w.constant(np.array([-1], np.int64)), w.constant(0, op.dtype)
    top = w.node("ReduceMax", scores, last, keepdims=1)
    none = w.node("Equal", top, w.constant(-math.inf, op.dtype))
    e = w.node("Exp", w.node("Sub", scores, w.node("Where", none, zero, top)))
    total = w.node("ReduceSum", e, last, keepdims=1)
    return w.node("Div", e, w.node("Where", none, w.constant(1, op.dtype), total))


@rule("det")
def _det(w: Writer, op: Op) -> str:
    if len(op.inputs[0].shape) < 2:
        raise FixedSizeError("a determinant of no matrix.")
    return w.node("Det", op.names[0])
