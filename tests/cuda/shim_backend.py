"""The CUDA backend on the shim, with every input and output in memory of its own.

The backend puts the arrays of a run side by side; apart from each other the ends of each are
watched, and what one kernel reads or writes too far is seen.
"""

from __future__ import annotations

import sys
from typing import Any

import pytest
from shim_driver import ShimDriver

from gpubp.backends.cuda import CupyBackend
from gpubp.backends.cuda.drivers.base import Driver, Memory
from gpubp.backends.cuda.memory import Resident, Staging


class ApartStaging(Staging):
    """Gives each array memory of exactly its size, until the next run."""

    def __init__(self, driver: Driver) -> None:
        super().__init__(driver)
        self._pieces: list[Memory] = []

    def place(self, sizes: list[int]) -> list[int]:
        self._pieces = [self._driver.allocate(n) for n in sizes]
        return [piece.address for piece in self._pieces]


def shim_backend(
    order: str = "forward",
    *,
    driver: ShimDriver | None = None,
    execution: str | None = None,
    **options: Any,
) -> CupyBackend:
    """A backend on a new device.

    Args:
        order: of threads and blocks.
        driver: instead of a new one.
        execution: of `CupyBackend`.
        **options: for `ShimDriver`.
    """
    device = driver or ShimDriver(order, **{"seed": 1, **options})
    return apart(CupyBackend(driver=device, execution=execution))


def apart(backend: CupyBackend) -> CupyBackend:
    """With memory of its own for each array of a run."""
    device = backend.driver
    transfers, block = backend._transfers, backend._transfers.block
    transfers.arguments, transfers.results = ApartStaging(device), ApartStaging(device)
    transfers.resident = Resident(device, ApartStaging)
    block._results, block._arguments = 0, 0
    return backend


def as_cuda(monkeypatch: pytest.MonkeyPatch, backend: CupyBackend) -> CupyBackend:
    """The backend that `device="cuda"` gives, and that ops on the device's arrays run on."""
    key = ("cupy", backend.driver.number)
    monkeypatch.setitem(sys.modules["gpubp.backends"]._instances, key, backend)
    return backend
