"""Memory of one process that others on the same machine can map.

It has no name in a file system: a descriptor of the process that made it, which others open by that
process's folder in /proc. So nothing is left behind, however a process ends. Linux alone has both.
"""

from __future__ import annotations

import contextlib
import mmap
import os
import secrets
import weakref
from collections import OrderedDict
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from gpubp.core.store import address_of

HEAD = 64  # bytes in front of the data: a number that nobody else has
MAPPED = 8  # of another process's memories, how many stay mapped
Words = NDArray[np.int64]


class Place(NamedTuple):
    """Where data lie, as others may find it: whole numbers, which can be sent.

    Attributes:
        descriptor: of the memory, in the process that made it.
        number: stands in front of the memory.
        size: bytes of the memory behind that.
        offset: bytes from there to the data.
    """

    descriptor: int
    number: int
    size: int
    offset: int


class SharedMemory:
    """What this process lets others map; gone when no array uses it any more."""

    def __init__(self) -> None:
        self._made: dict[int, tuple[int, Place]] = {}  # by first address

    def zeros(self, size: int, dtype: Any) -> NDArray[Any]:
        """Shape (size,), 64-byte aligned, in memory of its own.

        Raises:
            OSError: there is no room for it.
        """
        nbytes = size * np.dtype(dtype).itemsize
        descriptor = os.memfd_create("gpubp", os.MFD_CLOEXEC)
        try:
            # Room is taken now: without it a process is ended where it first writes.
            os.posix_fallocate(descriptor, 0, HEAD + nbytes)
            mapped = mmap.mmap(descriptor, HEAD + nbytes)
        except BaseException:
            os.close(descriptor)
            raise
        number = secrets.randbits(62) + 1
        whole = np.frombuffer(mapped, np.uint8)
        whole[:8].view(np.int64)[0] = number
        first = address_of(whole) + HEAD
        self._made[first] = nbytes, Place(descriptor, number, nbytes, 0)
        weakref.finalize(mapped, _let_go, self._made, first, descriptor, os.getpid())
        return whole[HEAD:].view(dtype)

    def place_of(self, array: NDArray[Any]) -> Place | None:
        """Where others find an array, if it lies in such memory."""
        at = address_of(array)
        for first, (nbytes, place) in self._made.items():
            if first <= at and at + array.nbytes <= first + nbytes:
                return place._replace(offset=at - first)
        return None


def _let_go(made: dict[int, Any], first: int, descriptor: int, process: int) -> None:
    if made.pop(first, None) is not None and os.getpid() == process:
        with contextlib.suppress(OSError):
            os.close(descriptor)


class Peer:
    """Memory of another process, mapped as it is asked for.

    Args:
        process: its id.
    """

    def __init__(self, process: int) -> None:
        self._process = process
        self._mapped: OrderedDict[int, NDArray[np.uint8]] = OrderedDict()

    def array(self, place: Place, count: int, dtype: Any) -> NDArray[Any]:
        """Shape (count,): live; the process that made it writes there.

        Raises:
            OSError: it cannot be opened, or is another memory by now.
        """
        whole = self._mapped.get(place.number)
        if whole is None:
            whole = self._mapped[place.number] = self._opened(place)
            while len(self._mapped) > MAPPED:
                self._mapped.popitem(last=False)
        self._mapped.move_to_end(place.number)
        start, dtype = HEAD + place.offset, np.dtype(dtype)
        return whole[start : start + count * dtype.itemsize].view(dtype)

    def _opened(self, place: Place) -> NDArray[np.uint8]:
        descriptor = os.open(f"/proc/{self._process}/fd/{place.descriptor}", os.O_RDWR)
        try:
            if os.fstat(descriptor).st_size != HEAD + place.size:
                raise OSError(f"process {self._process} has let go of memory that was asked for")
            whole = np.frombuffer(mmap.mmap(descriptor, HEAD + place.size), np.uint8)
        finally:
            os.close(descriptor)
        if int(whole[:8].view(np.int64)[0]) != place.number:
            raise OSError(f"process {self._process} has let go of memory that was asked for")
        return whole
