"""PyTorch's ops written in gpubp: what takes their arguments, by their names, for `op_database`.

Each computes with `gp.ops` and `gp.nn` alone, and raises `RefusedError` for an option that gpubp
has not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

from gpubp import nn, ops


class RefusedError(Exception):
    """gpubp has no such option; the text says which."""


def refuse(why: str) -> NoReturn:
    raise RefusedError(why)


def no(why: str, *given: Any) -> None:
    """Refuse if one of these options is on."""
    if any(g not in (None, False) for g in given):
        refuse(why)


def dims(x: Any, dim: Any) -> Any:
    if dim is None or (isinstance(dim, (tuple, list)) and not len(dim)):
        return None
    return tuple(dim) if isinstance(dim, (tuple, list)) else dim


def scaled(x: Any, alpha: Any) -> Any:
    if isinstance(alpha, float) and np.dtype(x.dtype).kind != "f":
        refuse("fractions of whole numbers")
    return x if alpha is None or alpha == 1 else ops.multiply(x, alpha)


def reduced(fn: Callable[..., Any]) -> Callable[..., Any]:
    def adapted(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
        x = x if dtype is None else ops.astype(x, dtype_name(dtype))
        if not x.ndim:  # dim=0 and -1 of a scalar are axes there
            return ops.reshape(fn(ops.reshape(x, (1,))), ())
        return fn(x, dims(x, dim), keepdims=keepdim)

    return adapted


def dtype_name(dtype: Any) -> str:
    name = str(dtype).removeprefix("torch.")
    if name not in ("bool", "int32", "int64", "float32", "float64"):
        refuse(f"gpubp has no {name}")
    return name


def with_indices(value: Callable[..., Any], index: Callable[..., Any]) -> Callable[..., Any]:
    """torch.max(x, dim) gives both; its gradient goes to the one at the index."""

    def adapted(x: Any, dim: int, keepdim: bool = False) -> Any:
        if not x.ndim:
            return ops.copy(x), ops.multiply(ops.astype(x, "int64"), 0)
        return value(x, dim, keepdim), index(x, dim, keepdim)

    return adapted


def index_of(fn: Callable[..., Any]) -> Callable[..., Any]:
    def adapted(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
        if not x.ndim:
            return fn(x, None)
        return fn(x, dim, keepdim)

    return adapted


def clamp(x: Any, min: Any = None, max: Any = None) -> Any:
    """By numbers or by arrays; there the gradient at a tie differs from maximum's."""
    if isinstance(min, (int, float)) or isinstance(max, (int, float)):
        if np.dtype(x.dtype).kind != "f":
            refuse("clip gives floats")
        return ops.clip(x, min, max)
    x = x if min is None else ops.maximum(x, min)
    return x if max is None else ops.minimum(x, max)


def reshaped(x: Any, *shape: Any) -> Any:
    wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    if not all(isinstance(n, int) for n in wanted):
        refuse("views as another dtype")
    return ops.reshape(x, tuple(wanted))


def expanded(x: Any, *shape: Any) -> Any:
    wanted = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    extra = len(wanted) - x.ndim
    known = [x.shape[i - extra] if n == -1 else n for i, n in enumerate(wanted)]
    return ops.broadcast_to(x, tuple(known))


def item(x: Any, key: Any) -> Any:
    parts = key if isinstance(key, tuple) else (key,)
    arrays = [p for p in parts if hasattr(p, "dtype") or isinstance(p, list)]
    if any(np.asarray(a).dtype.kind == "b" for a in arrays if not hasattr(a, "node")):
        refuse("boolean masks as keys: shapes are static")
    if any(isinstance(p, bool) for p in parts):
        refuse("booleans as keys")
    if arrays and (isinstance(key, tuple) or np.ndim(arrays[0]) == 0):
        refuse("arrays among other keys")
    if any((np.asarray(a) < 0).any() for a in arrays):
        refuse("negative indices in arrays")
    return ops.getitem(x, key)


def squeezed(x: Any, dim: Any = None) -> Any:
    """Axes of other sizes are passed over there."""
    axes = range(x.ndim) if dim is None else dim if isinstance(dim, (tuple, list)) else (dim,)
    if not x.ndim:
        return ops.copy(x)
    ones = sorted({a % x.ndim for a in axes if x.shape[a] == 1})
    return ops.squeeze(x, tuple(ones))


def flattened(x: Any, start_dim: int = 0, end_dim: int = -1) -> Any:
    return ops.flatten(x, start_dim, end_dim)


def transposed(x: Any, a: int = 0, b: int = 1) -> Any:
    return ops.copy(x) if x.ndim < 1 or (x.ndim < 2 and (a, b) == (0, 1)) else ops.swapaxes(x, a, b)


def permuted(x: Any, *dims: Any) -> Any:
    axes = dims[0] if len(dims) == 1 and isinstance(dims[0], (tuple, list)) else dims
    return ops.transpose(x, tuple(axes))


