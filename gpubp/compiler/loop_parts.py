"""Loops as parts: the body compiled to a program of its own, and how workers share its rounds.

Workers that share the rows of a batch run all rounds each for its own rows, and never meet: if the
body's program needs no barrier, and each round reads of the carry only the rows that the same
worker has written. Else one worker runs all of it.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from gpubp.compiler.group import Group
from gpubp.compiler.loop_body import FINAL, VALUE, Loop, goal
from gpubp.compiler.parts import BodyProgram, Compute, Operand, Part
from gpubp.compiler.places import Places
from gpubp.compiler.program import Program
from gpubp.compiler.views import Layout
from gpubp.core import Graph

Compile = Callable[[Graph], Program]


def loop_part(
    group: Group, layouts: dict[int, Layout], places: Places, leaving: set[int], compiled: Compile
) -> Part:
    """The part of a loop and its pieces.

    Args:
        group: the loop, and after it its pieces.
        layouts, places: of the graph.
        leaving: the nodes whose values are read by others, or are results.
        compiled: makes a program of a body.
    """
    node, pieces = group.nodes[0], group.nodes[1:]
    loop: Loop = node.attrs["loop"]
    values = sorted({p.attrs["at"] for p in pieces if p.attrs["kind"] == VALUE})
    ends = [after for _, after in loop.carries] + [loop.body.nodes[at] for at in values]
    program = compiled(goal(loop.body, ends))
    rows = _rows(program, loop)
    inputs: list[Operand] = []
    numbers: dict[tuple[int, int | None], int] = {}
    args = []
    for position, source in enumerate(node.inputs):
        axis = _axis_of_input(program, loop, position, rows)
        key = source.index, axis
        if key not in numbers:
            numbers[key] = len(inputs)
            inputs.append(places.operand(layouts[source.index], source.dtype, axis))
        args.append(numbers[key])
    first = len(inputs)
    body = [Compute(node.spec, tuple(args), node.attrs, node.shape, node.dtype)]
    body += [Compute(p.spec, (first,), p.attrs, p.shape, p.dtype) for p in pieces]
    outputs = []
    for number, p in enumerate(pieces, first + 1):
        if p.index in leaving:
            axis = None if rows == 0 else 0 if p.attrs["kind"] == FINAL else 1
            outputs.append((number, places.result(p, 0)._replace(axis=axis)))
    made = BodyProgram(program, tuple(values))
    return Part("loop", body, 0, inputs, outputs, rows, body_program=made)


def _rows(program: Program, loop: Loop) -> int:
    """How many rows workers share; 0 for one worker."""
    counts = {part.rows for part in program.parts}
    if len(counts) != 1 or program.syncs > 1 or loop.until >= 0:
        return 0
    (rows,) = counts
    outputs = [o for part in program.parts for _, o in part.outputs]
    shared = all(o.axis == 0 for o in outputs if program.buffers[o.buffer].kind == "output")
    carried = all(_reads_by_rows(program, loop, position, rows) for position, _ in loop.carries)
    return rows if shared and carried else 0


def _reads(program: Program, position: int) -> list[Operand]:
    """Operands in an input of the program."""
    numbers = {
        i for i, b in enumerate(program.buffers) if b.kind == "input" and b.position == position
    }
    return [o for part in program.parts for o in part.inputs if o.buffer in numbers]


def _reads_by_rows(program: Program, loop: Loop, position: int, rows: int) -> bool:
    """A worker reads, of an input of the body, the rows of its own share."""
    shape = loop.body.inputs[position].shape
    length = math.prod(shape[1:])
    return shape[:1] == (rows,) and all(
        _is_row_by_row(operand, length) for operand in _reads(program, position)
    )


def _is_row_by_row(operand: Operand, length: int) -> bool:
    """Row r of the operand lies in row r of the matrix with rows of this length."""
    if operand.axis != 0 or min(operand.strides) < 0 or operand.strides[0] != length:
        return False
    reach = sum([(n - 1) * s for n, s in zip(operand.shape[1:], operand.strides[1:])])
    return operand.offset >= 0 and operand.offset + reach < length


def _axis_of_input(program: Program, loop: Loop, position: int, rows: int) -> int | None:
    """The axis of a loop's input of which a worker reads its share only."""
    if rows == 0 or not _reads_by_rows(program, loop, position, rows):
        return None
    return 1 if position in loop.sliced else 0
