"""PyTorch's ops of order, running results, index arrays and small matrices, for `op_database`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import op_adapters as adapt

from gpubp import ops


def floats(x: Any) -> Any:
    if np.dtype(x.dtype).kind != "f":
        adapt.refuse("floats of whole numbers")
    return x


def cumulative(fn: Callable[..., Any]) -> Callable[..., Any]:
    def adapted(x: Any, dim: int, *, dtype: Any = None) -> Any:
        return fn(x, dim, None if dtype is None else adapt.dtype_name(dtype))

    return adapted


def scatter(x: Any, dim: int, index: Any, src: Any, *, reduce: str | None = None) -> Any:
    if isinstance(src, float) and np.dtype(x.dtype).kind != "f":
        adapt.refuse("fractions of whole numbers")
    if reduce is None:
        return ops.scatter(x, dim, index, src)
    return ops.scatter_reduce(x, dim, index, src, {"add": "sum", "multiply": "prod"}[reduce])


def reduced(kind: str) -> Callable[..., Any]:
    def adapted(
        x: Any, dim: int, index: Any, src: Any, reduce: str, *, include_self: bool = True
    ) -> Any:
        if np.dtype(x.dtype).kind == "b":
            adapt.refuse("sums of booleans")
        return ops.scatter_reduce(x, dim, index, src, kind, include_self)

    return adapted


def quantile(
    x: Any, q: Any, dim: Any = None, keepdim: bool = False, *, interpolation: str = "linear"
) -> Any:
    return ops.quantile(x, np.asarray(q), dim, keepdim, interpolation)


def slogdet(x: Any) -> Any:
    return tuple(ops.slogdet(x))


def solve(a: Any, b: Any, *, left: bool = True) -> Any:
    adapt.no("solve from the right", not left)
    return ops.solve(a, b)


def ordered(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Which of equal numbers is named first is chance there, unless it sorts stably."""

    def adapted(x: Any, *args: Any, stable: bool = False, **options: Any) -> Any:
        if np.dtype(x.dtype).kind != "f" and not stable:
            adapt.refuse("places of equal numbers in an order of chance")
        return fn(x, *args, **options)

    return adapted


def gather(x: Any, dim: int, index: Any) -> Any:
    if index.ndim != x.ndim and 0 in index.shape:
        adapt.refuse("no indices, of another number of axes")
    return ops.gather_along(x, dim, index)


def log_sums(x: Any, dim: int) -> Any:
    if x.dtype == np.float32 and x.size > 100:
        adapt.refuse("numbers of 1e4, where PyTorch's gradient in float32 keeps three digits")
    return ops.logcumsumexp(floats(x), dim)


TABLE: dict[str, Callable[..., Any]] = {
    "sort": ordered(ops.sort),
    "argsort": ordered(ops.argsort),
    "msort": lambda x: ops.msort(x) if x.ndim else ops.sort(x)[0],
    "topk": ordered(ops.topk),
    "kthvalue": ordered(ops.kthvalue),
    "median": ops.median,
    "nanmedian": ops.nanmedian,
    "quantile": quantile,
    "cumsum": cumulative(ops.cumsum),
    "cumprod": cumulative(ops.cumprod),
    "cummax": ops.cummax,
    "cummin": ops.cummin,
    "logcumsumexp": log_sums,
    "diff": ops.diff,
    "gather": gather,
    "take_along_dim": ops.take_along_dim,
    "take": ops.take,
    "put": ops.put,
    "index_select": ops.index_select,
    "index_add": ops.index_add,
    "index_copy": ops.index_copy,
    "index_fill": ops.index_fill,
    "scatter": scatter,
    "scatter_add": ops.scatter_add_along,
    **{f"scatter_reduce/{k}": reduced(k) for k in ("sum", "mean", "amax", "amin", "prod")},
    "linalg.inv": ops.inv,
    "linalg.det": ops.det,
    "linalg.slogdet": slogdet,
    "linalg.solve": solve,
    "linalg.solve_triangular": ops.solve_triangular,
    "linalg.cholesky": ops.cholesky,
    "cholesky": lambda x, upper=False: ops.cholesky(x, upper=upper),
    "linalg.matrix_power": ops.matrix_power,
}
