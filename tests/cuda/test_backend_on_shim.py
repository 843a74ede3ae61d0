"""The CUDA backend around its kernels: memory that runs out, profiles, devices by name."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shim_build
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from shim_backend import shim_backend
from shim_driver import ShimDriver
from tolerances import assert_same

import gpubp as gp
from gpubp.backends import Feed, get_backend
from gpubp.backends.cuda.transfers import ARGUMENT_BYTES, RESULT_BYTES
from gpubp.errors import BackendError, UnknownNameError

pytestmark = pytest.mark.full

shim = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))


@shim
def test_memory_that_runs_out_is_explained() -> None:
    driver = ShimDriver(memory=300_000 + ARGUMENT_BYTES + RESULT_BYTES)
    step = classifier_step(OPTIMIZERS["adam"], mlp(), backend=shim_backend(driver=driver))
    x, y = digits(samples=512)
    with pytest.raises(BackendError) as caught:
        step.run(x, y, batch_size=512)
    text = str(caught.value)
    assert "bytes for parameters and state" in text
    fits = int(text.split("a batch of about ")[1].split()[0])
    assert 8 < fits < 512
    step.run(x[:64], y[:64], batch_size=32)


class Failing(ShimDriver):
    """Its seventh kernel fails, which shows when somebody waits."""

    started = 0

    def launch(self, *arguments: Any) -> None:
        super().launch(*arguments)
        self.started += 1

    def synchronize(self) -> None:
        super().synchronize()
        if self.started >= 7:
            raise BackendError("a kernel failed: an illegal address.")


@shim
def test_a_kernel_that_fails_names_its_instruction(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBP_VERIFY", "0")  # which would run the kernels first, and wait
    x, y = digits(samples=64)
    step = classifier_step(OPTIMIZERS["adam"], mlp(), backend=shim_backend(driver=Failing()))
    with pytest.raises(BackendError, match=r"^a kernel failed: .* Set GPUBP_CUDA_SYNC=1 to learn"):
        step.run(x, y, batch_size=32)
    monkeypatch.setenv("GPUBP_CUDA_SYNC", "1")
    driver = Failing()
    step = classifier_step(OPTIMIZERS["adam"], mlp(), backend=shim_backend(driver=driver))
    with pytest.raises(BackendError, match=r"^a kernel failed: .* happened in '") as caught:
        step.run(x, y, batch_size=32)
    assert driver.started == 7  # nothing was started after it
    assert step.program is not None
    assert str(caught.value).split("'")[1] in [p.name for p in step.program.parts]


@shim
def test_waiting_for_each_kernel_changes_no_bit(monkeypatch: pytest.MonkeyPatch) -> None:
    x, y = digits(samples=64)
    losses = []
    for waits in ("0", "1"):
        monkeypatch.setenv("GPUBP_CUDA_SYNC", waits)
        step = classifier_step(OPTIMIZERS["adam"], mlp(), backend=shim_backend())
        losses.append(step.run(x, y, batch_size=4, epochs=2))
    assert_same(*losses)


@shim
def test_a_profile_leaves_everything_as_it_was() -> None:
    model = mlp()
    step = classifier_step(OPTIMIZERS["adam"], model, backend=shim_backend())
    x, y = digits(samples=64)
    step.run(x, y, batch_size=32)
    before = {k: v.copy() for k, v in model.state_dict().items()}
    program = step.program
    assert program is not None
    ready = step._runner.last
    assert ready is not None
    losses = np.zeros(1, np.float32)
    feed = Feed([x, y], np.arange(32), [[losses]])
    times = step.backend.profile(ready.loaded, feed, repeats=1)  # type: ignore[call-arg]
    assert len(times) == len(program.parts) and min(times) > 0
    assert "us a step, each part alone" in step.report(profile=True)
    for name, value in model.state_dict().items():
        assert_same(value, before[name], name)


@pytest.mark.parametrize("device", ["cuda:x", "cuda:", "cpu:1", "gpu", "cuda:-1"])
def test_devices_that_are_none(device: str) -> None:
    with pytest.raises(UnknownNameError, match="cuda"):
        get_backend(device=device)


def test_a_device_that_is_not_the_backends() -> None:
    with pytest.raises(BackendError, match="runs on cpu"):
        get_backend("numpy", "cuda")


def test_a_device_that_is_not_there_says_what_to_install() -> None:
    found = {probe.name: probe for probe in gp.backends()}
    if found["cupy"].available:
        pytest.skip("there is a GPU here")
    for given in ({"device": "cuda:0"}, {"backend": "cupy"}):
        with pytest.raises(BackendError, match=r"pip install|cannot use a GPU|no GPU"):
            get_backend(**given)


def test_the_cpu_is_what_auto_takes() -> None:
    arguments: list[dict[str, Any]] = [{}, {"device": "auto"}, {"device": "cpu"}]
    assert {get_backend(**a).name for a in arguments} == {"numba"}
