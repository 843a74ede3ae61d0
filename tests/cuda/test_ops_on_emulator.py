"""Every op and whole trainings on `device="cuda-emulated"`: NVRTC's own PTX, against the
references.

Races, bounds and memory that nobody wrote are looked at in every launch. The cases are those of the
shim, which is built by another compiler: both must agree with the reference.
"""

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from emulated_backend import emulated_backend
from specs import ROWS, Row, cases, special_cases
from test_conformance import compare
from test_programs_on_shim import agree, trained
from tolerances import ORACLE, assert_same

import gpubp as gp
from gpubp import nn, ops
from gpubp.backends import get_backend
from gpubp.backends.cuda.drivers import bare_nvrtc
from gpubp.core import bind
from gpubp.errors import BackendError, UnknownNameError

needs_nvrtc = pytest.mark.skipif(bool(bare_nvrtc.missing()), reason=bare_nvrtc.missing() or "-")
OPTIONS = gp.Options(verify=False)  # the same programs are verified on the CPU backends


@pytest.fixture(scope="module")
def backend() -> Any:
    return emulated_backend()


@pytest.mark.full
@needs_nvrtc
@pytest.mark.parametrize("row", ROWS.values(), ids=list(ROWS))
def test_op_equals_its_reference(row: Row, backend: Any) -> None:
    with np.errstate(all="ignore"):
        for case in [*cases(row), *special_cases(row)]:
            args = case.args()
            kept = [a.copy() for a in args]
            op = partial(bind, row.spec, **case.attrs)
            found = gp.compile(op, backend=backend, options=OPTIONS)(*args)
            compare(case, args, found, str(case))
            for before, after in zip(kept, args, strict=True):
                assert_same(after, before, f"{case} changed its input")


@pytest.mark.full
@needs_nvrtc
@pytest.mark.parametrize("name", OPTIMIZERS)
def test_ten_steps_of_every_optimizer(name: str) -> None:
    expected = trained(OPTIMIZERS[name], "numpy")
    agree(trained(OPTIMIZERS[name], emulated_backend(races="first")), expected, "float32")


@pytest.mark.full
@needs_nvrtc
def test_dropout_on_the_device_by_name() -> None:
    def losses(**where: Any) -> Any:
        gp.manual_seed(5)
        nn.init.manual_seed(3)
        model = nn.Sequential(nn.Linear(64, 30), nn.Dropout(0.4), nn.GELU(), nn.Linear(30, 10))
        x, y = digits(samples=100)
        loss_fn = nn.CrossEntropyLoss()
        step = gp.compile_step(
            lambda x, y: loss_fn(model(x), y),
            OPTIMIZERS["adam"](model.parameters()),
            seed=9,
            **where,
        )
        return step.run(x, y, batch_size=32, epochs=2)

    found = losses(device="cuda-emulated")
    np.testing.assert_allclose(found, losses(backend="numpy"), rtol=ORACLE["float32"])


@pytest.mark.full
@needs_nvrtc
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_recurrent_layers_in_one_kernel(kind: str) -> None:
    """All rounds of a loop, forwards and backwards, with lengths."""
    layer = getattr(nn, kind)(4, 8, dtype="float64")
    fn = gp.value_and_grad(lambda x, n: ops.sum(layer(x, None, n)[0]))
    x, n = np.random.default_rng(0).normal(size=(5, 3, 4)), np.array([5, 1, 2])
    found, expected = (
        gp.compile(fn, backend=target, options=OPTIONS)(x, n)
        for target in (emulated_backend(), "numpy")
    )
    for actual, wanted in zip(found, expected, strict=True):
        np.testing.assert_allclose(actual, wanted, rtol=ORACLE["float64"], atol=1e-12)


SQUARES = """__device__ void squares(long long i, const float* x, float* y) {
  y[i] = x[i] * x[AT];
}"""


@needs_nvrtc
def test_custom_ops_run_their_own_source() -> None:
    def made(at: str) -> Any:
        return ops.custom_op(
            "squares", lambda x: x * x, lambda g, y, x: 2 * g * x, cuda=SQUARES.replace("AT", at)
        )

    x = np.arange(100, dtype=np.float32)
    found = gp.compile(made("i"), backend=emulated_backend(), options=OPTIONS)(x)
    np.testing.assert_array_equal(found, x * x)
    with pytest.raises(BackendError, match=r"out of bounds.*y\[i\] = x\[i\] \* x\[i \+ 1\];"):
        gp.compile(made("i + 1"), backend=emulated_backend(), options=OPTIONS)(x)


@needs_nvrtc
def test_it_is_chosen_by_name_alone() -> None:
    assert get_backend(device="cuda-emulated").name == "emulated"
    assert get_backend("emulated") is get_backend(device="cuda-emulated")
    assert gp.default_backend_name() != "emulated"
    with pytest.raises(UnknownNameError, match="cuda-emulated:1"):
        get_backend(device="cuda-emulated:1")
    with pytest.raises(BackendError, match="runs on cuda-emulated"):
        get_backend("emulated", device="cpu")


@needs_nvrtc
def test_one_step_of_training_is_the_reference_s() -> None:
    found = []
    for target in (emulated_backend(races="first"), "numpy"):
        model = mlp(hidden=(16, 12))
        step = classifier_step(OPTIMIZERS["adam"], model, backend=target)
        x, y = digits(samples=40, features=16)
        found.append({"losses": step.run(x, y, batch_size=20), **model.state_dict()})
    agree(*found, "float32")


@pytest.mark.full
@needs_nvrtc
def test_ten_steps_of_a_usual_size_are_the_reference_s() -> None:
    """64-100-10 with Adam at batch 200, as a user would run it."""
    found = []
    x, y = digits(samples=2000)
    for target in (get_backend(device="cuda-emulated"), "numpy"):
        model = mlp(hidden=(64, 100))
        step = classifier_step(OPTIMIZERS["adam"], model, backend=target)
        found.append({"losses": step.run(x, y, batch_size=200), **model.state_dict()})
    assert len(found[0]["losses"]) == 10
    agree(*found, "float32")


def test_without_nvrtc_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    from gpubp.backends.cuda.emulator import backend as module

    monkeypatch.setattr(module, "missing", lambda: 'needs NVRTC: pip install "gpubp[emulator]"')
    monkeypatch.setattr("gpubp.backends._instances", {})
    with pytest.raises(BackendError, match=r"pip install \"gpubp\[emulator\]\""):
        get_backend(device="cuda-emulated")
