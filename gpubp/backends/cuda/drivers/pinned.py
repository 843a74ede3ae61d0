"""Small pinned memory for uploads, used again once the copies from it have ended."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

LEAST = 1 << 12  # bytes of a block; sizes are powers of two


class PinnedBlocks:
    """Blocks, and the uploads that are on their way from them.

    Args:
        allocate: gives pinned memory of so many bytes.
        ended: whether the work before an event is done.
    """

    def __init__(
        self, allocate: Callable[[int], NDArray[np.uint8]], ended: Callable[[Any], bool]
    ) -> None:
        self._allocate, self._ended = allocate, ended
        self._spare: defaultdict[int, list[NDArray[np.uint8]]] = defaultdict(list)
        self.in_flight: deque[tuple[Any, NDArray[np.uint8]]] = deque()

    def take(self, nbytes: int) -> NDArray[np.uint8]:
        """A block of at least so many bytes."""
        while self.in_flight and self._ended(self.in_flight[0][0]):
            block = self.in_flight.popleft()[1]
            self._spare[block.nbytes].append(block)
        size = max(LEAST, 1 << (nbytes - 1).bit_length())
        return self._spare[size].pop() if self._spare[size] else self._allocate(size)

    def busy(self, block: NDArray[np.uint8], event: Any) -> None:
        """The block is read until an event."""
        self.in_flight.append((event, block))
