"""Device memory: copies of banks, buffers that grow, what a run reads and writes side by side, and
data that stay from run to run.
"""

from __future__ import annotations

import itertools
import operator
import weakref
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.drivers.base import DeviceMemoryError, Driver, Memory
from gpubp.core.store import Bank

PIECE = 256  # pieces that lie side by side start at multiples of so many bytes
MOST_SETS = 4  # of data that stay


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

    def place(self, sizes: Sequence[int]) -> list[int]:
        """Addresses for pieces of so many bytes, each a multiple of 256."""
        ends = _ends(sizes)
        start = self._buffer.at_least(ends[-1])
        return [start + end for end in ends[:-1]]

    def upload(self, arrays: Sequence[NDArray[Any]]) -> list[int]:
        """Copy arrays to the device; returns their addresses."""
        places = self.place([a.nbytes for a in arrays])
        for place, array in zip(places, arrays, strict=True):
            if array.nbytes:
                self._driver.upload(place, array)
        return places


class RunBlock:
    """Small results, a run's words and small arguments, in this order in one piece of memory: so a
    small run is one copy there and one back.

    Args:
        driver: gives the memory.
        words: 8-byte words, which kernels find where they are for good.
        results, arguments: bytes for both.

    Attributes:
        address: of the words.
    """

    def __init__(self, driver: Driver, words: int, results: int, arguments: int) -> None:
        self._driver, self._words = driver, words
        self._results, self._arguments = results, arguments
        self._memory = driver.allocate(results + PIECE + arguments)
        self.address = self._memory.address + results

    def place_results(self, sizes: Sequence[int]) -> list[int] | None:
        """Addresses for results of so many bytes, up to the words; None if there is no room."""
        ends = _ends(sizes)
        if ends[-1] > self._results:
            return None
        return [self.address - ends[-1] + end for end in ends[:-1]]

    def holds(self, place: int) -> bool:
        """A place that `place_results` gave."""
        return self.address - self._results <= place < self.address

    def place_arguments(self, sizes: Sequence[int]) -> list[int] | None:
        """Addresses for arguments, behind the words; None if there is no room."""
        ends = _ends(sizes)
        if ends[-1] > self._arguments:
            return None
        return [self.address + PIECE + end for end in ends[:-1]]

    def upload(
        self, words: NDArray[np.int64], arrays: Sequence[NDArray[Any]], places: Sequence[int]
    ) -> None:
        """Copy the words, and arguments to where they were placed, as one."""
        last = max((p + a.nbytes for p, a in zip(places, arrays, strict=True)), default=0)
        packet = np.zeros(max(last - self.address, words.nbytes), np.uint8)
        for place, array in zip((self.address, *places), (words, *arrays), strict=True):
            at = place - self.address
            packet[at : at + array.nbytes] = _bytes_of(array)
        self._driver.upload(self.address, packet)

    def download(self, arrays: Sequence[NDArray[Any]], places: Sequence[int]) -> NDArray[np.int64]:
        """Copy results from where they were placed, and the words, as one; returns the words."""
        start = min(places, default=self.address)
        packet = np.empty(self.address - start + 8 * self._words, np.uint8)
        self._driver.download(start, packet)
        for place, array in zip(places, arrays, strict=True):
            _bytes_of(array)[...] = packet[place - start :][: array.nbytes]
        return packet[self.address - start :].view(np.int64)


def _ends(sizes: Sequence[int]) -> list[int]:
    """Where pieces of so many bytes start, one after the other, and where the last one ends."""
    padded = [-(-max(n, 1) // PIECE) * PIECE for n in sizes]
    return [0, *itertools.accumulate(padded)]


def _bytes_of(array: NDArray[Any]) -> NDArray[np.uint8]:
    """The bytes of a C-contiguous array, in place."""
    return array.reshape(-1).view(np.uint8)


class _Set:
    """Arrays that were uploaded together."""

    def __init__(self, staging: Staging) -> None:
        self.staging = staging
        self._arrays: list[weakref.ref[NDArray[Any]]] = []
        self.places: list[int] = []

    def holds(self, arrays: Sequence[NDArray[Any]]) -> bool:
        """These very arrays."""
        found = [reference() for reference in self._arrays]
        return len(found) == len(arrays) and all(map(operator.is_, found, arrays))

    @property
    def gone(self) -> bool:
        """The host has let go of one, so it will not ask for them again."""
        return any(reference() is None for reference in self._arrays)

    def upload(self, arrays: Sequence[NDArray[Any]]) -> None:
        self._arrays = []  # if this fails, it holds none
        self.places = self.staging.upload(arrays)
        self._arrays = [weakref.ref(a) for a in arrays]


class Resident:
    """Data of the host that stay on the device from run to run, while the host keeps them.

    Args:
        driver: of the device.
        kind: of memory for those of one run.
    """

    def __init__(self, driver: Driver, kind: Callable[[Driver], Staging] = Staging) -> None:
        self._driver, self._kind = driver, kind
        self._sets: list[_Set] = []  # the one that was used last is the last

    @property
    def nbytes(self) -> int:
        """Memory that `let_go` would free."""
        return sum(kept.staging.nbytes for kept in self._sets)

    def addresses(self, arrays: Sequence[NDArray[Any]], same: bool) -> list[int]:
        """Where the arrays are; uploaded, unless they were before and are the `same` still.

        Raises:
            DeviceMemoryError: there is no room, even without all others.
        """
        found = next((kept for kept in self._sets if kept.holds(arrays)), None)
        self._sets = [kept for kept in self._sets if not kept.gone and kept is not found]
        if found is None:
            full = len(self._sets) >= MOST_SETS
            found = self._sets.pop(0) if full else _Set(self._kind(self._driver))
            same = False
        if not same:
            try:
                found.upload(arrays)
            except DeviceMemoryError:
                if not self.let_go():
                    raise
                found.upload(arrays)
        self._sets.append(found)
        return found.places

    def let_go(self) -> bool:
        """Free them all; whether there were any."""
        found, self._sets = bool(self._sets), []
        return found
