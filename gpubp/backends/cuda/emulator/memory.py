"""Memory as bytes, each with what is known of it: not allocated, allocated, written, in flight.

Comes in: places (offsets in bytes), as arrays. Goes out: values, and which places are wrong. A
`Space` is the device's memory, the shared memory of all blocks that run, or the local memory of all
threads.
"""

from __future__ import annotations

from bisect import bisect_right
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.drivers.base import DeviceMemoryError
from gpubp.backends.cuda.emulator.values import BITS
from gpubp.errors import BackendError

NONE, ALLOCATED, WRITTEN = 0, 1, 3  # states of a byte
IN_FLIGHT = 5  # allocated, and a copy that goes on beside has not arrived
# Where the spaces stand among generic addresses; the upper bits tell them apart.
SPACE_BITS = 40
SHARED_BASE, LOCAL_BASE, PARAM_BASE, GLOBAL_BASE = (n << SPACE_BITS for n in (1, 2, 3, 0x7F))
GAP = 256  # bytes around each allocation that belong to none
_FIRST = 1 << 20
_SHIFT = {1: 0, 2: 1, 4: 2, 8: 3}


def _repeated(byte: int, width: int) -> Any:
    return BITS[width].type(int.from_bytes(bytes([byte]) * width, "little"))


_PATTERN = {(s, w): _repeated(s, w) for s in (ALLOCATED, WRITTEN, IN_FLIGHT) for w in BITS}
_FLIES = {w: _repeated(IN_FLIGHT & ~WRITTEN, w) for w in BITS}


