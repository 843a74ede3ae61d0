"""Products through the library: from rows to columns, epilogues, copies, updates, whole runs."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shim_build
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from products import FORWARD, Weights, operands
from shim_driver import ORDERS
from shim_products import launches_of, library_backend
from test_precision_on_shim import rounded
from test_programs_on_shim import STEPS, agree, backend, trained
from tolerances import assert_close, assert_product, assert_same

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends.cupy import PRECISIONS, STEPS_A_GRAPH, CupyBackend, encode_product, library
from gpubp.optim import lr_scheduler

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

OPTIONS = gp.Options(verify=False)  # the same programs are verified on the CPU backends
SIZES = ((1, 1, 1), (1, 7, 5), (6, 1, 3), (33, 65, 40), (17, 9, 1), (64, 32, 129))
UNITS = {"tf32": 2.0**-11, "float16": 2.0**-11, "bf16": 2.0**-8}


@pytest.fixture(autouse=True)
def _everything_to_the_library(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No product is too small for it, and choices are not those of another test."""
    monkeypatch.setattr(encode_product, "LEAST_FLOPS", 0.0)
    monkeypatch.setattr(library, "cache_root", lambda: tmp_path)
    monkeypatch.setattr(library, "ROUNDS", 1)  # of measuring by a clock that never varies


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


def test_a_product_that_is_kept_and_followed() -> None:
    """One result in the program and one in the caller's array, from a single product."""

    def both(a: Any, b: Any, c: Any) -> Any:
        product = a @ b
        return product, ops.tanh(product), (product @ c)

    rng = np.random.default_rng(0)
    arrays = [rng.normal(size=s) for s in ((9, 5), (5, 6), (6, 4))]
    target = library_backend()
    found = gp.compile(both, backend=target, options=OPTIONS)(*arrays)
    for actual, expected in zip(found, gp.compile(both, backend="numpy")(*arrays), strict=True):
        assert_close(actual, expected)
    assert len(launches_of(target)) == 2


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


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ten_steps_of_every_optimizer(name: str, dtype: str) -> None:
    expected = trained(OPTIMIZERS[name], "numpy", dtype)
    targets = [library_backend(order) for order in ORDERS]
    found = [trained(OPTIMIZERS[name], target, dtype) for target in targets]
    agree(found[0], expected, dtype)
    for other in found[1:]:
        for key, value in found[0].items():
            assert_same(other[key], value, key)
    launched = launches_of(targets[0])
    assert len(launched) == 16, "eight products each, of two batch sizes"


OTHERS = ("AdamW", "Adagrad", "Adadelta", "Adamax", "ASGD", "Lion", "NAdam", "RAdam", "RMSprop",
          "Rprop")  # fmt: skip


@pytest.mark.parametrize("name", OTHERS)
def test_ten_steps_of_the_other_optimizers(name: str) -> None:
    def make(parameters: Any) -> Any:
        return getattr(optim, name)(parameters)

    target = library_backend()
    agree(trained(make, target, "float64"), trained(make, "numpy", "float64"), "float64")
    assert len(launches_of(target)) == 16


@pytest.mark.parametrize("precision", [p for p in PRECISIONS if p != "float32"])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_ten_steps_in_low_precision(name: str, precision: str) -> None:
    target = library_backend(precision=precision)
    found = trained(OPTIMIZERS[name], target)
    expected = trained(OPTIMIZERS[name], "numpy")
    ours = backend()
    ours.precision = precision
    tiled = trained(OPTIMIZERS[name], ours)
    unit = UNITS[precision]
    assert 0 < np.abs(found["losses"] - expected["losses"]).max() < 8 * unit
    assert np.abs(found["losses"] - tiled["losses"]).max() < 2 * unit
    assert len(launches_of(target)) == 16


def _on_schedule(target: Any) -> dict[str, Any]:
    """A learning rate that the program moves at each step."""
    model = mlp(dtype="float64")
    loss_fn = nn.CrossEntropyLoss()
    optimizer = optim.SGD(model.parameters(), lr=0.5)
    scheduler = lr_scheduler.ExponentialLR(optimizer, gamma=0.7)
    step = gp.compile_step(
        lambda x, y: loss_fn(model(x), y), optimizer, scheduler=scheduler, backend=target
    )
    x, y = digits("float64", 32 * STEPS)
    return {"losses": step.run(x, y, batch_size=32, epochs=2, seed=1), **model.state_dict()}


def test_a_schedule_reaches_the_librarys_alpha() -> None:
    target = library_backend()
    agree(_on_schedule(target), _on_schedule("numpy"), "float64")
    assert any(problem.update for problem in launches_of(target))


@pytest.mark.parametrize("options", [{"max_grad_norm": 0.5}, {"accumulate": 2}])
def test_gradients_that_are_kept(options: dict[str, Any]) -> None:
    make, target = OPTIMIZERS["sgd"], library_backend()
    x, y = digits("float64", 32 * STEPS)
    found = []
    for chosen in (target, "numpy"):
        model = mlp(dtype="float64")
        step = classifier_step(make, model, backend=chosen, **options)
        found.append({"losses": step.run(x, y, batch_size=32), **model.state_dict()})
    agree(*found, "float64")
    assert launches_of(target)


@pytest.mark.parametrize("precision", ["float32", "bf16"])
@pytest.mark.parametrize("name", ["sgd", "adam"])
def test_replays_are_launches_bit_for_bit(
    name: str, precision: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    x, y = digits(samples=8 * (2 * STEPS_A_GRAPH + 5))

    def losses() -> Any:
        step = classifier_step(
            OPTIMIZERS[name], mlp(), backend=library_backend(precision=precision)
        )
        return step.run(x, y, batch_size=8, epochs=2)

    replayed = losses()
    monkeypatch.setattr(sys.modules[CupyBackend.__module__], "RECORD_FROM", 10**9)
    assert_same(losses(), replayed)


@pytest.mark.parametrize("make", ["sgd", "adam"])
def test_a_cast_is_made_once_for_its_readers(make: str) -> None:
    """Activations and weights are each read twice a step, gradients of activations too."""
    target = library_backend(precision="bf16")
    step = classifier_step(OPTIMIZERS[make], mlp(), backend=target)
    x, y = digits(samples=64)
    step(x[:32], y[:32])
    ready = step._runner.last
    assert ready is not None
    before = target.driver.launched["kernel"]
    step(x[:32], y[:32])
    kernels = target.driver.launched["kernel"] - before
    casts = 9  # x, h1, h2, three weights, three gradients; each product has two factors, 16
    alpha = int(make == "sgd")
    finishes = 2 + 3 * (make == "adam")  # relu's gradient twice, Adam's update
    others = sum(p.kernel != "matmul" for p in ready.loaded.program.parts)
    split = 0  # no reduction is long enough for a second kernel
    assert kernels == casts + alpha + finishes + others + split
