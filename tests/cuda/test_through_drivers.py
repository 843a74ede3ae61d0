"""Tests of this folder once more, with every backend going through a driver for real GPUs on its
made-up library; see `conftest.py`.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import fake_drivers
import numpy as np
import pytest
import shim_build
from classifier import OPTIMIZERS, classifier_step, digits
from shim_driver import ShimDriver

import gpubp as gp
from gpubp.backends.cuda import CupyBackend

HERE = Path(__file__).parent
# What stands closest to the drivers. The others go through one, too: GPUBP_TEST_DRIVER=numba_cuda
# pytest -m full tests/cuda, which takes as long as tests/cuda does.
FILES = (
    "test_backend_on_shim.py",
    "test_device_arrays_on_shim.py",
    "test_device_results_on_shim.py",
    "test_pauses_on_shim.py",
    "test_populations_on_shim.py",
    "test_recurrent_on_shim.py",
)

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))


@pytest.mark.parametrize("name", fake_drivers.FAKES)
def test_what_goes_through_a_driver_goes_through_its_library(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """The setting does something: launches and recordings are the library's."""
    monkeypatch.setenv("GPUBP_CACHE_DIR", str(tmp_path))
    driver = fake_drivers.through(name, ShimDriver())
    step = classifier_step(OPTIMIZERS["sgd"], backend=CupyBackend(driver=driver))
    x, y = digits(samples=100)
    losses = step.run(x, y, batch_size=5, seed=1)
    assert np.isfinite(losses).all()
    calls = driver.fake.calls
    assert calls["launch"] > 10 and calls["graph"] >= 1 and calls["upload"] >= 1


@pytest.mark.parametrize("name", fake_drivers.FAKES)
def test_steps_of_a_run_are_one_cooperative_launch_of_the_library(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("GPUBP_CACHE_DIR", str(tmp_path))
    driver = fake_drivers.through(name, ShimDriver(alive=8))
    x, y = digits(samples=90)
    found = []
    for backend in (CupyBackend(driver=driver, execution="persistent"), "numpy"):
        step = classifier_step(
            OPTIMIZERS["adam"], backend=backend, options=gp.Options(verify=False)
        )
        found.append(step.run(x, y, batch_size=32, seed=1))
    np.testing.assert_allclose(*found, rtol=1e-5)
    calls = driver.fake.calls
    assert (calls["together"], calls["launch"], calls["graph"]) == (1, 0, 0)


@pytest.mark.parametrize("name", fake_drivers.FAKES)
def test_they_pass_through_each_driver(name: str) -> None:
    files = [str(HERE / file) for file in FILES]
    path = os.pathsep.join([str(HERE), str(HERE.parent), os.environ.get("PYTHONPATH", "")])
    env = {**os.environ, "GPUBP_TEST_DRIVER": name, "PYTHONPATH": path}
    command = ["-m", "pytest", "-q", "-p", "no:xdist", "-p", "no:cacheprovider"]
    command += ["-m", "full or not full", *files]
    run = subprocess.run([sys.executable, *command], env=env, capture_output=True, text=True)
    assert run.returncode == 0, run.stdout[-6000:] + run.stderr[-2000:]
    assert " passed" in run.stdout
