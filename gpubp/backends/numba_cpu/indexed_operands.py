"""Batches that products read where they are.

Comes in: a program whose first parts gather the rows of a batch. Goes out: which of these need not
be gathered, because only products and convolutions read them, row by row. Such a part gets the
resident array and the index order instead: a copy less, and no memory that workers share.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from gpubp.compiler.parts import Operand, Part
from gpubp.compiler.program import Program

_OF_IMAGES = ("conv", "conv_weight")


@dataclass(frozen=True)
class IndexedOperand:
    """A batch that is read through the index order.

    Attributes:
        source: buffer of the resident array.
        order: buffer of the index order at the step's position.
        start: where the batch would be, in elements.
    """

    source: int
    order: int
    start: int

    def place(self, operand: Operand) -> tuple[int, int]:
        """(buffer, byte offset) of an operand in row 0 of the resident array."""
        return self.source, (operand.offset - self.start) * operand.dtype.itemsize


def find_indexed_operands(program: Program, resident: int, order: int) -> dict[int, IndexedOperand]:
    """Batches that only products read, by the number of their value.

    Args:
        program: a batched one; another has none.
        resident: number of the buffer that stands for the first resident input.
        order: number of the buffer that stands for the index order.
    """
    found = {}
    for part in program.parts:
        if part.kernel != "load_batch":
            continue
        batch = part.outputs[0][1]
        kept = program.buffers[batch.buffer].kind == "arena" and len(batch.shape) > 1
        if kept and all(_takes_rows(p, batch) for p in _readers(program.parts, batch)):
            source = resident + part.body[0].attrs["input"]
            found[batch.value] = IndexedOperand(source, order, batch.offset)
    return found


def _readers(parts: Iterable[Part], batch: Operand) -> list[Part]:
    return [p for p in parts if any(o.value == batch.value for o in p.inputs)]


def _takes_rows(part: Part, batch: Operand) -> bool:
    """The part is a product that needs of the batch only where each of its rows is."""
    if part.kernel in _OF_IMAGES:
        return _takes_images(part, batch)
    if part.kernel != "matmul" or part.anchor is None:
        return False
    anchor = part.body[part.anchor]
    if len(anchor.shape) != 2:
        return False
    others = {a for c in part.body if c is not anchor for a in c.args}
    for number, operand in enumerate(part.inputs):
        if operand.value != batch.value:
            continue
        rows = operand.shape[0] == batch.shape[0] and operand.strides == (batch.strides[0], 1)
        if number in others or anchor.args.count(number) != 1 or not rows:
            return False
    return True


def _takes_images(part: Part, batch: Operand) -> bool:
    """The part is a convolution of the whole batch, of images channels last."""
    assert part.anchor is not None
    anchor = part.body[part.anchor]
    others = {a for c in part.body if c is not anchor for a in c.args} | set(anchor.args[1:])
    for number, operand in enumerate(part.inputs):
        if operand.value != batch.value:
            continue
        whole = operand.contiguous and operand.unique_bytes == batch.unique_bytes
        if number in others or operand.shape[0] != batch.shape[0] or not whole:
            return False
    return True
