"""Array functions of PyTorch's op database, written in gpubp; see `op_database`."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import op_adapters as adapt

from gpubp import ops

ALIKE = (
    *("tan", "asin", "acos", "atan", "sinh", "cosh", "asinh", "acosh", "atanh", "erfinv", "ceil"),
    *("trunc", "frac", "isinf", "isposinf", "isneginf", "signbit", "exp2", "log2", "log10"),
    *("sinc", "reciprocal", "rsqrt", "deg2rad", "rad2deg", "hypot", "atan2", "copysign"),
    *("heaviside", "fmod", "remainder", "floor_divide", "logaddexp", "logaddexp2", "xlogy"),
    *("nan_to_num", "lerp", "logit", "isnan", "flip", "fliplr", "flipud", "roll", "rot90", "tril"),
    *("triu", "diagonal", "trace", "diag_embed", "masked_fill", "tensordot", "outer", "inner"),
    *("kron", "dot", "hstack", "vstack", "split", "chunk", "unbind", "unflatten"),
    *("tile", "repeat"),
)


def whole_stay(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Of whole numbers PyTorch makes another thing than floats."""
    return adapt.floating(fn, "whole numbers: torch keeps them")


def over(fn: Callable[..., Any]) -> Callable[..., Any]:
    """A reduction over all axes, or some."""
    return adapt.reduced(fn)


def spread(fn: Callable[..., Any]) -> Callable[..., Any]:
    def adapted(
        x: Any,
        dim: Any = None,
        unbiased: Any = None,
        *,
        keepdim: bool = False,
        correction: Any = None,
    ) -> Any:
        if isinstance(dim, bool):
            dim, unbiased = None, dim
        if unbiased is not None:
            correction = int(unbiased)
        if not x.ndim:
            x, dim = ops.reshape(x, (1,)), None
            keepdim = False
        return fn(
            x, adapt.dims(x, dim), keepdim, correction=1 if correction is None else correction
        )

    return adapted


def norm(x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    x = x if dtype is None else ops.astype(x, adapt.dtype_name(dtype))
    if not x.ndim:
        return ops.reshape(ops.norm(ops.reshape(x, (1,)), ord, None), ())
    return ops.norm(x, ord, adapt.dims(x, dim), keepdim)


def logsumexp(x: Any, dim: Any, keepdim: bool = False) -> Any:
    if not x.ndim:
        return ops.reshape(ops.logsumexp(ops.reshape(x, (1,)), 0), ())
    return ops.logsumexp(x, adapt.dims(x, dim), keepdim)


def along(fn: Callable[..., Any]) -> Callable[..., Any]:
    """min and max over axes, which of a scalar are axes of one element."""

    def adapted(x: Any, dim: Any = (), keepdim: bool = False) -> Any:
        if not x.ndim:
            found = fn(ops.reshape(x, (1,)), None, False)
            return found
        return fn(x, adapt.dims(x, dim), keepdim)

    return adapted


def aminmax(x: Any, *, dim: Any = None, keepdim: bool = False) -> Any:
    return along(ops.aminmax)(x, dim, keepdim)


def prod(x: Any, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Any:
    if dtype is not None and adapt.dtype_name(dtype) in ("bool", "int32"):
        adapt.refuse("products of whole numbers are int64")
    return over(ops.prod)(x, dim, keepdim, dtype=dtype)


def counted(x: Any, dim: Any = None) -> Any:
    if not x.ndim:
        return ops.count_nonzero(x)
    return ops.count_nonzero(x, adapt.dims(x, dim))


def rounded(x: Any, *, decimals: int = 0) -> Any:
    return ops.round(x, decimals=decimals)


def repeated(x: Any, repeats: Any, dim: Any = None, *, output_size: Any = None) -> Any:
    return ops.repeat_interleave(x, np.asarray(repeats), dim)


def grid(*arrays: Any, indexing: str = "ij") -> Any:
    if len(arrays) == 1 and isinstance(arrays[0], (list, tuple)):
        arrays = tuple(arrays[0])
    return tuple(ops.meshgrid(*arrays, indexing=indexing))


def parts(x: Any, sizes: Sequence[int], dim: int = 0) -> Any:
    return ops.split(x, list(sizes), dim)


def alike(fn: Callable[..., Any]) -> Callable[..., Any]:
    def adapted(x: Any, *args: Any, dtype: Any = None, **rest: Any) -> Any:
        adapt.no(
            "only plain arrays", *[v for k, v in rest.items() if k not in ("device", "layout")]
        )
        return fn(x, *args, dtype=None if dtype is None else adapt.dtype_name(dtype))

    return adapted


def clamped(x: Any, min: Any = None, max: Any = None) -> Any:
    return ops.clamp(x, min, max)


ARRAYS: dict[str, Callable[..., Any]] = {
    **{name: getattr(ops, name) for name in ALIKE},
    **{name: whole_stay(getattr(ops, name)) for name in ("addcmul", "addcdiv")},
    **{f"round{v}": rounded for v in ("", "/decimals_0", "/decimals_3", "/decimals_neg_3")},
    **{n: spread(getattr(ops, n)) for n in ("var", "std", "var_mean", "std_mean")},
    **{f"{n}/unbiased": spread(getattr(ops, n)) for n in ("var", "std", "var_mean", "std_mean")},
    **{n: along(getattr(ops, n)) for n in ("amax", "amin")},
    **{n: over(getattr(ops, n)) for n in ("any", "all", "nansum", "nanmean")},
    "aminmax": aminmax,
    "einsum": lambda arrays, equation: ops.einsum(equation, *arrays),
    "count_nonzero": counted,
    "prod": prod,
    "linalg.vector_norm": norm,
    "logsumexp": logsumexp,
    "clamp": clamped,
    "repeat_interleave": repeated,
    "movedim": ops.moveaxis,
    "expand": ops.expand,
    "split/list_args": parts,
    "split_with_sizes": parts,
    "meshgrid/variadic_tensors": grid,
    "meshgrid/list_of_tensors": grid,
    "diag": ops.diag,
    **{n: alike(getattr(ops, n)) for n in ("zeros_like", "ones_like", "full_like")},
}
