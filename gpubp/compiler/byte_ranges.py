"""Which of many byte ranges overlap a given one."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from typing import Generic, TypeVar

T = TypeVar("T")


class ByteRanges(Generic[T]):
    """Half-open ranges of one buffer with a value each, ordered by their first byte.

    Only those that begin less than the longest range before the one asked for are looked at: with
    values that lie side by side, as slots and temporaries do, that is a few of many.
    """

    def __init__(self) -> None:
        self._lows: list[int] = []
        self._entries: list[tuple[int, T]] = []
        self._longest = 0

    def add(self, low: int, high: int, value: T) -> None:
        """Remember `value` for the bytes from `low` to before `high`."""
        if high <= low:
            return
        position = bisect_right(self._lows, low)
        self._lows.insert(position, low)
        self._entries.insert(position, (high, value))
        self._longest = max(self._longest, high - low)

    def overlapping(self, low: int, high: int) -> list[T]:
        """The values of all ranges that share a byte with `low` to before `high`."""
        if high <= low:
            return []
        first = bisect_left(self._lows, low - self._longest)
        stop = bisect_left(self._lows, high, first)
        return [value for end, value in self._entries[first:stop] if end > low]
