"""ONNX's layers and losses in gpubp's ops."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp import nn, ops
from gpubp.onnx.import_common import counted, refuse


def dropout(
    x: Any, ratio: Any = None, training: Any = None, *, seed: int = 0, outputs: int = 1, **_: Any
) -> Any:
    p = 0.5 if ratio is None else float(ratio)
    if training is not None and bool(training) and p > 0:
        refuse("other random numbers")
    y = ops.dropout(x, p, training=False)
    return (y, np.ones(x.shape, bool)) if outputs > 1 else y


def gemm(
    a: Any,
    b: Any,
    c: Any = None,
    *,
    alpha: float = 1.0,
    beta: float = 1.0,
    transA: int = 0,
    transB: int = 0,
) -> Any:
    a = ops.transpose(a) if transA else a
    b = ops.transpose(b) if transB else b
    y = ops.multiply(ops.matmul(a, b), alpha)
    return y if c is None else ops.add(y, ops.multiply(c, beta))


def normalized(x: Any, axes: tuple[int, ...], eps: float) -> tuple[Any, Any, Any]:
    mean = ops.mean(x, axes, keepdims=True)
    centred = ops.subtract(x, mean)
    inverse = ops.divide(
        1.0, ops.sqrt(ops.add(ops.mean(ops.square(centred), axes, keepdims=True), eps))
    )
    return ops.multiply(centred, inverse), mean, inverse


def layer_norm(
    x: Any,
    scale: Any,
    bias: Any = None,
    *,
    axis: int = -1,
    epsilon: float = 1e-5,
    stash_type: int = 1,
    outputs: int = 1,
) -> Any:
    axes = tuple(range(counted(x, axis), x.ndim))
    y, mean, inverse = normalized(x, axes, epsilon)
    y = ops.multiply(y, scale)
    y = y if bias is None else ops.add(y, bias)
    return (y, mean, inverse)[:outputs] if outputs > 1 else y


def rms_norm(
    x: Any, scale: Any, *, axis: int = -1, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    size = x.shape[counted(x, axis) :]
    return ops.multiply(nn.RMSNorm(list(size), epsilon, elementwise_affine=False)(x), scale)


def batch_norm(
    x: Any,
    scale: Any,
    bias: Any,
    mean: Any,
    var: Any,
    *,
    epsilon: float = 1e-5,
    momentum: float = 0.9,
    training_mode: int = 0,
    outputs: int = 1,
) -> Any:
    wide = (1, -1, *[1] * (x.ndim - 2))
    if training_mode:
        axes = (0, *range(2, x.ndim))
        y, batch, inverse = normalized(x, axes, epsilon)
        spread = ops.reshape(ops.subtract(ops.divide(1.0, ops.square(inverse)), epsilon), (-1,))
        moved = [
            ops.add(ops.multiply(old, momentum), ops.multiply(new, 1.0 - momentum))
            for old, new in ((mean, ops.reshape(batch, (-1,))), (var, spread))
        ]
    else:
        inverse = ops.divide(1.0, ops.sqrt(ops.add(ops.reshape(var, wide), epsilon)))
        y, moved = ops.multiply(ops.subtract(x, ops.reshape(mean, wide)), inverse), []
    y = ops.add(ops.multiply(y, ops.reshape(scale, wide)), ops.reshape(bias, wide))
    return (y, *moved) if outputs > 1 else y


def instance_norm(x: Any, scale: Any, bias: Any, *, epsilon: float = 1e-5) -> Any:
    wide = (1, -1, *[1] * (x.ndim - 2))
    y = normalized(x, tuple(range(2, x.ndim)), epsilon)[0]
    return ops.add(ops.multiply(y, ops.reshape(scale, wide)), ops.reshape(bias, wide))


def group_norm(
    x: Any, scale: Any, bias: Any, *, num_groups: int, epsilon: float = 1e-5, stash_type: int = 1
) -> Any:
    """With a scale and a bias for each channel, as from version 21 on."""
    if scale.shape[0] != x.shape[1]:
        refuse("a scale for each group: opset 18 to 20")
    n, wide = x.shape[0], (1, -1, *[1] * (x.ndim - 2))
    grouped = ops.reshape(x, (n, num_groups, -1))
    y = ops.reshape(normalized(grouped, (2,), epsilon)[0], tuple(x.shape))
    return ops.add(ops.multiply(y, ops.reshape(scale, wide)), ops.reshape(bias, wide))


def mean_variance(x: Any, *, axes: Any = (0, 2, 3)) -> Any:
    return normalized(x, tuple(a % x.ndim for a in axes), 1e-9)[0]


def einsum(*xs: Any, equation: str) -> Any:
    return ops.einsum(equation.replace(" ", ""), *xs)


def nll(x: Any, target: Any, weight: Any = None, **options: Any) -> Any:
    return nn.NLLLoss(weight=held(weight), **loss_options(options))(x, target)


def cross_entropy(
    x: Any, target: Any, weight: Any = None, *, outputs: int = 1, **options: Any
) -> Any:
    loss = nn.CrossEntropyLoss(weight=held(weight), **loss_options(options))(x, target)
    return (loss, ops.log_softmax(x, 1)) if outputs > 1 else loss


def held(weight: Any) -> Any:
    known = weight is None or isinstance(weight, np.ndarray)
    return weight if known else refuse("weights that are computed, where a loss holds them")


def loss_options(options: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in options.items() if k in ("ignore_index", "reduction")}
