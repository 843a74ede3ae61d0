"""The rows of a batch, gathered by the index order; and the units in which bytes are moved."""

from __future__ import annotations

import math

from gpubp.backends.cuda.codegen.writer import Writer, number_of
from gpubp.backends.cuda.launch import Context, Launch, simple
from gpubp.compiler.parts import Operand, Part

UNITS = {16: "int4", 8: "gp::i64", 4: "int", 1: "char"}


def unit_of(context: Context, width: int, *operands: Operand) -> int:
    """The largest unit that divides rows of `width` bytes and the places of operands."""
    for unit in UNITS:
        fits = width % unit == 0
        for operand in operands:
            start, entry = context.locate(operand.buffer)
            moving = entry is not None and unit > operand.dtype.itemsize
            fits = (
                fits
                and not moving
                and (start + operand.offset * operand.dtype.itemsize) % unit == 0
            )
        if fits:
            return unit
    return 1


class Batch:
    """What a gathered batch needs of the source.

    Args:
        writer: of the part; declares the pointers.
        part: that loads a batch.
        context: of the program.

    Attributes:
        count: units of all rows.
        width: units of a row, as an expression.
    """

    def __init__(self, writer: Writer, part: Part, context: Context) -> None:
        out = part.outputs[0][1]
        nbytes = math.prod(out.shape[1:]) * out.dtype.itemsize
        unit = min(unit_of(context, nbytes, out), out.dtype.itemsize if nbytes % 4 else 16)
        ctype = UNITS[unit]
        self.count = out.shape[0] * (nbytes // unit)
        self.number = number_of(self.count)
        data = writer.raw(context.resident + part.body[0].attrs["input"], ctype)
        order = writer.raw(context.order, "gp::i64")
        target = writer.pointer(out, True, ctype)
        self.width = writer.params.add("width", nbytes // unit)
        self._ending = f"{self.width}, {order}, {data}, {target});"
        self._kind = f"{ctype}, {self.number}"

    def call(self, units: str) -> str:
        """The statement; `units`: which ones the calling thread takes."""
        return f"gp::load_batch<{self._kind}>({units}, {self._ending}"


def load_batch(part: Part, context: Context) -> list[Launch]:
    """The launch that gathers a batch."""
    writer = Writer(part, context)
    rows = writer.params.add("rows", part.outputs[0][1].shape[0])
    batch = Batch(writer, part, context)
    call = batch.call(f"gp::of_grid<{batch.number}>({rows} * {batch.width})")
    return [simple(writer, part, "move", [call], batch.count)]
