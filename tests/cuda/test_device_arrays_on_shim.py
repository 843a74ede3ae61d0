"""Arrays that are on the device already are read in place, and refused where they do not fit."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shim_build
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from numpy.typing import NDArray
from shim_driver import ShimDriver
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp.backends.cuda import CupyBackend
from gpubp.errors import DataError, DTypeError

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))


class OnDevice:
    """An array as CuPy's look from outside."""

    def __init__(self, driver: ShimDriver, array: NDArray[Any], strides: Any = None) -> None:
        self.memory = driver.allocate(max(array.nbytes, 1))
        driver.upload(self.memory.address, np.ascontiguousarray(array))
        self.__cuda_array_interface__ = {
            "shape": array.shape,
            "typestr": array.dtype.str,
            "data": (self.memory.address, False),
            "strides": strides,
            "stream": 7,
            "version": 3,
        }


def test_training_and_functions_read_them_in_place() -> None:
    driver = ShimDriver()
    x, y = digits(samples=96)
    found = []
    for wrap in (lambda a: a, lambda a: OnDevice(driver, a)):
        model = mlp()
        step = classifier_step(OPTIMIZERS["adam"], model, backend=CupyBackend(driver=driver))
        losses = step.run(wrap(x), wrap(y), batch_size=32, epochs=2, seed=2)
        one = step(wrap(x[:32]), wrap(y[:32]))
        found.append([losses, one, model.state_dict()["0.weight"]])
    (losses, one, weight), (device_losses, device_one, device_weight) = found
    assert_same(device_losses.get(), losses)
    assert_same(device_one.get(), np.asarray(one))
    assert_same(device_weight, weight)
    assert ("wait_for", 7) in driver.log
    double = gp.compile(lambda a: a * 2.0, backend=CupyBackend(driver=driver))
    assert_close(double(OnDevice(driver, x)).get(), 2 * x)


def test_what_does_not_fit_is_refused() -> None:
    driver = ShimDriver()
    step = classifier_step(OPTIMIZERS["sgd"], backend=CupyBackend(driver=driver))
    x, y = digits()
    with pytest.raises(DTypeError, match="float64, expected float32"):
        step(OnDevice(driver, x.astype(np.float64)), y)
    with pytest.raises(DataError, match="ascontiguousarray"):
        step(OnDevice(driver, x, strides=(4, 4 * len(x))), y)
    with pytest.raises(DataError, match="device='cuda'"):
        classifier_step(OPTIMIZERS["sgd"], backend="numpy")(OnDevice(driver, x), y)


def test_labels_on_the_device_are_looked_at_by_the_kernel() -> None:
    driver = ShimDriver()
    step = classifier_step(OPTIMIZERS["sgd"], backend=CupyBackend(driver=driver))
    x, y = digits()
    y[3] = 10
    with pytest.raises(DataError, match="label is out of range"):
        step(x, OnDevice(driver, y))
