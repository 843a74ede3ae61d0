"""Products whose factors are rounded to 16 bits once, in memory, and not for each tile that reads
them (`kernels/staged.cuh`).

Comes in: a part built around a product. Goes out: whether that is worth it, and the lines that
declare its factors. Copies are those that the library of products would read (`copies.py`): what
two products read is rounded once a step.
"""

from __future__ import annotations

import math

from gpubp.backends.cuda.codegen.tiles import plan
from gpubp.backends.cuda.codegen.writer import Writer
from gpubp.backends.cuda.copies import ROUNDED, reach, size_of
from gpubp.backends.cuda.execution import BYTES_A_US, NODE_US
from gpubp.backends.cuda.launch import Context
from gpubp.compiler.parts import Operand, Part
from gpubp.compiler.views import matrix_batch_stride
from gpubp.core import Shape

CELL = 8  # elements of 16 bytes, which are copied as one
# Bytes for each multiprocessor that tiles must read less, beyond what making the copies moves: as
# many as it reads while two more kernels are launched. None of it was measured on hardware.
LEAST_SAVED = 2 * NODE_US * BYTES_A_US


def rounded(part: Part, context: Context) -> str:
    """The form of the copies that a part's factors are read from; "" if they are read as they are.

    Either way the same numbers are multiplied and added in the same order: the same bits.
    """
    assert part.anchor is not None
    compute = part.body[part.anchor]
    form = ROUNDED.get(context.precision, "") if compute.dtype.name == "float32" else ""
    # The body of a loop, which has no chooser, would copy its weights anew in each round.
    if not form or context.chooser is None or context.processors < 1:
        return ""
    *batch, m, n = compute.shape
    a, b = (part.inputs[i] for i in compute.args)
    if any(_layout(o, step, tuple(batch)) is None for o, step in ((a, -1), (b, -2))):
        return ""
    sizes = (math.prod(batch), m, n, a.shape[-1])
    found = plan(*sizes, a.dtype.itemsize, context.processors, context.precision)
    read = math.prod(batch) * a.shape[-1] * (m * found.columns + n * found.rows)
    narrower = a.dtype.itemsize - size_of(a, form)
    moved = sum(_span(o) * (o.dtype.itemsize + size_of(o, form)) for o in (a, b))
    return form if read * narrower - moved >= LEAST_SAVED * context.processors else ""


def stored(writer: Writer, context: Context, part: Part, form: str) -> list[str]:
    """Declare the copies as factors of this block's product."""
    assert part.anchor is not None
    compute = part.body[part.anchor]
    lines = []
    for name, i, step in zip("ab", compute.args, (-1, -2)):
        operand = part.inputs[i]
        found = _layout(operand, step, compute.shape[:-2])
        assert found is not None
        along, pitch, walk = found
        address = context.copies.address(operand, form)
        data = f"gp::fixed<const unsigned short>({writer.params.add(name, address, 'gp::u64')})"
        batch = writer.params.add(f"{name}_batch", walk)
        row = writer.params.add(f"{name}_row", pitch)
        kind = f"gp::Stored<{'true' if along else 'false'}>"
        lines.append(f"const {kind} {name} = {{{data} + batch * {batch}, {row}}};")
    return lines


def _layout(operand: Operand, step: int, batch: Shape) -> tuple[bool, int, int] | None:
    """Whether neighbours are along k (the axis `step`), elements from a row of neighbours to the
    next, and from a product of the batch to the next; None if these are not whole cells.
    """
    strides, line = operand.strides, -3 - step
    walk = matrix_batch_stride(operand.shape, strides, batch)
    if walk is None or walk < 0 or 1 not in (strides[step], strides[line]):
        return None
    along = strides[step] == 1
    pitch = strides[line] if along else strides[step]
    whole = pitch > 0 and not any(n % CELL for n in (operand.offset, pitch, walk))
    return (along, pitch, walk) if whole else None


def _span(operand: Operand) -> int:
    """Elements that a copy has: gaps between rows are copied, too."""
    first, last = reach(operand)
    return last - first
