"""Device memory: copies of banks, and buffers that grow."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.drivers.base import Driver, Memory
from gpubp.core.store import Bank


class BankCopy:
    """A bank's copy on one device.

    Holds in between: the host's copy is current unless `newer`; the device's is unless `stale`.
    """

    def __init__(self, bank: Bank, driver: Driver) -> None:
        self._driver = driver
        self.memory = driver.allocate(bank.size * bank.dtype.itemsize)
        self._host = bank.attach(self)
        self.stale, self.newer = True, False

    def sync_host(self) -> None:
        """See `store.DeviceCopy`."""
        if self.newer:
            self._driver.download(self.memory.address, self._host)
            self.newer = False
        self.stale = True

    def change(self, work: Callable[[int], None]) -> None:
        """See `store.DeviceCopy`."""
        self.prepare(written=True)
        self._driver.synchronize()
        work(self.memory.address)

    def prepare(self, written: bool) -> None:
        """Bring the device's copy up to date before a run, which writes it if `written`."""
        if self.stale:
            self._driver.upload(self.memory.address, self._host)
            self.stale = False
        self.newer = self.newer or written


def copy_of(bank: Bank, driver: Driver) -> BankCopy:
    """The bank's copy on this device; made, or fetched from another device, if need be."""
    device_copy = bank.device_copy
    if not isinstance(device_copy, BankCopy) or device_copy._driver is not driver:
        device_copy = BankCopy(bank, driver)
    return device_copy


class GrowableBuffer:
    """One piece of device memory that is replaced by a larger one when it is too small."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._memory: Memory | None = None

    @property
    def nbytes(self) -> int:
        return 0 if self._memory is None else self._memory.nbytes

    def at_least(self, nbytes: int) -> int:
        """Its address. What it held is lost if it has to grow."""
        if self._memory is None or self._memory.nbytes < nbytes:
            self._memory = None  # freed before the larger one is asked for
            self._memory = self._driver.allocate(max(nbytes, 256))
        return self._memory.address


class Staging:
    """Arrays of one run, side by side in one buffer."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._buffer = GrowableBuffer(driver)

    @property
    def nbytes(self) -> int:
        """What the buffer holds already."""
        return self._buffer.nbytes

    def place(self, sizes: list[int]) -> list[int]:
        """Addresses for pieces of so many bytes, each a multiple of 256."""
        ends = np.cumsum([0] + [-(-max(n, 1) // 256) * 256 for n in sizes])
        start = self._buffer.at_least(int(ends[-1]))
        return [start + int(end) for end in ends[:-1]]

    def upload(self, arrays: list[NDArray[Any]]) -> list[int]:
        """Copy arrays to the device; returns their addresses."""
        places = self.place([a.nbytes for a in arrays])
        for place, array in zip(places, arrays, strict=True):
            if array.nbytes:
                self._driver.upload(place, array)
        return places
