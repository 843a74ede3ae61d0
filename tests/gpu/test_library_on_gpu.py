"""cuBLASLt on a GPU: every product through it; epilogues, updates, recordings, repeatability."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from products import FORWARD, Weights, operands
from tolerances import ORACLE, assert_close, assert_product, assert_same

import gpubp as gp
from gpubp import ops, optim
from gpubp.backends.cuda import PRECISIONS, CupyBackend, autotune, tuning_record
from gpubp.backends.cuda.codegen import encode_product

STEPS = 50


@pytest.fixture(autouse=True)
def _everything_to_the_library(
    backend: CupyBackend, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Its first plan for every product, whatever is faster."""
    if backend.driver.products is None:
        pytest.skip("needs cuBLASLt: `gpubp info` says why it is not used")

    def first(self: Any, products: Any, part: Any, problem: Any, *rest: Any) -> Any:
        return (products.plans(problem, 1) or [None])[0]

    monkeypatch.setattr(encode_product, "LEAST_FLOPS", 0.0)
    monkeypatch.setattr(tuning_record, "cache_root", lambda: tmp_path)
    monkeypatch.setattr(autotune.Autotuner, "_measured", first)


def _target(precision: str = "float32") -> CupyBackend:
    return CupyBackend(precision=precision)


@pytest.mark.parametrize("layout", ["nn", "nt", "tn", "tt"])
@pytest.mark.parametrize("precision", PRECISIONS)
def test_products_of_every_layout_are_exact(precision: str, layout: str) -> None:
    """Factors with few bits are exact in all precisions."""

    def product(a: Any, b: Any) -> Any:
        return (a.T if layout[0] == "t" else a) @ (b.T if layout[1] == "t" else b)

    compiled = gp.compile(product, backend=_target(precision))
    rng = np.random.default_rng(0)
    for m, n, k in ((1, 1, 1), (17, 9, 33), (64, 64, 64), (65, 130, 31), (1000, 1001, 500)):
        for dtype in (np.float32, np.float64):
            a, b = (rng.integers(-32, 33, s).astype(dtype) / 16 for s in ((m, k), (k, n)))
            given = (a.T.copy() if layout[0] == "t" else a, b.T.copy() if layout[1] == "t" else b)
            assert_product(compiled(*given), a, b, f"{(m, n, k)}")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FORWARD)
def test_what_follows_a_product_is_as_numpy_computes_it(name: str, dtype: str) -> None:
    """The second product keeps the first one's result where an epilogue may write."""

    def chained(*x: Any) -> Any:
        found = FORWARD[name](*x[:-1])
        return (found[0] if isinstance(found, tuple) else found) @ x[-1]

    for m, n, k in ((33, 65, 40), (1, 4, 3), (256, 300, 200)):
        args = (*operands(m, n, k, dtype), np.eye(n, 3, dtype=dtype))
        found = gp.compile(chained, backend=_target())(*args)
        assert_close(found, gp.compile(chained, backend="numpy")(*args), f"{name} {(m, n, k)}")


def test_relu_lets_nan_through() -> None:
    """cuBLASLt's header says max(x, 0) and nothing of NaN; gpubp's relu keeps it."""
    a = np.ones((4, 8), np.float32)
    bad = np.full((8, 8), np.nan, np.float32)
    check = gp.Options(verify=False)
    compiled = gp.compile(lambda a, b, c: ops.relu(a @ b) @ c, backend=_target(), options=check)
    assert np.isnan(compiled(a, bad, np.eye(8, dtype="f"))).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("make", [lambda p: optim.SGD(p, lr=0.1), optim.Adam])
def test_updates_after_products_are_numpys(make: Any, dtype: str) -> None:
    found = []
    for chosen in (_target(), "numpy"):
        weights = Weights([(33, 65), (3, 2), (400, 700)], 300, dtype)
        step, _ = weights.step(make, backend=chosen)
        for _ in range(3):
            step(*weights.batch)
        found.append([p.value for p in weights.params])
    for actual, expected in zip(*found, strict=True):
        assert_close(actual, expected)


def test_batched_products_are_numpys() -> None:
    rng = np.random.default_rng(0)
    compiled = gp.compile(ops.matmul, backend=_target())
    for first, second in (((7, 5, 3), (7, 3, 4)), ((2, 1, 33, 5), (6, 5, 40)), ((5, 3), (4, 3, 2))):
        a, b = rng.normal(size=first), rng.normal(size=second)
        assert_product(compiled(a, b), a, b)


def _trained(name: str, target: Any, dtype: str = "float64") -> dict[str, Any]:
    """Long enough to be recorded; the learning rate changes between two recorded runs."""
    made: list[Any] = []
    model = mlp(dtype=dtype)
    step = classifier_step(
        lambda p: made.append(OPTIMIZERS[name](p)) or made[0], model, backend=target
    )
    x, y = digits(dtype, 32 * STEPS)
    losses = [step.run(x, y, batch_size=32, shuffle=False)]
    made[0].param_groups[0]["lr"] = 0.01
    losses.append(step.run(x, y, batch_size=32, shuffle=False))
    return {"losses": np.concatenate(losses), **model.state_dict()}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_training_against_numpy(name: str) -> None:
    found, expected = _trained(name, _target()), _trained(name, "numpy")
    for key, value in expected.items():
        bound = ORACLE["float64"] * np.abs(value).max()
        np.testing.assert_allclose(found[key], value, 0, bound, err_msg=key)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_ten_runs_give_the_same_bits(precision: str) -> None:
    expected = _trained("sgd", _target(precision), "float32")
    for _ in range(9):
        for key, value in _trained("sgd", _target(precision), "float32").items():
            assert_same(value, expected[key], key)