class Space:
    """Bytes, and the state of each.

    Attributes:
        nbytes: how many.
        data, state: the bytes, and NONE, ALLOCATED, WRITTEN or IN_FLIGHT for each.
        copies: some have been in flight.
        shadows: bytes that share an entry -> who wrote and read them last (see `races.py`).
    """

    def __init__(self, nbytes: int, state: int = NONE) -> None:
        self.nbytes = -(-max(nbytes, 16) // 16) * 16
        self.copies = False
        self.shadows: dict[int, tuple[NDArray[np.int64], NDArray[np.int64]]] = {}
        self._set(np.zeros(self.nbytes, np.uint8), np.zeros(self.nbytes, np.uint8))
        if state:
            self.state[:] = state

    def _set(self, data: NDArray[np.uint8], state: NDArray[np.uint8]) -> None:
        self.data, self.state, self.nbytes = data, state, len(data)
        self._data = {w: data.view(t) for w, t in BITS.items()}
        self._state = {w: state.view(t) for w, t in BITS.items()}
        self.shadows.clear()

    def lacking(self, at: Any, width: int, wanted: int) -> NDArray[np.bool_] | None:
        """Which places have not all their bytes in a state; None if all have.

        Args:
            at: offsets, multiples of `width`.
            width: bytes of an access, up to 16.
            wanted: ALLOCATED, or WRITTEN.
        """
        wrong: Any = None
        for part in range(0, width, 8):
            each = min(width, 8)
            found = self._state[each].take((at + part) >> _SHIFT[each], mode="clip")
            pattern = _PATTERN[wanted, each]
            lacks = (found & pattern) != pattern
            wrong = lacks if wrong is None else wrong | lacks
        return wrong if wrong.any() else None

    def flying(self, at: Any, width: int) -> NDArray[np.bool_] | None:
        """Which places have bytes in flight; None if none has."""
        if not self.copies:
            return None
        found: Any = False
        for part in range(0, width, 8):
            each = min(width, 8)
            state = self._state[each].take((at + part) >> _SHIFT[each], mode="clip")
            found = found | ((state & _FLIES[each]) != 0)
        return found if found.any() else None

    def depart(self, at: Any, width: int) -> None:
        """Bytes are in flight from now on; what was there is gone."""
        self.copies = True
        for part in range(0, width, 4):
            self._data[4][(at + part) >> 2] = 0xFFFFFFFF
            self._state[4][(at + part) >> 2] = _PATTERN[IN_FLIGHT, 4]

    def load(self, at: Any, width: int) -> Any:
        """The bits at places that were checked."""
        return self._data[width].take(at >> _SHIFT[width], mode="clip")

    def store(self, at: Any, values: Any, width: int) -> None:
        """Of several values for one place the last lane's stays."""
        self._data[width][at >> _SHIFT[width]] = values
        self._state[width][at >> _SHIFT[width]] = _PATTERN[WRITTEN, width]

    def shadow(self, granule: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Who wrote, and who read, each piece of so many bytes last."""
        if granule not in self.shadows:
            count = self.nbytes // granule
            self.shadows[granule] = np.zeros(count, np.int64), np.zeros(count, np.int64)
        return self.shadows[granule]


class Piece:
    """Device memory, freed with this object.

    Attributes:
        address: of its first byte.
        nbytes: as asked for.
    """

    def __init__(self, memory: DeviceSpace, nbytes: int, state: int) -> None:
        self._memory, self.nbytes = memory, nbytes
        self.address = memory.place(nbytes, state)

    def __del__(self) -> None:
        if getattr(self, "address", 0):
            self._memory.remove(self.address, self.nbytes)


class Tracing(Protocol):
    """Is told of accesses; see `graphs.Trace`."""

    def note(self, at: Any, width: int, wanted: int, atomic: bool) -> None: ...


class DeviceSpace(Space):
    """The device's memory: allocations with gaps between them.

    Args:
        limit: bytes that it has.

    Attributes:
        trace: is told of every access of a kernel's; None: nobody is.
        conditions: of loops in graphs, by their handles.
    """

    def __init__(self, limit: int = 1 << 36) -> None:
        super().__init__(_FIRST)
        self.trace: Tracing | None = None
        self.conditions: dict[int, int] = {}
        self.limit, self.used = limit, 0
        self._end = GAP
        self._free: dict[int, list[int]] = {}
        self._starts: list[int] = []
        self._sizes: dict[int, int] = {}

    def allocate(self, nbytes: int, state: int = WRITTEN) -> Piece:
        """Memory of zeros.

        Args:
            nbytes: how much.
            state: ALLOCATED, so that reading it before it is written is a fault; or WRITTEN.

        Raises:
            DeviceMemoryError: there is not enough.
        """
        if nbytes > self.limit - self.used:
            free = self.limit - self.used
            raise DeviceMemoryError(f"{nbytes:,} bytes were asked for, {free:,} are free.")
        return Piece(self, nbytes, state)

    def place(self, nbytes: int, state: int) -> int:
        """Address of new memory; the oldest freed piece of its size, if there are several."""
        size = -(-max(nbytes, 1) // GAP) * GAP
        known = self._free.get(size, [])
        if len(known) > 4:  # what was freed lately stays free, so that its use is seen
            at = known.pop(0)
        else:
            at = self._end
            self._end += size + GAP
            if self._end + GAP > self.nbytes:
                self._grow(self._end + GAP)
        self.data[at : at + nbytes] = 0
        self.state[at : at + nbytes] = state
        self._starts.insert(bisect_right(self._starts, at), at)
        self._sizes[at] = nbytes
        self.used += nbytes
        return GLOBAL_BASE + at

    def _grow(self, needed: int) -> None:
        size = self.nbytes
        while size < needed:
            size *= 2
        data, state = np.zeros(size, np.uint8), np.zeros(size, np.uint8)
        data[: self.nbytes], state[: self.nbytes] = self.data, self.state
        self._set(data, state)

    def remove(self, address: int, nbytes: int) -> None:
        """Memory that nobody may use any more."""
        at = address - GLOBAL_BASE
        self.state[at : at + nbytes] = NONE
        self._starts.remove(at)
        del self._sizes[at]
        self._free.setdefault(-(-max(nbytes, 1) // GAP) * GAP, []).append(at)
        self.used -= nbytes

    def part(self, address: int, nbytes: int) -> slice:
        """Where bytes are that one allocation holds.

        Raises:
            BackendError: none does.
        """
        at = address - GLOBAL_BASE
        i = bisect_right(self._starts, at) - 1
        if i < 0 or at + nbytes > self._starts[i] + self._sizes[self._starts[i]]:
            raise BackendError(f"{nbytes} bytes at {address:#x} are not in one allocation")
        return slice(at, at + nbytes)

    def write(self, address: int, array: NDArray[Any]) -> None:
        """Copy a C-contiguous host array here."""
        if array.nbytes:
            here = self.part(address, array.nbytes)
            self.data[here] = np.frombuffer(array.tobytes(), np.uint8)
            self.state[here] = WRITTEN

    def read(self, address: int, nbytes: int) -> NDArray[np.uint8]:
        """A copy of bytes."""
        return self.data[self.part(address, nbytes)].copy() if nbytes else np.zeros(0, np.uint8)

    def written(self, address: int, nbytes: int) -> NDArray[np.bool_]:
        """For each byte, whether somebody wrote it."""
        return np.asarray(self.state[self.part(address, nbytes)] == WRITTEN)

    def describe(self, at: int) -> str:
        """Where an offset lies, in words."""
        i = bisect_right(self._starts, at) - 1
        best = ""
        distance = self.nbytes
        for start in self._starts[max(i, 0) : i + 2]:
            size = self._sizes[start]
            if start <= at < start + size:
                return f"byte {at - start} of an allocation of {size} bytes"
            behind, before = at - (start + size), start - at
            if 0 <= behind < distance:
                best, distance = f"{behind} bytes behind an allocation of {size} bytes", behind
            if 0 < before < distance:
                best, distance = f"{before} bytes before an allocation of {size} bytes", before
        return best or f"address {at + GLOBAL_BASE:#x}, far from any allocation"
