"""Means over the whole batch inside of a program whose ranks have a part of it each.

An op of its own all-reduces a small array while the program runs, forwards and backwards: what a
rank's part adds to the sum, all ranks' losses depend on, so its cotangent is the sum of theirs. All
ranks run the same program, and meet at the same ops.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.distributed.communicator import Communicator
from gpubp.ops.custom import custom_op
from gpubp.ops.index import concat


class RankMeans:
    """Takes means over all ranks.

    Args:
        communicator: of this rank.

    Ranks talk while a program is at work for all of them. Else, where it is tried or verified, a
    rank's part stands for the whole.
    """

    def __init__(self, communicator: Communicator) -> None:
        self._communicator, self._live = communicator, False
        self._sum = custom_op("all_reduce", self._forward, lambda g, y, x: self._sum(g))

    def _forward(self, x: NDArray[Any]) -> NDArray[Any]:
        total = np.array(x, order="C")
        if self._live:
            self._communicator.all_reduce(total)
        return total

    @contextmanager
    def at_work(self) -> Iterator[None]:
        """While open, all ranks run the program."""
        self._live = True
        try:
            yield
        finally:
            self._live = False

    def __call__(self, mean: Any, count: int) -> tuple[Any, Any]:
        """(the mean over all ranks, of how many values), of a vector (C,) that is one of `count`
        values here."""
        number = np.full(1, count, mean.dtype)
        whole = self._sum(concat([mean * number, number]))
        total = whole[-1:]
        return whole[:-1] / total, total
