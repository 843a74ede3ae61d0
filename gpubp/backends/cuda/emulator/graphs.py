"""Branches of a recording: launches that no edge orders must not meet in memory.

Comes in: what each launch of a graph read, wrote and changed by atomic operations, byte by byte,
in one run of it; and its edges. Goes out: a `KernelError` of the first two that meet and may run
beside each other. What is changed by atomic operations of both is not a meeting.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from random import Random
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.emulator.faults import KernelError
from gpubp.backends.cuda.emulator.memory import ALLOCATED, DeviceSpace

READ, WRITTEN, CHANGED = 1, 2, 4  # bits of a byte: loads, stores, atomic operations


class Trace:
    """What launches touch of the device's memory, while it is the memory's `trace`."""

    def __init__(self, memory: DeviceSpace) -> None:
        self._touched = np.zeros(memory.nbytes, np.uint8)

    def note(self, at: Any, width: int, wanted: int, atomic: bool) -> None:
        """Lanes access `width` bytes at each of `at`, in a state `wanted`: of stores, ALLOCATED."""
        kind = CHANGED if atomic else WRITTEN if wanted == ALLOCATED else READ
        for byte in range(width):
            self._touched[at + byte] |= kind

    def take(self) -> Touched:
        """What was touched since the last time."""
        places = np.flatnonzero(self._touched)
        found = Touched(places, self._touched[places].copy())
        self._touched[places] = 0
        return found


@dataclass(frozen=True)
class Touched:
    """Offsets of bytes, in order, and how each was touched."""

    places: NDArray[np.int64]
    kinds: NDArray[np.uint8]

    def meets(self, other: Touched) -> int:
        """The offset of a byte that both touch, and one writes; -1: there is none."""
        both, mine, theirs = np.intersect1d(
            self.places, other.places, assume_unique=True, return_indices=True
        )
        a, b = self.kinds[mine], other.kinds[theirs]
        written = ((a | b) & WRITTEN) != 0
        changed = ((a & CHANGED) != 0) & ((b & READ) != 0)
        changed |= ((b & CHANGED) != 0) & ((a & READ) != 0)
        wrong = np.flatnonzero(written | changed)
        return int(both[wrong[0]]) if len(wrong) else -1


class Branches:
    """A recording.

    Args:
        nodes: the launches of each, with the names of their kernels.
        before: numbers of the nodes that each is behind.
        memory: of the device.
    """

    def __init__(
        self,
        nodes: Sequence[Sequence[tuple[str, Callable[[], None]]]],
        before: Sequence[Sequence[int]],
        memory: DeviceSpace,
    ) -> None:
        self._nodes, self._before, self._memory = nodes, before, memory
        self._names = ["+".join(name for name, _ in node) for node in nodes]

    def run(self, shuffle: Random | None, watch: bool) -> None:
        """Once, in the order of the recording, or in one that is drawn.

        Raises:
            KernelError: launches that may run beside each other meet; where one is asked to watch.
        """
        order = list(range(len(self._nodes)))
        if shuffle is not None:
            order = shuffled(self._before, shuffle)
        trace = Trace(self._memory) if watch and len(order) > 1 else None
        touched: dict[int, Touched] = {}
        self._memory.trace = trace
        try:
            for i in order:
                for _, launch in self._nodes[i]:
                    launch()
                if trace is not None:
                    touched[i] = trace.take()
        finally:
            self._memory.trace = None
        if trace is not None:
            found = [touched[i] for i in range(len(order))]
            require_apart(found, self._before, self._names, self._memory)


def shuffled(before: Sequence[Collection[int]], draw: Random) -> list[int]:
    """An order in which each is behind those before it, drawn among all."""
    left = [set(mine) for mine in before]
    waiting = set(range(len(left)))
    order = []
    while waiting:
        taken = draw.choice([i for i in sorted(waiting) if not left[i] & waiting])
        waiting.discard(taken)
        order.append(taken)
    return order


def require_apart(
    touched: Sequence[Touched],
    before: Sequence[Sequence[int]],
    names: Sequence[str],
    memory: DeviceSpace,
) -> None:
    """Raises KernelError: two launches meet, and no way of edges leads from one to the other.

    Args:
        touched: by each.
        before: numbers of those that each is behind.
        names: of their kernels.
        memory: for the message.
    """
    upto: list[int] = []
    for i, mine in enumerate(before):
        bits = 1 << i
        for j in mine:
            bits |= upto[j]
        upto.append(bits)
        for j in range(i):
            if bits >> j & 1:
                continue
            at = touched[i].meets(touched[j])
            if at >= 0:
                where = memory.describe(at)
                text = f"meets kernel {names[j]} at {where}, and no edge of the graph orders them"
                raise KernelError("race", names[i], text)
