"""PyTorch's ops written in gpubp: what takes their arguments, by their names, for `op_database`.

Each computes with `gp.ops` and `gp.nn` alone, and raises `RefusedError` for an option that gpubp
has not.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import numpy as np

import gpubp as gp
from gpubp import nn, ops
from gpubp.nn import functional


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
    if any(isinstance(p, bool) for p in parts):
        refuse("booleans as keys")
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


_AXES = ("1d", "2d", "3d")
MAX_POOLS = [f"{kind}_pool{n}" for kind in ("max", "adaptive_max") for n in _AXES]
AVERAGES = [f"{kind}_pool{n}" for kind in ("avg", "adaptive_avg") for n in _AXES]
FRACTIONAL = [f"fractional_max_pool{n}" for n in _AXES[1:]]
UNPOOLS = [f"max_unpool{n}{variant}" for n in _AXES for variant in ("", "/grad")]
OF_WHOLE = "averages of whole numbers are of floats"


def fractional(fn: Callable[..., Any]) -> Callable[..., Any]:
    def adapted(x: Any, *args: Any, _random_samples: Any = None, **kwargs: Any) -> Any:
        if _random_samples is None:
            refuse("other random numbers")
        return fn(x, *args, _random_samples=_random_samples, **kwargs)

    return adapted


def max_pool_backward(x: Any, *, return_indices: bool = False, **window: Any) -> Any:
    """The gradient by x of the sum of all results."""
    return gp.grad(lambda x: ops.sum(ops.max_pool2d(x, **window)))(x)


def soft(fn: Callable[..., Any]) -> Callable[..., Any]:
    def adapted(x: Any, dim: Any = None, _stacklevel: int = 3, dtype: Any = None) -> Any:
        x = x if dtype is None else ops.astype(x, dtype_name(dtype))
        if dim is None:
            refuse("a dimension by default, which torch deprecates")
        if not x.ndim:
            refuse("a softmax of a scalar")
        return fn(x, dim)

    return adapted


def attention(query: Any, key: Any, value: Any, *args: Any, **kwargs: Any) -> Any:
    """Without dropout, which draws other numbers."""
    if kwargs.get("dropout_p") or args[1:2] > (0.0,):
        refuse("dropout draws other numbers")
    return ops.scaled_dot_product_attention(query, key, value, *args, **kwargs)


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


CONVOLUTIONS = [f"conv{kind}{n}d" for kind in ("", "_transpose") for n in (1, 2, 3)]


def normalized(name: str) -> Any:
    """`batch_norm` or `instance_norm`, with running statistics in buffers of their own."""

    def fn(x: Any, running_mean: Any = None, running_var: Any = None, *rest: Any, **kw: Any) -> Any:
        given = (running_mean, running_var)
        kept = [None if value is None else nn.Buffer(value) for value in given]
        return getattr(functional, name)(x, *kept, *rest, **kw)

    return fn


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


def antialiased(
    x: Any, output_size: Any, align_corners: bool, scale_factors: Any = None, **scales: Any
) -> Any:
    """Bilinear, by sizes or by factors."""
    no("factors of one axis beside sizes", *scales.values())
    size = None if output_size is None else tuple(output_size)
    return ops.interpolate(x, size, scale_factors, "bilinear", align_corners, antialias=True)


def grid_sampler(x: Any, grid: Any, mode: int, padding: int, align_corners: bool) -> Any:
    names = ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection")
    return ops.grid_sample(x, grid, names[0][mode], names[1][padding], align_corners)


def same(x: Any, memory_format: Any = None) -> Any:
    return ops.copy(x)
