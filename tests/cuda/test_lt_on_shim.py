"""Products through the library: from rows to columns, epilogues, what follows, updates."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shim_build
from products import FORWARD, Weights, operands
from shim_products import launches_of, library_backend, send_everything
from test_precision_on_shim import rounded
from tolerances import assert_close, assert_product, assert_same

import gpubp as gp
from gpubp import ops, optim
from gpubp.backends.cuda import PRECISIONS, CupyBackend

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

OPTIONS = gp.Options(verify=False)  # the same programs are verified on the CPU backends
SIZES = ((1, 1, 1), (1, 7, 5), (6, 1, 3), (33, 65, 40), (17, 9, 1), (64, 32, 129))
UNITS = {"tf32": 2.0**-11, "float16": 2.0**-11, "bf16": 2.0**-8}


@pytest.fixture(autouse=True)
def _everything_to_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    send_everything(monkeypatch, tmp_path)


def _exact(x: np.ndarray, precision: str) -> np.ndarray:
    """A factor as the precision rounds it."""
    low = precision != "float32" and x.dtype == np.float32
    return rounded(x, precision) if low else x


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
def test_layouts_of_odd_sizes(layout: str, precision: str) -> None:
    def product(a: Any, b: Any) -> Any:
        return (a.T if layout[0] == "t" else a) @ (b.T if layout[1] == "t" else b)

    target = library_backend(precision=precision)
    compiled = gp.compile(product, backend=target, options=OPTIONS)
    rng = np.random.default_rng(0)
    for m, n, k in SIZES:
        for dtype in ("float32", "float64"):
            a, b = (rng.normal(size=s).astype(dtype) for s in ((m, k), (k, n)))
            given = (a.T.copy() if layout[0] == "t" else a, b.T.copy() if layout[1] == "t" else b)
            exact = (_exact(a, precision), _exact(b, precision))
            assert_product(compiled(*given), *exact, f"{(m, n, k)} {dtype}")
    assert len(launches_of(target)) == 2 * len(SIZES)


# Two products in turn: the first one's result stays in the program, where an epilogue may write.
CHAINS: dict[str, tuple[str, Callable[..., Any]]] = {
    "nothing": ("none", lambda a, b, row, saved: a @ b),
    "relu": ("relu", lambda a, b, row, saved: ops.relu(a @ b)),
    "bias": ("bias", lambda a, b, row, saved: row + a @ b),
    "bias_relu": ("bias_relu", FORWARD["bias_relu"]),
    "bias_tanh": ("none", FORWARD["bias_tanh"]),
    "scaled bias": ("none", lambda a, b, row, saved: a @ b * 0.5 + row),
    "a column's bias": ("none", lambda a, b, row, saved: a @ b + saved[:, :1]),
    "relu of a gradient": ("none", FORWARD["relu_grad"]),
    "dropped": ("none", lambda a, b, row, saved: ops.where(saved > 0, a @ b, saved)),
}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", CHAINS)
def test_epilogues_are_the_librarys_where_they_match(name: str, precision: str) -> None:
    epilogue, first = CHAINS[name]
    dtypes = ("float32", "float64") if precision == "float32" else ("float32",)
    for m, n, k in ((33, 65, 40), (1, 4, 3), (70, 10, 5)):
        for dtype in dtypes:
            args = operands(m, n, k, dtype)
            last = np.random.default_rng(1).normal(size=(n, 3)).astype(dtype) / n
            target = library_backend(precision=precision)
            compiled = gp.compile(
                lambda *x: first(*x[:-1]) @ x[-1], backend=target, options=OPTIONS
            )
            found = compiled(*args, last)
            assert [p.epilogue for p in launches_of(target)] == [epilogue, "none"]
            factors = [_exact(x, precision) for x in args[:2]]
            middle = gp.compile(first, backend="numpy")(*factors, *args[2:])
            expected = _exact(middle, precision) @ _exact(last, precision)
            if precision == "float32":
                assert_close(found, expected, f"{name} {(m, n, k)} {dtype}")
            else:  # the middle may be rounded to the other side
                np.testing.assert_allclose(found, expected, 0, 4 * UNITS[precision])


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", FORWARD)
def test_what_follows_goes_to_arrays_of_the_callers(name: str, precision: str) -> None:
    target = library_backend(precision=precision)
    compiled = gp.compile(FORWARD[name], backend=target, options=OPTIONS)
    reference = gp.compile(FORWARD[name], backend="numpy")
    for m, n, k in ((33, 65, 40), (1, 1, 1), (70, 10, 60)):
        args = operands(m, n, k)
        exact = (*[_exact(x, precision) for x in args[:2]], *args[2:])
        for actual, expected in zip(_flat(compiled(*args)), _flat(reference(*exact)), strict=True):
            assert_close(actual, expected, f"{name} {(m, n, k)}")
    assert sum(launches_of(target).values()) >= 3


def _flat(found: Any) -> list[Any]:
    return list(found) if isinstance(found, tuple) else [found]


def _kept_by_the_caller(a: Any, b: Any, c: Any) -> Any:
    product = a @ b
    return product, ops.tanh(product), product @ c


def _kept_in_the_program(a: Any, b: Any, c: Any) -> Any:
    product = a @ b
    return ops.tanh(product) @ c, product @ c


@pytest.mark.parametrize(
    ("both", "products"), [(_kept_by_the_caller, 2), (_kept_in_the_program, 3)]
)
def test_a_product_that_is_kept_and_followed(both: Any, products: int) -> None:
    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s) for s in ((9, 5), (5, 6), (6, 4))]
    target = library_backend()
    found = gp.compile(both, backend=target, options=OPTIONS)(*arrays)
    for actual, expected in zip(found, gp.compile(both, backend="numpy")(*arrays), strict=True):
        assert_close(actual, expected)
    assert sum(launches_of(target).values()) == _measured(target) + products


def _measured(backend: CupyBackend) -> int:
    """Launches while problems were measured: a first one; two recordings, to estimate and for the
    only round, each launched once before it is timed.
    """
    return 5 * len(launches_of(backend))


def test_a_bias_that_the_epilogue_cannot_read_is_added_afterwards() -> None:
    """Its address is a multiple of 16 bytes for some slices of the caller's row only."""

    def layer(start: int, a: Any, b: Any, row: Any, c: Any) -> Any:
        return ops.relu(a @ b + row[start : start + 6]) @ c

    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s).astype("f") for s in ((9, 5), (5, 6), 20, (6, 4))]
    for start, epilogue in ((0, "bias_relu"), (4, "bias_relu"), (3, "none")):
        target = library_backend()
        sliced = partial(layer, start)
        found = gp.compile(sliced, backend=target, options=OPTIONS)(*arrays)
        assert_close(found, gp.compile(sliced, backend="numpy")(*arrays))
        assert [p.epilogue for p in launches_of(target)] == [epilogue, "none"]


