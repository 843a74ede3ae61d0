"""Rules of sums, means, extremes, sorting and running sums."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.torch.rules import rule, same

same(
    {
        "argsort": ops.argsort,
        "argsort.stable": lambda x, stable=True, dim=-1, descending=False: ops.argsort(
            x, dim, descending, bool(stable)
        ),
        "cummax": ops.cummax,
        "cummin": ops.cummin,
        "logcumsumexp": ops.logcumsumexp,
        "kthvalue": ops.kthvalue,
        "median": ops.median,
        "median.dim": ops.median,
        "nanmedian": ops.nanmedian,
        "msort": ops.msort,
        "sort": ops.sort,
        "topk": ops.topk,
        "diff": ops.diff,
        "trace": ops.trace,
        "bincount": ops.bincount,
    }
)


def _axes(x: Any, dim: Any) -> Any:
    """None for all; a tuple for several."""
    if dim is None or (isinstance(dim, (list, tuple)) and not len(dim)):
        return None
    return tuple(dim) if isinstance(dim, (list, tuple)) else dim


def _reduced(fn: Callable[..., Any], x: Any, dim: Any, keepdim: bool) -> Any:
    if not len(x.shape):  # dim=0 and -1 of a scalar are axes in torch
        return ops.reshape(fn(ops.reshape(x, (1,))), ())
    return fn(x, _axes(x, dim), bool(keepdim))


def _whole(x: Any, dtype: Any) -> Any:
    """In the dtype of the result: torch adds booleans and narrow integers as int64."""
    if dtype is not None:
        return ops.astype(x, dtype)
    return x if np.dtype(x.dtype).kind == "f" else ops.astype(x, "int64")


@rule("sum")
def total(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """The sum over axes."""
    return _reduced(ops.sum, _whole(x, dtype), dim, keepdim)


@rule("nansum")
def nansum(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """The sum of what is a number."""
    return _reduced(ops.nansum, _whole(x, dtype), dim, keepdim)


@rule("mean")
def mean(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """The mean over axes."""
    return _reduced(ops.mean, x if dtype is None else ops.astype(x, dtype), dim, keepdim)


@rule("nanmean")
def nanmean(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """The mean of what is a number."""
    return _reduced(ops.nanmean, x, dim, keepdim)


@rule("prod")
def prod(x: Any, dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Any:
    """The product over axes."""
    return _reduced(ops.prod, _whole(x, dtype), dim, keepdim)


@rule("prod.default")
def prod_of_all(x: Any, dtype: Any = None) -> Any:
    """The product of all."""
    return _reduced(ops.prod, _whole(x, dtype), None, False)


@rule("sum.default")
def sum_of_all(x: Any, dtype: Any = None) -> Any:
    """The sum of all."""
    return _reduced(ops.sum, _whole(x, dtype), None, False)


@rule("mean.default")
def mean_of_all(x: Any, dtype: Any = None) -> Any:
    """The mean of all."""
    return _reduced(ops.mean, x if dtype is None else ops.astype(x, dtype), None, False)


@rule("amax")
def amax(x: Any, dim: Any = (), keepdim: bool = False) -> Any:
    """The largest; its gradient is shared by equals."""
    return _reduced(ops.amax, x, dim, keepdim)


@rule("amin")
def amin(x: Any, dim: Any = (), keepdim: bool = False) -> Any:
    """The smallest; its gradient is shared by equals."""
    return _reduced(ops.amin, x, dim, keepdim)


@rule("aminmax")
def aminmax(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Both."""
    return _reduced(ops.amin, x, dim, keepdim), _reduced(ops.amax, x, dim, keepdim)


@rule("max.default")
def max_of_all(x: Any) -> Any:
    """The largest of all."""
    return _reduced(ops.amax, x, None, False)


@rule("min.default")
def min_of_all(x: Any) -> Any:
    """The smallest of all."""
    return _reduced(ops.amin, x, None, False)


@rule("max.dim")
def max_along(x: Any, dim: int, keepdim: bool = False) -> Any:
    """The largest along an axis, and where it is: its gradient goes there."""
    return _at(ops.argmax, x, dim, keepdim)