def cat(tensors: Sequence[Any], dim: int = 0) -> Any:
    """Empty 1-D arrays fit everything there."""
    kept = [t for t in tensors if t.shape != (0,)] or list(tensors[:1])
    return ops.concat(kept, dim)


def index_select(x: Any, dim: int, index: Any) -> Any:
    if not x.ndim:
        refuse("indices of a scalar")
    return ops.gather(x, ops.reshape(index, (-1,)), dim % x.ndim)


def index_add(x: Any, dim: int, index: Any, source: Any, *, alpha: Any = 1) -> Any:
    if not x.ndim:
        refuse("indices of a scalar")
    axis = dim % x.ndim
    index = ops.reshape(index, (-1,))
    return ops.add(x, scaled(ops.scatter_add(source, index, x.shape[axis], axis), alpha))


def narrow(x: Any, dim: int, start: Any, length: int) -> Any:
    if not isinstance(start, int):
        refuse("a start that is an array")
    return sliced(x, dim, start % x.shape[dim] if start < 0 else start, None, 1, length)


def sliced(
    x: Any, dim: int = 0, start: Any = None, end: Any = None, step: int = 1, length: Any = None
) -> Any:
    key: list[Any] = [slice(None)] * x.ndim
    key[dim] = slice(start, start + length if length is not None else end, step)
    return ops.getitem(x, tuple(key))


def selected(x: Any, dim: int, index: int) -> Any:
    key: list[Any] = [slice(None)] * x.ndim
    key[dim] = index
    return ops.getitem(x, tuple(key))


def flip(x: Any, dims: Sequence[int]) -> Any:
    key: list[Any] = [slice(None)] * x.ndim
    for a in dims:
        key[a] = slice(None, None, -1)
    return ops.getitem(x, tuple(key))


def unbind(x: Any, dim: int = 0) -> Any:
    return tuple(selected(x, dim, i) for i in range(x.shape[dim]))


