"""What a program is made of: buffers, operands in them, parts that read and write operands.

A `Part` is a fused group of ops: its `body` is evaluated op by op by the NumPy references, which
defines it; `kernel` names the implementation that backends use. `rows` says how the work is shared:
worker w of W takes a contiguous share of `rows` rows, or columns of a product (0: worker 0 does it
all). An `Instruction` is one or more parts that need no barrier between them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from gpubp.core import ArrayType, Kind, OpSpec, Shape, Typed
from gpubp.core.store import Bank
from gpubp.core.strided import is_contiguous

PRODUCT = Kind.MATMUL.value  # the kernel of matrix products
WHOLE_LINES, FINE = 16, 4  # grains: columns that fill cache lines, or shares of nearly one size


@dataclass(eq=False)
class Buffer:
    """A piece of memory that operands point into.

    Attributes:
        name: unique in the program.
        kind: "arena" (temporaries), "const", "bank" (parameters, state, scalars), "input" or
            "output" (given at each run; an output advances by its size every step).
        dtype: of the elements; uint8 for the arena and the constants, which mix dtypes.
        size: elements.
        payload: the bank, or the constants' bytes.
        position: which input or output it is.
    """

    name: str
    kind: str
    dtype: np.dtype[Any]
    size: int
    payload: Bank | np.ndarray[Any, Any] | None = None
    position: int = 0

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize


class Operand(NamedTuple):
    """A strided array in a buffer.

    Attributes:
        buffer: index into `Program.buffers`.
        offset: in elements of `dtype` from the start of the buffer.
        value: the graph value that it holds (for reports and proofs).
        axis: the one that is shared among workers as the part's rows are; None: any worker may
            touch all of it.
        also: further values, where updates of several slots were merged into one.
    """

    buffer: int
    dtype: np.dtype[Any]
    offset: int
    shape: Shape
    strides: tuple[int, ...]
    value: int
    axis: int | None
    also: tuple[int, ...] = ()

    @property
    def contiguous(self) -> bool:
        return is_contiguous(self.shape, self.strides)

    @property
    def row_step(self) -> int:
        """Elements from a row to the next: its length, or more in a matrix with wide rows. (The
        stride of an axis of size 1 says nothing.)
        """
        return self.shape[-1] if self.contiguous else self.strides[-2]

    @property
    def extent(self) -> tuple[int, int]:
        """The first byte of its buffer that it has, and the one after the last."""
        first = last = self.offset
        for n, stride in zip(self.shape, self.strides):
            if n == 0:
                return (0, 0)
            if stride < 0:
                first += (n - 1) * stride
            else:
                last += (n - 1) * stride
        size = self.dtype.itemsize
        return first * size, (last + 1) * size

    @property
    def place(self) -> tuple[int, int]:
        """Its buffer, and the byte there of its first element."""
        return self.buffer, self.offset * self.dtype.itemsize

    def meets(self, other: Operand) -> bool:
        """The two may share memory."""
        if self.buffer != other.buffer:
            return False
        (first, last), (start, stop) = self.extent, other.extent
        return first < stop and start < last

    @property
    def unique_bytes(self) -> int:
        """Bytes of distinct elements: a broadcast axis counts once."""
        shape, strides = self.shape, self.strides
        if 0 in shape:
            return 0
        sizes = [n for n, s in zip(shape, strides) if s] if 0 in strides else shape
        return math.prod(sizes) * self.dtype.itemsize


class Compute(NamedTuple):
    """One op of a body. `args` number the part's inputs first, then the body's results."""

    spec: OpSpec
    args: tuple[int, ...]
    attrs: dict[str, Any]
    shape: Shape
    dtype: np.dtype[Any]


class BodyProgram(NamedTuple):
    """The body of a loop.

    Attributes:
        program: a `Program`, which is made of parts and stands above them. Its inputs are those of
            the loop, its outputs what the carry becomes, then the values.
        values: which nodes of the body are stacked.
    """

    program: Any
    values: tuple[int, ...]


@dataclass(eq=False)
class Part:
    """A fused group of ops, computed by one kernel.

    Attributes:
        kernel: which implementation runs it ("matmul", "elementwise", "reduce", ...).
        body: the ops, in order.
        anchor: position in `body` of the op that the kernel is built around; None if elementwise.
        inputs: what it reads.
        outputs: (number of the value, where it goes).
        rows: how many rows are shared among workers; 0 for worker 0 alone.
        grain: shares begin at multiples of it, where there are enough rows.
        body_program: of a loop: what it runs again and again.
    """

    kernel: str
    body: list[Compute]
    anchor: int | None
    inputs: list[Operand]
    outputs: list[tuple[int, Operand]]
    rows: int
    grain: int = WHOLE_LINES
    body_program: BodyProgram | None = None

    def operands(self) -> list[tuple[Operand, bool]]:
        """Every operand, and whether it is written."""
        return [(o, False) for o in self.inputs] + [(o, True) for _, o in self.outputs]

    @property
    def name(self) -> str:
        """`matmul+add+relu`"""
        return "+".join(c.spec.name for c in self.body)

    @property
    def shared(self) -> str:
        """What workers share: "rows", or "columns" of a product."""
        columns = self.kernel == PRODUCT and self.outputs[0][1].axis == 1
        return "columns" if columns else "rows"

    @property
    def flops(self) -> float:
        values: list[Typed] = [*self.inputs, *self.body]  # which all have a shape and a dtype
        return sum(
            [c.spec.arithmetic(c, *[values[a] for a in c.args], **c.attrs) for c in self.body]
        )

    @property
    def bytes_moved(self) -> int:
        """Bytes read and written if each operand crosses memory once."""
        return sum([o.unique_bytes for o, _ in self.operands()])

    def ancestors(self, position: int) -> list[int]:
        """Positions of the ops that an op of the body depends on, in order."""
        base = len(self.inputs)
        found = {position}
        for i in range(position, -1, -1):
            if i in found:
                found.update(a - base for a in self.body[i].args if a >= base)
        return sorted(found - {position})

    def type_of(self, value: int) -> ArrayType:
        """Shape and dtype of a numbered value."""
        count = len(self.inputs)
        found = self.inputs[value] if value < count else self.body[value - count]
        return ArrayType(found.shape, found.dtype)


@dataclass(eq=False)
class Instruction:
    """Parts that run one after the other without a barrier; `sync`: a barrier comes first."""

    parts: list[Part]
    sync: bool = False

    @property
    def name(self) -> str:
        return " & ".join(p.name for p in self.parts)
