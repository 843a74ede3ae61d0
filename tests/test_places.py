"""Order, running results, index arrays and small matrices: programs, gradients, what is refused."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpubp as gp
from gpubp import ops
from gpubp.errors import (
    ArgumentError,
    DataError,
    GpubpError,
    IndexRangeError,
    ShapeError,
    TraceError,
)

sys.path.insert(0, str(Path(__file__).parent / "cuda"))
from place_calls import COUNT_CALLS, PLACE_CALLS, place_operands

OPERANDS = {
    k: v.astype(np.float64) if v.dtype.kind == "f" else v for k, v in place_operands().items()
}
FLOATS = [k for k, v in OPERANDS.items() if v.dtype.kind == "f"]
X = OPERANDS["m"]


def _loss(name: str, values: list[Any]) -> Any:
    found = PLACE_CALLS[name]({**OPERANDS, **dict(zip(FLOATS, values, strict=True))})
    return ops.sum(ops.multiply(ops.sin(found), found))


@pytest.mark.parametrize("name", list(PLACE_CALLS))
def test_first_and_second_differences(name: str) -> None:
    rng = np.random.default_rng(4)
    at = [OPERANDS[k] for k in FLOATS]
    way = [rng.normal(size=v.shape) for v in at]
    if name == "cholesky":
        way = [v + v.swapaxes(-1, -2) if v.shape == (2, 3, 3) else v for v in way]
    every = tuple(range(len(at)))

    def slope(*values: Any) -> Any:
        parts = gp.grad(lambda *v: _loss(name, list(v)), argnums=every)(*values)
        total: Any = 0.0
        for part, w in zip(parts, way, strict=True):
            total = ops.add(total, ops.sum(ops.multiply(part, w)))
        return total

    run = gp.compile(slope, backend="numba")
    again = gp.compile(lambda *v: gp.grad(slope, argnums=every)(*v), backend="numba")
    h = 1e-5
    ends = [[v + s * h * w for v, w in zip(at, way, strict=True)] for s in (1, -1)]
    first = (_loss(name, ends[0]) - _loss(name, ends[1])) / (2 * h)
    np.testing.assert_allclose(run(*at), first, rtol=1e-6, atol=1e-7)
    second = (run(*ends[0]) - run(*ends[1])) / (2 * h)
    found = sum(np.sum(p * w) for p, w in zip(again(*at), way, strict=True))
    np.testing.assert_allclose(found, second, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", [*PLACE_CALLS, *COUNT_CALLS])
def test_programs_equal_numpy(name: str) -> None:
    call = {**PLACE_CALLS, **COUNT_CALLS}[name]
    expected = np.asarray(call(OPERANDS))
    for backend in ("numpy", "numba"):
        found = np.asarray(gp.compile(call, backend=backend)(OPERANDS))
        assert found.dtype == expected.dtype
        np.testing.assert_allclose(found, expected, rtol=1e-12, atol=1e-13)


KEYS: list[Any] = [
    (slice(None), [0, -1]),
    ([0, -1], slice(1, 3)),
    ([[0], [1]], [1, -2]),
    X > 0,
    (0, [1, -2]),
    (None, [0, -2]),
    (slice(None), X[0] > 0),
    (..., [1, 1], None),
]


@pytest.mark.parametrize("key", KEYS)
def test_keys_are_numpys(key: Any) -> None:
    expected = X[key]
    np.testing.assert_array_equal(ops.getitem(X, key), expected)
    np.testing.assert_array_equal(gp.compile(lambda x: x[key], backend="numba")(X), expected)


def test_keys_apart_come_first_as_in_numpy() -> None:
    y = np.arange(24.0).reshape(2, 3, 4)
    index = np.array([1, -2, 0])
    run = gp.compile(lambda y, i: y[0, :, i], backend="numba")
    np.testing.assert_array_equal(run(y, index), y[0, :, index])


def test_indices_of_several_axes_in_another_order() -> None:
    x, i = np.arange(20.0), np.random.default_rng(0).integers(0, 20, (2, 3, 4))
    run = gp.compile(lambda x, i: ops.gather(x, ops.transpose(i, (2, 0, 1))) * 2.0, backend="numba")
    np.testing.assert_array_equal(run(x, i), 2 * x[i.transpose(2, 0, 1)])


def test_nan_is_the_largest() -> None:
    x = np.array([1.0, np.nan, -2.0, np.nan])
    assert ops.argsort(x).tolist() == [2, 0, 1, 3]
    assert ops.argsort(x, descending=True).tolist() == [1, 3, 0, 2]
    assert np.isnan(ops.median(x)) and ops.nanmedian(x) == -2.0


def test_last_update_stands_and_sizes_from_values_are_found() -> None:
    same = np.array([1, 1, 0])
    known = gp.compile(lambda x: ops.put(x, same, [1.0, 2.0, 3.0]))
    asked = gp.compile(lambda x, i: ops.put(x, i, [1.0, 2.0, 3.0]))
    assert known(np.zeros(3)).tolist() == asked(np.zeros(3), same).tolist() == [3.0, 2.0, 0.0]
    assert ops.unique(np.array([3, 1, 3])).tolist() == [1, 3]
    assert (
        ops.nonzero(np.array([0, 2])).tolist() == ops.argwhere(np.array([0, 2])).tolist() == [[1]]
    )
    assert ops.masked_select(X, X > 1).tolist() == X[X > 1].tolist()


class Unreadable:
    """What cannot be made an array, and says so in words of its own."""

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise RuntimeError("no array")


REFUSED: dict[str, tuple[type[GpubpError], Callable[[Any], Any]]] = {
    "unique": (TraceError, ops.unique),
    "mask": (TraceError, lambda x: x[x > 0]),
    "topk": (ShapeError, lambda x: ops.topk(x, 9)),
    "places": (IndexRangeError, lambda x: ops.gather_along(x, 0, np.full((1, 4), 3))),
    "computed": (DataError, lambda x: ops.take(x, ops.astype(ops.sum(x) * 0.0 + 99, "int64"))),
    "singular": (DataError, lambda x: ops.inv(ops.matmul(x[:, :1], x[:1, :3]) * 0.0)),
    "rows": (ShapeError, ops.det),
    "quantile": (ArgumentError, lambda x: ops.quantile(x, Unreadable())),
    "mask that does not fit": (ShapeError, lambda x: ops.masked_select(x, np.ones(7, bool))),
}


def test_unique_knows_its_axes() -> None:
    with pytest.raises(ShapeError, match="unique"):
        ops.unique(X, dim=-9)
    assert ops.unique(np.ones((3, 2)), dim=-2).shape == (1, 2)


@pytest.mark.parametrize("name", list(REFUSED))
def test_refused(name: str) -> None:
    error, call = REFUSED[name]
    with pytest.raises(error):
        gp.compile(call, backend="numba")(X)
