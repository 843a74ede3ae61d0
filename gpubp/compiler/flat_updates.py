"""One instruction for neighbouring slots that are updated by the same elementwise rule."""

from __future__ import annotations

import math

from gpubp.compiler.parts import Buffer, Operand, Part
from gpubp.compiler.units import Unit, accesses_of
from gpubp.core.keys import exact
from gpubp.core.store import ALIGN_BYTES, round_up


def merge_flat_updates(units: list[Unit], buffers: list[Buffer]) -> list[Unit]:
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
                merged.accesses = accesses_of(merged.parts)
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
            same = operands[0]
            return same._replace(shape=(size,), strides=(0,), axis=None) if same.shape else same
        also = tuple(o.value for o in operands[1:])
        return operands[0]._replace(shape=(size,), strides=(1,), axis=0, also=also)

    body = [c._replace(shape=(size,)) for c in parts[0].body]
    inputs = [widen(o) for o in zip(*[p.inputs for p in parts])]
    columns = zip(*[[o for _, o in p.outputs] for p in parts])
    outputs = [(v, widen(o)) for (v, _), o in zip(parts[0].outputs, columns)]
    return Part("elementwise", body, None, inputs, outputs, size)