@rule("min.dim")
def min_along(x: Any, dim: int, keepdim: bool = False) -> Any:
    """The smallest along an axis, and where it is: its gradient goes there."""
    return _at(ops.argmin, x, dim, keepdim)


def _at(fn: Callable[..., Any], x: Any, dim: int, keepdim: bool) -> Any:
    if not len(x.shape):
        return ops.copy(x), ops.multiply(ops.astype(x, "int64"), 0)
    places = fn(x, dim, True)
    found = ops.gather_along(x, dim, places)
    if keepdim:
        return found, places
    return ops.squeeze(found, dim), ops.squeeze(places, dim)


@rule("argmax")
def argmax(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """Where the largest is."""
    return ops.argmax(x, dim, bool(keepdim))


@rule("argmin")
def argmin(x: Any, dim: int | None = None, keepdim: bool = False) -> Any:
    """Where the smallest is."""
    return ops.argmin(x, dim, bool(keepdim))


@rule("any")
def any_of(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Whether one is not 0."""
    return _reduced(ops.any, x, dim, keepdim)


@rule("all")
def all_of(x: Any, dim: Any = None, keepdim: bool = False) -> Any:
    """Whether none is 0."""
    return _reduced(ops.all, x, dim, keepdim)


@rule("count_nonzero")
def count_nonzero(x: Any, dim: Any = None) -> Any:
    """How many are not 0."""
    return ops.count_nonzero(x, _axes(x, dim))


@rule("logsumexp", "special_logsumexp")
def logsumexp(x: Any, dim: Any, keepdim: bool = False) -> Any:
    """log of the sum of exp(x)."""
    return _reduced(ops.logsumexp, x, dim, keepdim)


def _correction(unbiased: Any, correction: Any) -> float:
    if correction is not None:
        return float(correction)
    return float(unbiased)


def _spread(fn: Callable[..., Any]) -> Callable[..., Any]:
    def spread(
        x: Any,
        dim: Any = None,
        unbiased: Any = True,
        keepdim: bool = False,
        *,
        correction: Any = 1,
    ) -> Any:
        if isinstance(dim, bool):  # var(x, unbiased)
            dim, unbiased = None, dim
        correction = _correction(unbiased, None if unbiased is not True else correction)
        return fn(x, _axes(x, dim), bool(keepdim), correction=correction)

    return spread


def _corrected(fn: Callable[..., Any]) -> Callable[..., Any]:
    def spread(x: Any, dim: Any = None, *, correction: Any = None, keepdim: bool = False) -> Any:
        found = 1.0 if correction is None else float(correction)
        return fn(x, _axes(x, dim), bool(keepdim), correction=found)

    return spread


for _name, _fn in {
    "var": ops.var,
    "std": ops.std,
    "var_mean": ops.var_mean,
    "std_mean": ops.std_mean,
}.items():
    rule(_name)(_spread(_fn))
    rule(f"{_name}.correction")(_corrected(_fn))


@rule("cumsum")
def cumsum(x: Any, dim: int, dtype: Any = None) -> Any:
    """Sums of all before and this."""
    return ops.cumsum(x, dim, dtype)


@rule("cumprod")
def cumprod(x: Any, dim: int, dtype: Any = None) -> Any:
    """Products of all before and this."""
    return ops.cumprod(x, dim, dtype)


@rule("norm.ScalarOpt_dim", "norm.ScalarOpt_dim_dtype", "linalg_vector_norm")
def vector_norm(
    x: Any, ord: Any = 2, dim: Any = None, keepdim: bool = False, dtype: Any = None
) -> Any:
    """(sum |x|^ord)^(1/ord)."""
    x = x if dtype is None else ops.astype(x, dtype)
    return ops.vector_norm(x, 2.0 if ord is None else float(ord), _axes(x, dim), bool(keepdim))


@rule("norm.Scalar", "norm")
def norm(x: Any, p: Any = 2) -> Any:
    """Of all elements."""
    return ops.vector_norm(x, 2.0 if p is None else float(p))


@rule("quantile", "quantile.scalar")
def quantile(
    x: Any, q: Any, dim: Any = None, keepdim: bool = False, interpolation: str = "linear"
) -> Any:
    """Numbers below which shares lie."""
    return ops.quantile(x, q, dim, bool(keepdim), interpolation)
