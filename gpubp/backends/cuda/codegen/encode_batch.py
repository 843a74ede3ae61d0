"""What is gathered: the rows of a batch, by the index order, and slices by indices; and the units
in which bytes are moved.
"""

from __future__ import annotations

import math
from typing import Protocol

from gpubp.backends.cuda.codegen.writer import Writer, number_of
from gpubp.backends.cuda.launch import Context, Launch, simple, status
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


class Gathering(Protocol):
    """What is gathered, as the source needs it.

    Attributes:
        count: units of the result.
        number: the C type in which they are counted.
    """

    count: int
    number: str

    def call(self, units: str) -> str:
        """The statement; `units`: which ones the calling thread takes."""
        ...


class Batch:
    """The rows of a batch.

    Args:
        writer: of the part; declares the pointers.
        part: that loads a batch.
        context: of the program.

    See `Gathering`.
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
        width = writer.params.add("width", nbytes // unit)
        self._ending = f"{width}, {order}, {data}, {target});"
        self._kind = f"{ctype}, {self.number}"

    def call(self, units: str) -> str:
        return f"gp::load_batch<{self._kind}>({units}, {self._ending}"


class Slices:
    """Slices along an axis, by indices.

    Args:
        writer: of the part; declares the pointers.
        part: that gathers.
        context: of the program.

    See `Gathering`.
    """

    def __init__(self, writer: Writer, part: Part, context: Context) -> None:
        data, indices = (part.inputs[i] for i in part.body[0].args)
        out = part.outputs[0][1]
        axis, size = part.body[0].attrs["axis"], out.dtype.itemsize
        width = math.prod(data.shape[axis + 1 :]) * size
        unit = unit_of(context, width, data, out)
        ctype = UNITS[unit]
        self.count = math.prod(out.shape) * size // unit
        self.number = number_of(math.prod(out.shape) * size, math.prod(data.shape) * size)
        values = {"size": data.shape[axis], "count": math.prod(indices.shape)}
        values["width"] = width // unit
        numbers = ", ".join(writer.params.add(k, v) for k, v in values.items())
        self._kind = f"{ctype}, {self.number}"
        self._ending = (
            f"{numbers}, {writer.pointer(data, ctype=ctype)}, {writer.pointer(indices)}, "
            f"{writer.pointer(out, True, ctype)}, {status(writer, context)});"
        )

    def call(self, units: str) -> str:
        return f"gp::gather<{self._kind}>({units}, {self._ending}"


def load_batch(part: Part, context: Context) -> list[Launch]:
    """The launch that gathers a batch."""
    writer = Writer(part, context)
    return _over_grid(writer, part, Batch(writer, part, context))


def gather(part: Part, context: Context) -> list[Launch]:
    """The launch that gathers slices."""
    writer = Writer(part, context)
    return _over_grid(writer, part, Slices(writer, part, context))


def _over_grid(writer: Writer, part: Part, what: Gathering) -> list[Launch]:
    units = writer.params.add("units", what.count)
    call = what.call(f"gp::of_grid<{what.number}>({units})")
    return [simple(writer, part, "move", [call], what.count)]
