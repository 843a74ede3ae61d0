"""Sums and counts of losses, sample and class weights as CUDA programs, on the test device."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shim_build
from loss_cases import ALL, IGNORED, LOSSES, WEIGHT, N, X, Y
from shim_backend import as_cuda, shim_backend
from shim_driver import ShimDriver
from tolerances import assert_close

from gpubp import nn, ops, optim
from gpubp.backends.cuda import CupyBackend
from gpubp.runtime.step import compile_step
from gpubp.runtime.totals import together
from gpubp.train import Trainer

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))


def _model() -> Any:
    ops.manual_seed(0)
    return nn.Linear(5, 3, dtype="float64")


def _trained(name: str, backend: Any, batch_size: int, accumulate: int, data: Any = None) -> Any:
    loss_fn, y = ALL[name]
    model = _model()
    step = compile_step(
        lambda a, b: loss_fn(model(a), b),
        optim.SGD(model.parameters(), lr=1.0),
        accumulate=accumulate,
        backend=backend,
    )
    step.run(*(data or (X, y)), batch_size=batch_size, shuffle=False)
    return {"loss": np.array(together(step.totals)), **model.state_dict()}


@pytest.mark.parametrize("name", ALL)
def test_accumulated_batches_are_one_batch(name: str) -> None:
    expected = _trained(name, "numpy", N, 1)
    for batch_size, accumulate in ((N, 1), (5, 5)):
        found = _trained(name, shim_backend(), batch_size, accumulate)
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["ignored", "sum", "all kinds"])
def test_data_on_the_device_and_in_chunks(name: str) -> None:
    expected = _trained(name, "numpy", 5, 5)
    resident = CupyBackend(driver=ShimDriver())
    there = [resident.to_user_array(a) for a in (X, ALL[name][1])]
    chunked = CupyBackend(driver=ShimDriver(), resident_bytes=0)
    for backend, data in ((resident, there), (chunked, None)):
        found = _trained(name, backend, 5, 5, data)
        for key, value in expected.items():
            np.testing.assert_allclose(found[key], value, rtol=1e-9, atol=1e-12)


def _fit(loss_fn: Any, y: Any, device: Any, **options: Any) -> dict[str, Any]:
    model = _model()
    made = Trainer(model, loss_fn, optim.SGD(model.parameters(), lr=0.1), **device)
    data = (X, y, np.linspace(0.5, 2.0, N))
    made.fit(X, y, 2, 5, data, verbose=False, **options)
    found = made.evaluate(X, y, sample_weight=np.linspace(2.0, 0.0, N))
    return {**found, **{k: np.array(v) for k, v in made.history.items()}, **model.state_dict()}


@pytest.mark.parametrize(
    "options",
    [
        {"sample_weight": np.linspace(0.0, 2.0, N)},
        {"class_weight": {0: 0.5, 1: 3.0}},
        {"class_weight": "balanced", "sample_weight": np.ones(N)},
    ],
    ids=["samples", "classes", "both"],
)
@pytest.mark.parametrize("name", ["mean", "weight, ignored, smoothed", "ignored, summed", "nll"])
def test_weights_of_samples_and_classes(
    name: str, options: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    as_cuda(monkeypatch, CupyBackend(driver=ShimDriver()))
    loss_fn, y = LOSSES[name]
    expected = _fit(loss_fn, y, {"backend": "numpy"}, **options)
    for key, value in _fit(loss_fn, y, {"device": "cuda"}, **options).items():
        assert_close(np.asarray(value), np.asarray(expected[key]))


def test_a_batch_in_which_nothing_counts_moves_nothing() -> None:
    y = np.where(np.arange(N) < 10, -100, IGNORED)
    model = _model()
    loss_fn = nn.CrossEntropyLoss(WEIGHT, ignore_index=-100)
    step = compile_step(
        lambda a, b: loss_fn(model(a), b),
        optim.SGD(model.parameters(), lr=1.0),
        backend=shim_backend(),
    )
    before = model.state_dict()
    assert np.isnan(step.run(X[:10], y[:10], batch_size=5)).all()
    for key, value in model.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("solver", ["sgd", "adam", "lbfgs"])
@pytest.mark.parametrize("class_weight", [None, {0: 0.5, 1: 3.0}, "balanced"])
def test_weights_of_estimators(
    solver: str, class_weight: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("sklearn", reason="scikit-learn is not installed")
    from gpubp.sklearn import MLPClassifier
    from gpubp.sklearn.engine import pool

    as_cuda(monkeypatch, CupyBackend(driver=ShimDriver()))
    weights = np.linspace(0.1, 2.0, N)

    def fitted(**where: Any) -> Any:
        made = MLPClassifier(
            (4,), solver=solver, max_iter=4, batch_size=5, random_state=0,
            class_weight=class_weight, **where,
        )  # fmt: skip
        return made.fit(X, Y, sample_weight=weights)

    try:
        expected, found = fitted(backend="numpy"), fitted(device="cuda")
    finally:
        pool.clear()
    assert found.loss_ == pytest.approx(expected.loss_, rel=1e-6)
    for a, b in zip(found.coefs_, expected.coefs_, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-6, atol=1e-9)