def addmm(c: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    return ops.add(scaled(c, beta), scaled(ops.matmul(a, b), alpha))


def addbmm(c: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    return ops.add(scaled(c, beta), scaled(ops.sum(ops.matmul(a, b), 0), alpha))


def outer(a: Any, b: Any) -> Any:
    return ops.multiply(ops.expand_dims(a, 1), b)


def addr(c: Any, a: Any, b: Any, *, beta: Any = 1, alpha: Any = 1) -> Any:
    return ops.add(scaled(c, beta), scaled(outer(a, b), alpha))


def inner(a: Any, b: Any) -> Any:
    if not a.ndim or not b.ndim:
        return ops.multiply(a, b)
    b = b if b.ndim == 1 else ops.reshape(b, (-1, b.shape[-1]))
    return ops.matmul(a, b if b.ndim == 1 else ops.transpose(b))


def lerp(a: Any, b: Any, weight: Any) -> Any:
    return ops.add(a, ops.multiply(weight, ops.subtract(b, a)))


def one_hot(x: Any, num_classes: int = -1) -> Any:
    if num_classes < 0:
        refuse("a number of classes that follows from the numbers: shapes are static")
    return ops.one_hot(x, num_classes, "int64")


def embedding(weight: Any, indices: Any, **options: Any) -> Any:
    names = ("padding_idx", "max_norm", "scale_grad_by_freq", "sparse")
    no("options of an embedding beside its table", *[options.get(n) for n in names])
    return ops.gather(weight, indices)


def softplus(x: Any, beta: float = 1.0, threshold: float = 20.0) -> Any:
    return ops.softplus(x, beta, threshold)


def threshold(x: Any, threshold: float, value: float, inplace: bool = False) -> Any:
    return ops.threshold(x, threshold, value)


def floating(fn: Callable[..., Any], why: str) -> Callable[..., Any]:
    """Of floats alone: of whole numbers torch makes other numbers."""

    def adapted(x: Any, *args: Any, **kwargs: Any) -> Any:
        if np.dtype(x.dtype).kind != "f":
            refuse(why)
        return fn(x, *args, **kwargs)

    return adapted


def option(fn: Callable[..., Any], *names: str) -> Callable[..., Any]:
    """An activation: options by torch's names or by position, `inplace` passed over."""

    def adapted(x: Any, *args: Any, **kwargs: Any) -> Any:
        kwargs.pop("inplace", None)
        given = [*args, *[kwargs.pop(n) for n in names[len(args) :] if n in kwargs]]
        if kwargs:
            refuse(f"options {sorted(kwargs)}")
        return fn(x, *given)

    return adapted


def soft(fn: Callable[..., Any]) -> Callable[..., Any]:
    def adapted(x: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
        x = x if dtype is None else ops.astype(x, dtype_name(dtype))
        if dim is None:
            refuse("a dimension by default, which torch deprecates")
        if not x.ndim:
            refuse("a softmax of a scalar")
        return fn(x, dim)

    return adapted


def attention(
    query: Any,
    key: Any,
    value: Any,
    attn_mask: Any = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Any:
    """softmax(Q K^T scale + mask) V, in ops."""
    if dropout_p:
        refuse("dropout draws other numbers")
    if enable_gqa:
        refuse("grouped heads")
    scale = 1.0 / math.sqrt(query.shape[-1]) if scale is None else scale
    scores = ops.multiply(ops.matmul(query, ops.swapaxes(key, -1, -2)), scale)
    if is_causal:
        attn_mask = np.tril(np.ones(scores.shape[-2:], bool))
    if attn_mask is not None:
        kind = np.dtype(attn_mask.dtype).kind
        hidden = ops.add if kind == "f" else lambda s, m: ops.where(m, s, -np.inf)
        scores = hidden(scores, attn_mask)
    return ops.matmul(ops.softmax(scores, -1), value)


def loss(name: str, inputs: int = 2, **renamed: str) -> Callable[..., Any]:
    """A loss of gp.nn, from the function of torch: arrays first, options by name."""

    def adapted(*args: Any, **kwargs: Any) -> Any:
        options = {renamed.get(k, k): v for k, v in kwargs.items() if v is not None}
        size = [options.pop(k, None) for k in ("size_average", "reduce")]
        no("size_average and reduce, which torch deprecates", *size)
        arrays, rest = args[:inputs], args[inputs:]
        if rest:
            refuse("options by position")
        if any(hasattr(options.get(k), "node") for k in ("weight", "pos_weight")):
            refuse("weights that are computed, where a loss holds them")
        return getattr(nn, name)(**options)(*arrays)

    return adapted


def labels(name: str) -> Callable[..., Any]:
    """A loss of labels: there -100 is passed over by default."""
    made = loss(name)

    def adapted(x: Any, target: Any, **kwargs: Any) -> Any:
        if np.dtype(target.dtype).kind == "f":
            kwargs.pop("ignore_index", None)
        elif (np.asarray(target) == -100).any() and "ignore_index" not in kwargs:
            kwargs["ignore_index"] = -100
        return made(x, target, **kwargs)

    return adapted


def layer_norm(
    x: Any, normalized_shape: Any, weight: Any = None, bias: Any = None, eps: float = 1e-5
) -> Any:
    y = nn.LayerNorm(list(normalized_shape), eps, elementwise_affine=False)(x)
    y = y if weight is None else ops.multiply(y, weight)
    return y if bias is None else ops.add(y, bias)


def rms_norm(x: Any, normalized_shape: Any, weight: Any = None, eps: Any = None) -> Any:
    y = nn.RMSNorm(list(normalized_shape), eps, elementwise_affine=False)(x)
    return y if weight is None else ops.multiply(y, weight)


def bilinear(a: Any, b: Any, weight: Any, bias: Any = None) -> Any:
    """x1^T W x2 for each output."""
    out, first, second = weight.shape
    left = ops.matmul(
        ops.reshape(a, (-1, first)),
        ops.reshape(ops.transpose(weight, (1, 0, 2)), (first, out * second)),
    )
    left = ops.reshape(left, (-1, out, second))
    y = ops.sum(ops.multiply(left, ops.reshape(b, (-1, 1, second))), -1)
    y = ops.reshape(y, (*a.shape[:-1], out))
    return y if bias is None else ops.add(y, bias)


def cast(dtype: str) -> Callable[..., Any]:
    def adapted(x: Any, memory_format: Any = None) -> Any:
        return ops.astype(x, dtype)

    return adapted


def dropout(x: Any, p: float = 0.5, training: bool = True, inplace: bool = False) -> Any:
    if training and 0.0 < p < 1.0:
        refuse("other random numbers")
    return ops.dropout(x, p, training)


def masked_fill(x: Any, mask: Any, value: Any) -> Any:
    if x.dtype == bool and not isinstance(value, bool):
        refuse("numbers among booleans: where takes both to one dtype")
    return ops.where(mask, value, x)


def where(condition: Any, x: Any, other: Any) -> Any:
    return ops.where(condition, x, other)


def div(a: Any, b: Any, *, rounding_mode: Any = None) -> Any:
    no("rounded division", rounding_mode)
    return ops.divide(a, b)


def like_shape(fn: Callable[..., Any]) -> Callable[..., Any]:
    return lambda x, other: fn(x, other.shape)


def unflatten(x: Any, dim: int, sizes: Any) -> Any:
    axis = dim % x.ndim
    rest = x.shape[axis + 1 :]
    if -1 in sizes:
        known = -math.prod(sizes)
        sizes = [x.shape[axis] // known if n == -1 else n for n in sizes]
    return ops.reshape(x, (*x.shape[:axis], *sizes, *rest))


def reflected(traced: Callable[..., Any], at_once: Callable[..., Any]) -> Callable[..., Any]:
    """b o a: by the operator where one is traced; NumPy arrays would do it themselves."""
    return lambda a, b: traced(b, a) if hasattr(a, "node") else at_once(b, a)


def same(x: Any, memory_format: Any = None) -> Any:
    return ops.copy(x)