@pytest.mark.parametrize("precision", PRECISIONS)
def test_batches_of_products(precision: str) -> None:
    rng = np.random.default_rng(0)
    shapes = (((7, 5, 3), (7, 3, 4)), ((2, 1, 33, 5), (6, 5, 40)), ((5, 3), (4, 3, 2)),
              ((1, 5, 3), (1, 3, 4)), ((3, 1, 4), (3, 4, 1)))  # fmt: skip
    target = library_backend(precision=precision)
    compiled = gp.compile(ops.matmul, backend=target)
    for first, second in shapes:
        a, b = (rng.normal(size=s).astype(np.float32) for s in (first, second))
        assert_product(compiled(a, b), _exact(a, precision), _exact(b, precision), f"{first}")
    assert sorted(p.batches for p in launches_of(target)) == [1, 3, 4, 7, 12]


def test_strides_that_the_library_cannot_walk_are_ours() -> None:
    x = np.random.default_rng(0).normal(size=(12, 10))
    target = library_backend()
    compiled = gp.compile(lambda x: x[::2, ::2] @ x[:5, :], backend=target)
    assert_product(compiled(x), x[::2, ::2], x[:5, :])
    assert not launches_of(target)
    rows = gp.compile(lambda x: x[::2, 1:4] @ x[2:5, 3:], backend=target)
    assert_product(rows(x), x[::2, 1:4], x[2:5, 3:])
    (problem,) = launches_of(target)
    assert (problem.a.leading, problem.b.leading) == (10, 20), "slices are leading dimensions"


def test_products_without_anything_to_add_are_ours() -> None:
    target = library_backend()
    found = gp.compile(ops.matmul, backend=target)(np.ones((3, 0)), np.ones((0, 2)))
    assert_same(found, np.zeros((3, 2)))
    assert not launches_of(target)


UPDATES: dict[str, tuple[bool, Callable[[Any], Any]]] = {
    "sgd": (True, lambda p: optim.SGD(p, lr=0.1)),
    "decay": (False, lambda p: optim.SGD(p, lr=0.1, weight_decay=0.1)),
    "momentum": (False, lambda p: optim.SGD(p, lr=0.1, momentum=0.9)),
    "adam": (False, optim.Adam),
}


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", UPDATES)
def test_updates_by_the_library_or_after_it(name: str, dtype: str) -> None:
    in_place, make = UPDATES[name]
    found, target = [], library_backend()
    for chosen in (target, "numpy"):
        weights = Weights([(33, 65), (3, 2), (40, 70)], 30, dtype)
        step, _ = weights.step(make, backend=chosen, options=OPTIONS)
        for _ in range(3):
            step(*weights.batch)
        found.append([p.value for p in weights.params])
    for actual, expected in zip(*found, strict=True):
        assert_close(actual, expected)
    assert {p.update for p in launches_of(target) if p.k == 30} == {in_place}
