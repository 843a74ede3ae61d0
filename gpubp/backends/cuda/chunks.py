"""Data larger than the device's memory: runs in chunks of whole steps, uploaded while others run.

Comes in: the host's arrays, an index order, a schedule. Goes out: the same steps on the same rows
in the same order, so the same bits as with resident data. The host gathers the rows of a chunk, in
index order, into one of two pinned buffers; a second stream copies it into one of two device
buffers, while the steps of the other chunk run.

Holds in between: a pinned buffer is filled when its last copy has ended; a copy starts when the
steps that read its device buffer before have been queued and have ended; steps start when their
copy has ended. Nothing else orders the two streams.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import Feed
from gpubp.backends.cuda.drivers.base import Driver, Event
from gpubp.backends.cuda.loaded import Loaded
from gpubp.backends.cuda.memory import GrowableBuffer
from gpubp.errors import DataError

RESIDENT_SHARE = 0.7  # of the free memory: larger data are uploaded in chunks
SMALL_BYTES = 1 << 20  # fewer are uploaded as a whole without asking what is free
CHUNK_BYTES = 1 << 26  # at most, or what a step needs
FEW_ROWS = 0.5  # of all rows: a run that reads fewer of more than a chunk uploads only these
ALIGN = 256


def resident_bytes(given: int | None) -> int | None:
    """How large data may be that are uploaded as a whole: an argument, or GPUBP_RESIDENT_BYTES.

    Raises:
        DataError: not a number of bytes.
    """
    asked = os.environ.get("GPUBP_RESIDENT_BYTES") if given is None else given
    if asked in (None, ""):
        return None
    try:
        found = int(asked)
    except ValueError:
        found = -1
    if found < 0:
        raise DataError(f"resident_bytes is {asked!r}, expected a number of bytes.")
    return found


@dataclass(frozen=True)
class Plan:
    """The chunks of a run.

    Attributes:
        bounds: (first, stop) of the steps of each.
        schedule: the run's, with positions counted from the start of each step's chunk.
        rows: for each chunk, the positions in the index order of the rows that its steps read.
        most: rows of the largest.
    """

    bounds: list[tuple[int, int]]
    schedule: NDArray[np.int64]
    rows: Callable[[int, int], NDArray[np.int64]]
    most: int


def plan_if_needed(
    arrays: Sequence[Any], schedule: NDArray[np.int64], sizes: Sequence[int], limit: int
) -> Plan | None:
    """A plan where the data are too large, or where little of much data is read.

    Args:
        arrays: the host's.
        schedule, sizes: see `plan`.
        limit: bytes of data that may be uploaded as a whole.
    """
    nbytes = sum(a.nbytes for a in arrays)
    read = int(np.asarray(sizes, np.int64)[schedule[:, 0]].sum())
    little = nbytes > CHUNK_BYTES and read < FEW_ROWS * len(arrays[0])
    if nbytes <= limit and not little:
        return None
    width = max(1, sum(map(row_bytes, arrays)))
    return plan(schedule, sizes, min(CHUNK_BYTES, limit // 4) // width)


def plan(schedule: NDArray[np.int64], sizes: Sequence[int], capacity: int) -> Plan:
    """Cut a schedule into chunks of whole steps.

    Args:
        schedule: (steps, 2): program, first position in the index order.
        sizes: samples a step, for each program.
        capacity: rows that a chunk should not exceed; but it has at least one step.
    """
    each = np.asarray(sizes, np.int64)[schedule[:, 0]]
    before = np.concatenate([[0], np.cumsum(each)])
    bounds, start = [], 0
    while start < len(each):
        stop = int(np.searchsorted(before, before[start] + capacity, side="right")) - 1
        bounds.append((start, max(stop, start + 1)))
        start = bounds[-1][1]
    local = schedule.copy()
    for first, stop in bounds:
        local[first:stop, 1] = before[first:stop] - before[first]

    def rows(first: int, stop: int) -> NDArray[np.int64]:
        shift = schedule[first:stop, 1] - local[first:stop, 1]
        total = int(before[stop] - before[first])
        return np.repeat(shift, each[first:stop]) + np.arange(total)

    most = max(int(before[stop] - before[first]) for first, stop in bounds)
    return Plan(bounds, local, rows, most)


class Chunks:
    """Two pinned buffers and two on the device; kept from run to run."""

    def __init__(self, driver: Driver) -> None:
        self._driver = driver
        self._buffers = [GrowableBuffer(driver), GrowableBuffer(driver)]
        self._pinned: list[NDArray[np.uint8]] = [np.empty(0, np.uint8)] * 2
        self._copied: list[Event | None] = [None, None]  # also of a run that was interrupted

    def run(
        self,
        chunks: Plan,
        feed: Feed,
        loaded: Sequence[Loaded],
        steps: Callable[[int, int], None],
    ) -> None:
        """Run all chunks.

        Args:
            chunks: the plan.
            feed: whose inputs are the resident arrays alone, on the host.
            loaded: the run's programs; `prepare` has been called for each.
            steps: launches steps first to stop of the plan's schedule.
        """
        offsets, nbytes = _offsets(feed.inputs, chunks.most)
        addresses = [self._room(i, nbytes) for i in range(min(2, len(chunks.bounds)))]
        free = [self._driver.mark()] * 2
        for number, (first, stop) in enumerate(chunks.bounds):
            slot = number % 2
            before = self._copied[slot]
            if before is not None:
                before.wait()
            rows = feed.order[chunks.rows(first, stop)]
            places = [addresses[slot] + offset for offset in offsets]
            event = free[slot]
            for place, offset, array in zip(places, offsets, feed.inputs, strict=True):
                gathered = _gathered(self._pinned[slot][offset:], array, rows)
                event = self._driver.start_upload(place, gathered, event)
            self._copied[slot] = event
            self._driver.wait_event(event)
            for program in loaded:
                program.move_inputs(places)
            steps(first, stop)
            free[slot] = self._driver.mark()

    def _room(self, slot: int, nbytes: int) -> int:
        if len(self._pinned[slot]) < nbytes:
            before = self._copied[slot]
            if before is not None:
                before.wait()
            self._pinned[slot] = np.empty(0, np.uint8)  # freed before the larger one is asked for
            self._pinned[slot] = self._driver.pinned(nbytes)
        return self._buffers[slot].at_least(nbytes)


def _offsets(arrays: Sequence[Any], rows: int) -> tuple[list[int], int]:
    """Where each array's rows start in a buffer, and the buffer's size."""
    sizes = [-(-rows * row_bytes(a) // ALIGN) * ALIGN for a in arrays]
    ends = np.cumsum([0, *sizes])
    return [int(e) for e in ends[:-1]], max(int(ends[-1]), 1)


def row_bytes(array: Any) -> int:
    """Bytes of one row."""
    return int(np.prod(array.shape[1:], dtype=np.int64)) * int(array.dtype.itemsize)


def _gathered(
    room: NDArray[np.uint8], array: NDArray[Any], rows: NDArray[np.int64]
) -> NDArray[Any]:
    """Rows of an array, in the order of `rows`, in the first bytes of `room`."""
    nbytes = len(rows) * row_bytes(array)
    out: NDArray[Any] = room[:nbytes].view(array.dtype).reshape(len(rows), *array.shape[1:])
    # The rows were checked before; "clip" is the mode that writes to `out` directly.
    np.take(array, rows, axis=0, out=out, mode="clip")
    return out
