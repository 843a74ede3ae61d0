"""Where parameters lie in flat banks, cut into buckets, and each bucket into a part for each rank.

A bucket is a stretch of one bank that holds whole parameters; buckets are sent one by one. Of each,
every rank has a part of its own, in the order of ranks, whose ends are multiples of 64 bytes. A
parameter's bucket is chosen once, when the parameter is first seen, and stays.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpubp.core.store import ALIGN_BYTES, Bank, Slot, round_up


@dataclass(frozen=True, eq=False)
class Bucket:
    """A stretch of a bank.

    Attributes:
        bank: that it is of.
        start, stop: elements.
        slots: the parameters in it, the last first.
    """

    bank: Bank
    start: int
    stop: int
    slots: tuple[Slot, ...]

    def each(self, size: int) -> int:
        """Elements of a rank's part; the last ones' may be shorter, or empty."""
        step = ALIGN_BYTES // self.bank.dtype.itemsize
        return round_up(-(-(self.stop - self.start) // size), step)

    def part(self, rank: int, size: int) -> tuple[int, int]:
        """(first element, the one behind the last) of a rank's part, in the bank."""
        each = self.each(size)
        low = min(self.start + rank * each, self.stop)
        return low, min(low + each, self.stop)


class Layout:
    """The buckets of a step's parameters.

    Args:
        size: how many ranks there are.
        cap: bytes after which a bucket is full; None for one bucket a bank.
    """

    def __init__(self, size: int, cap: int | None = None) -> None:
        self.size, self._cap = size, cap
        self._of: dict[int, Bucket] = {}
        self._buckets: list[Bucket] = []

    def buckets(self, params: Iterable[Slot]) -> list[Bucket]:
        """The buckets that hold these parameters, which have banks; those with the last parameters,
        whose gradients are found first, come first."""
        given = list(params)
        self._add([p for p in given if id(p) not in self._of])
        wanted = {id(self._of[id(p)]) for p in given}
        return [b for b in self._buckets if id(b) in wanted]

    def knows(self, param: Slot) -> bool:
        """The parameter has a bucket."""
        return id(param) in self._of

    def piece(self, param: Slot, rank: int) -> tuple[int, int]:
        """(first element, the one behind the last) of what a rank has of a parameter, counted from
        the parameter's first; (0, 0) if it has nothing of it."""
        low, high = self._of[id(param)].part(rank, self.size)
        low, high = max(low - param.offset, 0), min(high - param.offset, param.size)
        return (low, high) if low < high else (0, 0)

    def _add(self, new: list[Slot]) -> None:
        banks: dict[int, list[Slot]] = {}
        for slot in new:
            banks.setdefault(id(slot.bank), []).append(slot)
        for slots in banks.values():
            run: list[Slot] = []
            for slot in sorted(slots, key=lambda s: -s.offset):
                if run and (_end(slot) != run[-1].offset or self._full(run)):
                    self._close(run)
                    run = []
                run.append(slot)
            self._close(run)

    def _full(self, run: list[Slot]) -> bool:
        return self._cap is not None and sum(s.size * s.dtype.itemsize for s in run) >= self._cap

    def _close(self, run: list[Slot]) -> None:
        bank = run[0].bank
        assert bank is not None
        bucket = Bucket(bank, run[-1].offset, _end(run[0]), tuple(run))
        self._buckets.append(bucket)
        self._of.update((id(slot), bucket) for slot in run)


def _end(slot: Slot) -> int:
    return slot.offset + round_up(max(slot.size, 1), ALIGN_BYTES // slot.dtype.itemsize)
