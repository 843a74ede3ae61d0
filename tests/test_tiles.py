"""Epilogues of register tiles: found where they should be, right for every size and tile shape."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from products import FORWARD, Weights, found_epilogues, operands, sizes
from registered import BACKENDS
from tolerances import assert_close

import gpubp as gp
from gpubp import nn, optim
from gpubp.backends.numba_cpu import words

VARIANTS: list[dict[str, Any]] = [
    {"backend": "numba"},
    {"backend": "numpy"},
    {"backend": "numba", "options": gp.Options(fuse=False)},
]
UPDATES: dict[str, Callable[[Any], Any]] = {
    "sgd": lambda p: optim.SGD(p, lr=0.1),
    "momentum": lambda p: optim.SGD(p, lr=0.1, momentum=0.9),
    "adam": lambda p: optim.Adam(p, lr=0.01),
    "adam_decay": lambda p: optim.Adam(p, lr=0.01, weight_decay=0.01),
}
ACTIVATIONS = {"relu": nn.ReLU, "sigmoid": nn.Sigmoid, "tanh": nn.Tanh, "gelu": nn.GELU}


def _expected(name: str, dtype: str) -> str | None:
    return name if name in words.epilogues(dtype) else None


def _flat(results: Any) -> list[np.ndarray]:
    return [a for r in results for a in (r if isinstance(r, tuple) else (r,))]


def _assert_alike(results: list[list[np.ndarray]], what: str) -> None:
    for other in results[1:]:
        for j, (value, wanted) in enumerate(zip(results[0], other, strict=True)):
            assert_close(value, wanted, f"{what}: array {j}")


def test_every_epilogue_is_tested() -> None:
    assert {"plain", *FORWARD, *UPDATES} == set(words.EPILOGUES)
    floats = [set(words.epilogues(dtype)) for dtype in ("float32", "float64")]
    only = {f"{when}" for f in ("sigmoid", "tanh", "gelu") for when in (f"bias_{f}", f"{f}_grad")}
    assert floats[0] - floats[1] == only


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FORWARD)
def test_values_of_all_sizes(name: str, dtype: str) -> None:
    """Several products in one program, since most of the time goes into compiling."""
    shapes = sizes()
    for i, k in enumerate((0, 1, 2, 7, 64)):
        some = shapes[i::5] if k != 7 else shapes[::3]
        data = [operands(m, n, k, dtype) for m, n in some]
        results = []
        for options in VARIANTS:
            fn = gp.compile(lambda data: [FORWARD[name](*d) for d in data], **options)
            results.append(_flat(fn(data)))
            if not results[1:]:
                names = found_epilogues(fn._runner.last.program)
                assert names == [_expected(name, dtype)] * len(some)
        _assert_alike(results, f"k {k}, {some}")


def _state(weights: Weights, optimizer: Any) -> list[np.ndarray]:
    state = [np.asarray(a) for s in optimizer.state_dict()["state"].values() for a in s.values()]
    return [p.value for p in weights.params] + state


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", UPDATES)
def test_updates_of_all_sizes(name: str, dtype: str) -> None:
    for i, k in enumerate((1, 7, 64)):
        shapes = sizes()[i::5]
        results = []
        for options in VARIANTS:
            weights = Weights(shapes, k, dtype)
            step, optimizer = weights.step(UPDATES[name], **options)
            for _ in range(3):
                step(*weights.batch)
            results.append(_state(weights, optimizer))
            if not results[1:]:
                assert found_epilogues(step.program).count(name) == len(shapes)
        _assert_alike(results, f"k {k}, {shapes}")


@pytest.mark.parametrize(("update", "dtype"), [("momentum", "float32"), ("adam", "float64")])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_a_trained_layer_uses_them(activation: str, update: str, dtype: str) -> None:
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(13, 9)).astype(dtype), rng.normal(size=(13, 3)).astype(dtype)
    results = []
    for options in VARIANTS:
        nn.init.manual_seed(4)
        layers = (nn.Linear(9, 17, dtype=dtype), ACTIVATIONS[activation]())
        model = nn.Sequential(*layers, nn.Linear(17, 3, dtype=dtype))
        optimizer = UPDATES[update](model.parameters())
        step = gp.compile_step(
            lambda x, y, model=model: nn.MSELoss()(model(x), y), optimizer, **options
        )
        results.append([step(x, y), *model.state_dict().values()])
        if not results[1:]:
            wanted = [_expected(f"bias_{activation}", dtype), None]
            wanted += [_expected(f"{activation}_grad", dtype), update, update]
            assert found_epilogues(step.program) == wanted
    _assert_alike(results, activation)


@pytest.mark.parametrize("name", FORWARD)
@pytest.mark.parametrize("shape", [(7, 9), (6, 16), (13, 33), (5, 100)])
def test_nan_and_infinity_pass_through(name: str, shape: tuple[int, int]) -> None:
    """One bad row of A, one bad column of B, one bad number in the row and in what was saved."""
    for bad in (np.nan, np.inf, -np.inf):
        a, b, row, saved = operands(*shape, 4)
        a[2, 1], b[0, 3], row[-1], saved[-1, -2], saved[2, 0] = [bad] * 5
        with np.errstate(invalid="ignore"):
            found, wanted = (
                _flat([gp.compile(FORWARD[name], backend=backend)(a, b, row, saved)])
                for backend in BACKENDS
            )
        for value, reference in zip(found, wanted, strict=True):
            assert_close(value, reference, f"{name} of {bad}")
        assert (
            not all(np.isfinite(w).all() for w in wanted)
            or name == "relu_grad"
            or (name in ("bias_sigmoid", "bias_tanh") and np.isinf(bad))
        )


@pytest.mark.parametrize("update", UPDATES)
def test_nan_reaches_the_weights_and_the_state(update: str) -> None:
    results = []
    for options in VARIANTS:
        weights = Weights([(7, 9)], 4, "float32")
        weights.batch[0][1, 2] = np.nan
        step, optimizer = weights.step(UPDATES[update], **options)
        step(*weights.batch)
        results.append(_state(weights, optimizer))
    assert np.isnan(results[0][0][2]).all()
    assert np.isfinite(np.delete(results[0][0], 2, axis=0)).all()
    _assert_alike(results, update)
