"""Matrix products of the CUDA backend on the CPU: every tile, pieces of k, and what follows."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shim_build
from products import FORWARD, Weights, operands
from shim_backend import shim_backend
from shim_driver import ORDERS
from tolerances import assert_close, assert_product

import gpubp as gp
from gpubp import ops
from gpubp.backends.cuda import CupyBackend
from gpubp.backends.cuda.codegen.tiles import plan
from gpubp.optim import SGD, Adam

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

OPTIONS = gp.Options(verify=False)  # the same programs are verified on the CPU backends
# One processor takes the largest tile, many take the smallest and cut k.
PROCESSORS = (1, 6, 132)
AROUND = (1, 31, 33, 64, 65, 129)
DEPTHS = (0, 1, 15, 16, 17, 200, 777)


def _backend(order: str, processors: int) -> CupyBackend:
    return shim_backend(order, processors=processors)


def _sizes() -> list[tuple[int, int, int]]:
    return [
        (m, AROUND[(i + turn) % len(AROUND)], DEPTHS[(i + 2 * turn) % len(DEPTHS)])
        for turn in range(3)
        for i, m in enumerate(AROUND)
    ]


@pytest.mark.parametrize("processors", PROCESSORS)
@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
def test_products_of_every_size_and_layout(layout: str, processors: int) -> None:
    def product(a: Any, b: Any) -> Any:
        return (a.T if layout[0] == "t" else a) @ (b.T if layout[1] == "t" else b)

    compiled = gp.compile(product, backend=_backend("random", processors), options=OPTIONS)
    rng = np.random.default_rng(0)
    for m, n, k in _sizes():
        a, b = (rng.normal(size=s).astype(np.float32) for s in ((m, k), (k, n)))
        given = (a.T.copy() if layout[0] == "t" else a, b.T.copy() if layout[1] == "t" else b)
        assert_product(compiled(*given), a, b, f"{(m, n, k)}")


def test_the_sizes_meet_every_plan() -> None:
    """Tiles, pieces of k, and groups of threads that share it."""
    plans = [
        plan(1, m, n, k, 4, processors, grouped=True)
        for m, n, k in _sizes()
        for processors in PROCESSORS
    ]
    found = {(each.tile[0], each.chunks > 1, each.groups) for each in plans}
    whole = {(128, False, 1), (64, False, 1), (32, False, 1), (32, False, 4)}
    assert found >= whole | {(32, True, 4)}


@pytest.mark.parametrize("order", ORDERS)
def test_orders_give_the_same_bits(order: str) -> None:
    for m, n, k in ((65, 33, 777), (129, 40, 17), (5, 7, 2000)):
        a, b, *_ = operands(m, n, k)
        found = [gp.compile(ops.matmul, backend=_backend(o, 132))(a, b) for o in (order, "forward")]
        np.testing.assert_array_equal(*found)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("processors", PROCESSORS)
@pytest.mark.parametrize("name", FORWARD)
def test_what_follows_a_product(name: str, processors: int, dtype: str) -> None:
    compiled = gp.compile(FORWARD[name], backend=_backend("random", processors), options=OPTIONS)
    reference = gp.compile(FORWARD[name], backend="numpy")
    for m, n, k in ((33, 65, 40), (1, 1, 1), (70, 10, 600)):
        args = operands(m, n, k, dtype)
        for actual, expected in zip(_flat(compiled(*args)), _flat(reference(*args)), strict=True):
            assert_close(actual, expected, f"{name} {(m, n, k)}")


def _flat(found: Any) -> list[Any]:
    return list(found) if isinstance(found, tuple) else [found]


@pytest.mark.parametrize("processors", PROCESSORS)
@pytest.mark.parametrize("make", [lambda p: SGD(p, lr=0.1, momentum=0.9), lambda p: Adam(p)])
def test_updates_in_a_weight_gradients_product(make: Any, processors: int) -> None:
    shapes = [(33, 65), (3, 2), (40, 70)]
    found = []
    for backend in (_backend("random", processors), "numpy"):
        weights = Weights(shapes, 300, "float64")
        step, _ = weights.step(make, backend=backend, options=OPTIONS)
        for _ in range(3):
            step(*weights.batch)
        found.append([p.value for p in weights.params])
    for actual, expected in zip(*found, strict=True):
        assert_close(actual, expected)


def test_batches_of_products() -> None:
    rng = np.random.default_rng(0)
    compiled = gp.compile(ops.matmul, backend=_backend("random", 6))
    for first, second in (((7, 5, 3), (7, 3, 4)), ((2, 1, 33, 5), (6, 5, 40)), ((5, 3), (4, 3, 2))):
        a, b = rng.normal(size=first), rng.normal(size=second)
        assert_close(compiled(a, b), a @ b)


def test_more_products_than_a_grid_has_layers() -> None:
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(70000, 1, 2)), rng.normal(size=(70000, 2, 1))
    assert_close(gp.compile(ops.matmul, backend=_backend("forward", 6))(a, b), a @ b)
