"""Products whose factors are rounded once, in memory, and not for each tile that reads them
(`kernels/staged.cuh`).

Comes in: a part built around a product. Goes out: whether that is worth it, and the lines that
declare its factors. Copies in 16 bits are those that the library of products would read
(`copies.py`): what two products read is rounded once a step.
"""

from __future__ import annotations

import math

from gpubp.backends.cuda.codegen.tiles import plan
from gpubp.backends.cuda.codegen.writer import Writer
from gpubp.backends.cuda.copies import STAGED, reach, size_of
from gpubp.backends.cuda.execution import BYTES_A_US, NODE_US
from gpubp.backends.cuda.launch import Context
from gpubp.compiler.parts import Operand, Part
from gpubp.compiler.views import matrix_batch_stride
from gpubp.core import Shape

CELL_BYTES = 16  # which are copied as one
# Microseconds that a multiprocessor's tiles must save, beyond what moving the copies takes: as long
# as it takes to launch two more kernels. None of it was measured on hardware.
LEAST_SAVED = 2 * NODE_US
# Instructions of a thread that a multiprocessor begins in one: four warps a clock, at 1.7 GHz.
ISSUED_A_US = 218e3
# What a thread does less for each element of a slice, by the PTX of the largest tiles (at least:
# docs/design/cuda.md has all of them): as a matrix, by 16 bytes; out of images, one by one.
PRODUCT_SAVES, WINDOWS_SAVE = 7, 13


def form_of(context: Context, dtype: str) -> str:
    """The form of the copies that large products of this precision may read; "" for none."""
    form = STAGED.get(context.precision, "") if dtype == "float32" else ""
    # The body of a loop, which has no chooser, would copy its weights anew in each round.
    return "" if context.chooser is None or context.processors < 1 else form


def worth(
    context: Context, form: str, read: float, saves: int, copied: tuple[Operand, ...]
) -> bool:
    """Whether tiles that read so many elements save more than copies of all these operands cost.

    Args:
        context: of the device.
        form: of the copies.
        read: elements, for all tiles.
        saves: instructions of a thread, for each of them.
        copied: the operands.
    """
    size = size_of(copied[0], form)
    narrower = copied[0].dtype.itemsize - size
    saved = read * max(narrower / BYTES_A_US, saves / ISSUED_A_US)
    moved = sum(_span(o) * (o.dtype.itemsize + size) for o in copied) / BYTES_A_US
    return (saved - moved) / context.processors >= LEAST_SAVED


def kept_as(context: Context) -> str:
    """The C type of an element of a copy."""
    return "gp::u32" if context.precision == "tf32" else "unsigned short"


def rounded(part: Part, context: Context) -> str:
    """The form of the copies that a part's factors are read from; "" if they are read as they are.

    Either way the same numbers are multiplied and added in the same order: the same bits.
    """
    assert part.anchor is not None
    compute = part.body[part.anchor]
    form = form_of(context, compute.dtype.name)
    if not form:
        return ""
    *batch, m, n = compute.shape
    a, b = (part.inputs[i] for i in compute.args)
    if any(_layout(o, step, tuple(batch), form) is None for o, step in ((a, -1), (b, -2))):
        return ""
    sizes = (math.prod(batch), m, n, a.shape[-1])
    found = plan(*sizes, a.dtype.itemsize, context.processors, context.precision)
    read = math.prod(batch) * a.shape[-1] * (m * found.columns + n * found.rows)
    return form if worth(context, form, read, PRODUCT_SAVES, (a, b)) else ""


def stored(writer: Writer, context: Context, part: Part, form: str) -> list[str]:
    """Declare the copies as factors of this block's product."""
    assert part.anchor is not None
    compute = part.body[part.anchor]
    lines, kept = [], kept_as(context)
    for name, i, step in zip("ab", compute.args, (-1, -2)):
        operand = part.inputs[i]
        found = _layout(operand, step, compute.shape[:-2], form)
        assert found is not None
        along, pitch, walk = found
        address = context.copies.address(operand, form)
        data = f"gp::fixed<const {kept}>({writer.params.add(name, address, 'gp::u64')})"
        batch = writer.params.add(f"{name}_batch", walk)
        row = writer.params.add(f"{name}_row", pitch)
        kind = f"gp::Stored<{kept}, {'true' if along else 'false'}>"
        lines.append(f"const {kind} {name} = {{{data} + batch * {batch}, {row}}};")
    return lines


def _layout(operand: Operand, step: int, batch: Shape, form: str) -> tuple[bool, int, int] | None:
    """Whether neighbours are along k (the axis `step`), elements from a row of neighbours to the
    next, and from a product of the batch to the next; None if these are not whole cells.
    """
    strides, line = operand.strides, -3 - step
    walk = matrix_batch_stride(operand.shape, strides, batch)
    if walk is None or walk < 0 or 1 not in (strides[step], strides[line]):
        return None
    along = strides[step] == 1
    pitch = strides[line] if along else strides[step]
    cell = CELL_BYTES // size_of(operand, form)
    whole = pitch > 0 and not any(n % cell for n in (operand.offset, pitch, walk))
    return (along, pitch, walk) if whole else None


def _span(operand: Operand) -> int:
    """Elements that a copy has: gaps between rows are copied, too."""
    first, last = reach(operand)
    return last - first
