"""The order of instructions, and the barriers between them.

Comes in: parts over buffers, from `lower`. Goes out: ordered instructions, each with its phase.

Two instructions may run in the same phase (no barrier between them) if no worker touches what
another one writes: they share no written memory, or both walk it by the same rows, or one worker
runs both. The order is chosen to need few phases: everything that can run without a barrier runs
first.
"""

from __future__ import annotations

import heapq

from gpubp.compiler.byte_ranges import ByteRanges
from gpubp.compiler.flat_updates import merge_flat_updates
from gpubp.compiler.parts import Buffer, Instruction, Part
from gpubp.compiler.units import Access, RowKey, Unit
from gpubp.errors import VerificationError


def plan(
    buffers: list[Buffer], instructions: list[list[Part]]
) -> tuple[list[Instruction], list[int]]:
    """Order instructions and place barriers.

    Args:
        buffers: all memory, temporaries as buffers of kind "temp".
        instructions: lists of parts, in any order.

    Returns:
        (instructions, phase of each).
    """
    units = [Unit.of(parts) for parts in instructions if parts]
    _order(units)
    merged = merge_flat_updates(units, buffers)
    if len(merged) < len(units):
        _order(merged)
    return _schedule(merged)


def _order(units: list[Unit]) -> None:
    """Producers before readers; readers of a slot's old value before the writer of its new one."""
    writer = {v: i for i, unit in enumerate(units) for v in unit.writes}
    written: dict[int, ByteRanges[int]] = {}
    for i, unit in enumerate(units):
        unit.before = {writer[v] for v in unit.reads if v in writer} - {i}
        for access in unit.accesses:
            if access.write:
                ranges = written.setdefault(access.buffer, ByteRanges())
                ranges.add(access.low, access.high, i)
    for i, unit in enumerate(units):
        for access in unit.accesses:
            if not access.write and access.value not in writer and access.buffer in written:
                for j in written[access.buffer].overlapping(access.low, access.high):
                    if j != i:
                        units[j].before.add(i)


class Phase:
    """What the instructions since the last barrier read and write."""

    def __init__(self) -> None:
        self._read: dict[int, ByteRanges[Access]] = {}
        self._written: dict[int, ByteRanges[Access]] = {}
        self._known: set[tuple[int, int, int, bool, RowKey | None]] = set()

    def add(self, unit: Unit) -> None:
        """`unit` runs in this phase."""
        for access in unit.accesses:
            if access[:5] not in self._known:
                self._known.add(access[:5])
                ranges = self._written if access.write else self._read
                found = ranges.setdefault(access.buffer, ByteRanges())
                found.add(access.low, access.high, access)

    def conflicts(self, unit: Unit) -> bool:
        """A barrier is needed before `unit`."""
        return any(map(self._meets_others, unit.accesses))

    def _meets_others(self, access: Access) -> bool:
        """Another worker touches what shares memory with `access`, and one of the two writes."""
        buffer, low, high, write = access[:4]
        for ranges in (self._written, self._read) if write else (self._written,):
            if buffer in ranges:
                for other in ranges[buffer].overlapping(low, high):
                    if not access.keeps_to(other):
                        return True
        return False


def _schedule(units: list[Unit]) -> tuple[list[Instruction], list[int]]:
    """A topological order that runs all it can before each barrier."""
    waits = [len(u.before) for u in units]
    after: list[list[int]] = [[] for _ in units]
    for i, unit in enumerate(units):
        for j in unit.before:
            after[j].append(i)
    ready = [i for i, n in enumerate(waits) if n == 0]  # a heap: the first in the list comes first
    blocked: list[int] = []  # ready, but for a barrier
    phase, number, pending = Phase(), 0, False
    instructions: list[Instruction] = []
    phases: list[int] = []
    while ready or blocked:
        if not ready:
            ready, blocked = blocked, []
            heapq.heapify(ready)
            phase, number, pending = Phase(), number + 1, True
        i = heapq.heappop(ready)
        if phase.conflicts(units[i]):
            blocked.append(i)
            continue
        phase.add(units[i])
        instructions.append(Instruction(units[i].parts, pending))
        phases.append(number)
        pending = False
        for j in after[i]:
            waits[j] -= 1
            if waits[j] == 0:
                heapq.heappush(ready, j)
    if len(instructions) < len(units):
        raise VerificationError("the instructions depend on each other in a circle")
    return instructions, phases
