"""Calls of the ops of order, index arrays and small matrices, for tests of devices and programs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp import ops

Call = Callable[[dict[str, Any]], Any]


def place_operands() -> dict[str, NDArray[Any]]:
    """A matrix, another one, places in it, and square matrices."""
    rng = np.random.default_rng(3)
    found: dict[str, NDArray[Any]] = {"m": rng.permutation(12).reshape(3, 4).astype(np.float32)}
    found["m"] = found["m"] / 4 - 1.3
    found["n"] = rng.normal(size=(3, 4)).astype(np.float32)
    found["rows"] = np.array([[2, 0, 1, 1], [0, -1, 2, 0], [1, 1, 0, 2]], np.int64)
    found["line"] = np.array([2, -3], np.int64)
    found["pairs"] = np.array([[1, 2], [0, -1]], np.int64)
    found["square"] = (rng.normal(size=(2, 3, 3)) + 3 * np.eye(3)).astype(np.float32)
    found["definite"] = (found["square"] @ found["square"].swapaxes(1, 2)).astype(np.float32)
    found["right"] = rng.normal(size=(2, 3, 2)).astype(np.float32)
    return found


# Smooth around the operands: values and gradients.
PLACE_CALLS: dict[str, Call] = {
    "cholesky": lambda a: ops.cholesky(a["definite"]),
    "cummax": lambda a: ops.cummax(a["m"], 1)[0],
    "cummin": lambda a: ops.cummin(a["m"], 0)[0],
    "cumprod": lambda a: ops.cumprod(a["m"], 1),
    "cumsum": lambda a: ops.cumsum(a["m"], 0),
    "det": lambda a: ops.det(a["square"]),
    "diff": lambda a: ops.diff(a["m"], 2, prepend=a["n"]),
    "gather_along": lambda a: ops.gather_along(a["m"], 0, a["rows"]),
    "gather_nd": lambda a: ops.gather_nd(a["m"], a["pairs"]),
    "index_add": lambda a: ops.index_add(a["m"], 0, a["line"], a["n"][:2], alpha=2.0),
    "index_copy": lambda a: ops.index_copy(a["m"], 0, a["line"], a["n"][:2]),
    "index_fill": lambda a: ops.index_fill(a["m"], 0, a["line"], 2.5),
    "index_select": lambda a: ops.index_select(a["m"], 1, a["line"]),
    "cdist": lambda a: ops.cdist(a["m"], a["n"]),
    "eigh": lambda a: ops.eigh(a["definite"])[0],
    "pdist": lambda a: ops.pdist(a["m"]),
    "pinv": lambda a: ops.pinv(a["right"]),
    "qr": lambda a: ops.qr(a["right"])[0],
    "rrelu": lambda a: ops.rrelu(a["n"]),
    "svd": lambda a: ops.svd(a["right"], False)[1],
    "tensor_split": lambda a: ops.tensor_split(a["m"], 3, 1)[1],
    "inv": lambda a: ops.inv(a["square"]),
    "kthvalue": lambda a: ops.kthvalue(a["m"], 2)[0],
    "logcumsumexp": lambda a: ops.logcumsumexp(a["m"], 1),
    "matrix_power": lambda a: ops.matrix_power(a["square"], 3),
    "median": lambda a: ops.median(a["m"], 0)[0],
    "msort": lambda a: ops.msort(a["m"]),
    "nanmedian": lambda a: ops.nanmedian(a["m"]),
    "put": lambda a: ops.put(a["m"], a["line"], a["n"][0, :2]),
    "quantile": lambda a: ops.quantile(a["m"], [0.2, 0.7], 1),
    "scatter": lambda a: ops.scatter(a["m"], 0, a["rows"], a["n"]),
    "scatter_add_along": lambda a: ops.scatter_add_along(a["m"], 0, a["rows"], a["n"]),
    "scatter_nd": lambda a: ops.scatter_nd(a["m"], a["pairs"], a["n"][0, :2]),
    "scatter_reduce": lambda a: ops.scatter_reduce(a["m"], 0, a["rows"], a["n"], "prod"),
    "slogdet": lambda a: ops.slogdet(a["square"])[1],
    "solve": lambda a: ops.solve(a["square"], a["right"]),
    "solve_triangular": lambda a: ops.solve_triangular(a["square"], a["right"], upper=True),
    "sort": lambda a: ops.sort(a["m"], 0, True)[0],
    "take": lambda a: ops.take(a["m"], a["rows"]),
    "take_along_dim": lambda a: ops.take_along_dim(a["m"], a["rows"], 0),
    "topk": lambda a: ops.topk(a["m"], 2, largest=False)[0],
}
# Whole numbers, and counts.
COUNT_CALLS: dict[str, Call] = {
    "argsort": lambda a: ops.argsort(a["m"], 0),
    "bincount": lambda a: ops.bincount(ops.argsort(a["m"])[0], minlength=5),
    "bucketize": lambda a: ops.bucketize(a["n"], ops.getitem(ops.sort(a["m"])[0], 0)),
    "histc": lambda a: ops.histc(a["n"], 4, -1.0, 1.0),
    "searchsorted": lambda a: ops.searchsorted(ops.sort(a["m"])[0], a["n"], True),
}
# Of sizes that depend on values: NumPy's arrays alone.
HOST_ONLY = ("argwhere", "masked_select", "nonzero", "unique")
