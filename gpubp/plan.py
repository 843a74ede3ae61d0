"""Planning: the order of instructions, the barriers between them, and flat updates.

Comes in: parts over buffers, from `lower`. Goes out: ordered instructions, each with its phase.

Two instructions may run in the same phase (no barrier between them) if no worker touches what
another one writes: they share no written memory, or both walk it by the same rows, or one worker
runs both. The order is chosen to need few phases: everything that can run without a barrier runs
first.
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import NamedTuple

from gpubp.byte_ranges import ByteRanges
from gpubp.errors import VerificationError
from gpubp.keys import exact
from gpubp.program import Buffer, Instruction, Operand, Part
from gpubp.store import ALIGN_BYTES, round_up

RowKey = tuple[int, int, int, int, tuple[tuple[int, int], ...]]


class Access(NamedTuple):
    """One operand's bytes: buffer, first byte, the byte after the last, and how they are used."""

    buffer: int
    low: int
    high: int
    write: bool
    rows: RowKey | None
    value: int


@dataclass(eq=False)
class Unit:
    """An instruction being scheduled.

    Attributes:
        parts: what it runs.
        accesses: every operand of the parts.
        reads, writes: graph values; a merged update keeps those of all it was made of.
        before: positions of the units that must come first.
    """

    parts: list[Part]
    accesses: list[Access]
    reads: set[int]
    writes: set[int]
    before: set[int] = field(default_factory=set)

    @staticmethod
    def of(parts: list[Part]) -> Unit:
        """A unit with the values its operands name."""
        accesses = _accesses(parts)
        reads = {a.value for a in accesses if not a.write}
        return Unit(parts, accesses, reads, {a.value for a in accesses if a.write})


def _accesses(parts: list[Part]) -> list[Access]:
    found = []
    for part in parts:
        for operand, write in part.operands():
            low, high = extent(operand)
            key = row_key(operand, part)
            found.append(Access(operand.buffer, low, high, write, key, operand.value))
    return found


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
    merged = _merge_flat_updates(units, buffers)
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


def extent(operand: Operand) -> tuple[int, int]:
    """First byte of the operand in its buffer, and the one after its last."""
    low = high = operand.offset
    for n, stride in zip(operand.shape, operand.strides):
        if n == 0:
            return (0, 0)
        if stride < 0:
            low += (n - 1) * stride
        else:
            high += (n - 1) * stride
    size = operand.dtype.itemsize
    return low * size, (high + 1) * size


def row_key(operand: Operand, part: Part) -> RowKey | None:
    """Accesses with equal keys touch the same bytes from the same worker only; None: from any."""
    if part.rows == 0:
        return (0, 0, 0, 0, ())
    if operand.axis is None or any(s < 0 for s in operand.strides):
        return None
    size, stride = operand.dtype.itemsize, operand.strides[operand.axis]
    others = [
        (n, s)
        for i, (n, s) in enumerate(zip(operand.shape, operand.strides))
        if i != operand.axis and n > 1 and s > 0
    ]
    wider = [(n, s) for n, s in others if s >= stride]  # a row lies in several pieces
    if sum((n - 1) * s for n, s in others if s < stride) >= stride:
        return None
    wider.sort(key=lambda axis: axis[1])
    reach = stride * part.rows
    for n, s in wider:
        if s < reach:
            return None  # pieces of different rows would meet
        reach = n * s
    pieces = tuple((n, s * size) for n, s in wider)
    return part.rows, part.grain, operand.offset * size, stride * size, pieces


class Phase:
    """What the instructions since the last barrier read and write."""

    def __init__(self) -> None:
        self._read: dict[int, ByteRanges[RowKey | None]] = {}
        self._written: dict[int, ByteRanges[RowKey | None]] = {}
        self._known: set[tuple[int, int, int, bool, RowKey | None]] = set()

    def add(self, unit: Unit) -> None:
        """`unit` runs in this phase."""
        for access in unit.accesses:
            if access[:5] not in self._known:
                self._known.add(access[:5])
                ranges = self._written if access.write else self._read
                found = ranges.setdefault(access.buffer, ByteRanges())
                found.add(access.low, access.high, access.rows)

    def conflicts(self, unit: Unit) -> bool:
        """A barrier is needed before `unit`."""
        return any(
            access.rows is None or access.rows != rows
            for access in unit.accesses
            for rows in self._overlapping(access)
        )

    def _overlapping(self, access: Access) -> Iterable[RowKey | None]:
        """The rows of what shares memory with `access`, where one of the two writes."""
        kinds = (self._written, self._read) if access.write else (self._written,)
        for ranges in kinds:
            if access.buffer in ranges:
                yield from ranges[access.buffer].overlapping(access.low, access.high)


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


def _merge_flat_updates(units: list[Unit], buffers: list[Buffer]) -> list[Unit]:
    """One instruction for neighbouring slots that are updated by the same elementwise rule."""
    alike: dict[object, list[int]] = {}
    for i, unit in enumerate(units):
        key = _flat_key(unit, buffers)
        if key is not None:
            alike.setdefault(key, []).append(i)
    gone: set[int] = set()
    for members in alike.values():
        for run in _neighbours(members, units):
            if len(run) > 1 and _independent(run, units):
                merged = units[run[0]]
                merged.parts = [_flat_part([units[i].parts[0] for i in run])]
                merged.accesses = _accesses(merged.parts)
                for i in run[1:]:
                    merged.reads |= units[i].reads
                    merged.writes |= units[i].writes
                gone.update(run[1:])
    return [u for i, u in enumerate(units) if i not in gone]


def _flat_key(unit: Unit, buffers: list[Buffer]) -> object:
    """What flat updates must have in common to be merged; None if the unit is not one."""
    part = unit.parts[0]
    if len(unit.parts) > 1 or part.kernel != "elementwise" or part.rows == 0:
        return None
    target = part.outputs[0][1]
    described: list[object] = []
    for operand, _ in part.operands():
        if _is_scalar(operand):
            described.append((operand.buffer, operand.offset))
            continue
        same = operand.shape == target.shape and operand.offset == target.offset
        if buffers[operand.buffer].kind != "bank" or not same or not operand.contiguous:
            return None
        described.append(operand.buffer)
    body = tuple(
        (c.spec.name, c.args, exact(tuple(c.attrs.items())), c.dtype.str) for c in part.body
    )
    return body, tuple(described), tuple(v for v, _ in part.outputs)


def _is_scalar(operand: Operand) -> bool:
    return all(s == 0 for s in operand.strides)


def _neighbours(members: list[int], units: list[Unit]) -> list[list[int]]:
    """Split units into runs whose slots lie back to back, but for the padding between slots."""
    runs: list[list[int]] = []
    end = -1
    for i in sorted(members, key=lambda i: units[i].parts[0].outputs[0][1].offset):
        out = units[i].parts[0].outputs[0][1]
        if out.offset == end:
            runs[-1].append(i)
        else:
            runs.append([i])
        step = ALIGN_BYTES // out.dtype.itemsize
        end = out.offset + round_up(max(math.prod(out.shape), 1), step)
    return runs


def _independent(run: list[int], units: list[Unit]) -> bool:
    """No member waits, directly or not, for another."""
    members, seen = set(run), set()
    frontier = [j for i in run for j in units[i].before]
    while frontier:
        i = frontier.pop()
        if i in members:
            return False
        if i not in seen:
            seen.add(i)
            frontier.extend(units[i].before)
    return True


def _flat_part(parts: list[Part]) -> Part:
    """The same rule over the flat range that spans all parts, padding between slots included."""
    first, last = parts[0].outputs[0][1], parts[-1].outputs[0][1]
    size = last.offset + math.prod(last.shape) - first.offset

    def widen(operands: tuple[Operand, ...]) -> Operand:
        if _is_scalar(operands[0]):
            return operands[0]
        also = tuple(o.value for o in operands[1:])
        return replace(operands[0], shape=(size,), strides=(1,), axis=0, also=also)

    body = [replace(c, shape=(size,)) for c in parts[0].body]
    inputs = [widen(o) for o in zip(*[p.inputs for p in parts])]
    columns = zip(*[[o for _, o in p.outputs] for p in parts])
    outputs = [(v, widen(o)) for (v, _), o in zip(parts[0].outputs, columns)]
    return Part("elementwise", body, None, inputs, outputs, size)
