"""The program: a flat list of instructions over buffers, the form that every backend runs.

An `Instruction` is one or more `Part`s that need no barrier between them. A part is a fused group
of ops: its `body` is evaluated op by op by the NumPy references, which defines it; `kernel` names
the implementation that backends use. `rows` says how the work is shared: worker w of W takes a
contiguous share of `rows` rows, or columns of a product (0: worker 0 does it all).

Everything here is data: it prints, and `to_dict` gives JSON.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from gpubp.core import ArrayType, Kind, OpSpec, Shape
from gpubp.core.store import Bank
from gpubp.core.strided import is_contiguous

PRODUCT = Kind.MATMUL.value  # the kernel of matrix products
WHOLE = 1 << 16  # shares of the work begin and end at so many parts of it
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


@dataclass(frozen=True, slots=True)
class Operand:
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
        steps = [(n - 1) * s for n, s in zip(self.shape, self.strides)]
        first = self.offset + sum(min(step, 0) for step in steps)
        last = self.offset + sum(max(step, 0) for step in steps)
        size = self.dtype.itemsize
        return (first * size, (last + 1) * size) if 0 not in self.shape else (0, 0)

    @property
    def place(self) -> tuple[int, int]:
        """Its buffer, and the byte there of its first element."""
        return self.buffer, self.offset * self.dtype.itemsize

    def meets(self, other: Operand) -> bool:
        """The two may share memory."""
        (first, last), (start, stop) = self.extent, other.extent
        return self.buffer == other.buffer and first < stop and start < last

    @property
    def unique_bytes(self) -> int:
        """Bytes of distinct elements: a broadcast axis counts once."""
        sizes = [n for n, s in zip(self.shape, self.strides) if s != 0]
        return math.prod(sizes) * self.dtype.itemsize if 0 not in self.shape else 0


@dataclass(frozen=True, slots=True)
class Compute:
    """One op of a body. `args` number the part's inputs first, then the body's results."""

    spec: OpSpec
    args: tuple[int, ...]
    attrs: dict[str, Any]
    shape: Shape
    dtype: np.dtype[Any]


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
    """

    kernel: str
    body: list[Compute]
    anchor: int | None
    inputs: list[Operand]
    outputs: list[tuple[int, Operand]]
    rows: int
    grain: int = WHOLE_LINES

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
        return sum(_flops(self, c) for c in self.body)

    @property
    def bytes_moved(self) -> int:
        """Bytes read and written if each operand crosses memory once."""
        return sum(o.unique_bytes for o, _ in self.operands())

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
        if value < len(self.inputs):
            operand = self.inputs[value]
            return ArrayType(operand.shape, operand.dtype)
        compute = self.body[value - len(self.inputs)]
        return ArrayType(compute.shape, compute.dtype)


def _flops(part: Part, compute: Compute) -> float:
    out, inputs = ArrayType(compute.shape, compute.dtype), map(part.type_of, compute.args)
    return compute.spec.arithmetic(out, *inputs, **compute.attrs)


class IndexLimit(NamedTuple):
    """Elements of an input that are class labels or indices.

    Attributes:
        input: the input's position.
        limit: they are 0 to `limit` - 1.
        offset, shape, strides: which ones, in elements of the input, or of each sample of it if the
            program is batched.
    """

    input: int
    limit: int
    offset: int
    shape: Shape
    strides: tuple[int, ...]

    def layout(self, array: NDArray[Any], batched: bool) -> tuple[Shape, tuple[int, ...]]:
        """Shape and strides, in elements, of what is limited in `array`, from `offset` on."""
        if not batched:
            return self.shape, self.strides
        sample = math.prod(array.shape[1:])
        return (len(array), *self.shape), (sample, *self.strides)

    def bad(self, array: NDArray[Any], batched: bool) -> tuple[int, ...] | None:
        """Where in `array` the first element that is out of range stands; None: there is none."""
        shape, strides = self.layout(array, batched)
        if 0 in shape:
            return None
        nbytes = tuple(s * array.itemsize for s in strides)
        used = as_strided(array.reshape(-1)[self.offset :], shape, nbytes, writeable=False)
        if used.min() >= 0 and used.max() < self.limit:
            return None
        first = np.argwhere((used < 0) | (used >= self.limit))[0]
        at = self.offset + sum(int(i) * s for i, s in zip(first, strides))
        return tuple(int(i) for i in np.unravel_index(at, array.shape))


@dataclass(eq=False)
class Instruction:
    """Parts that run one after the other without a barrier; `sync`: a barrier comes first."""

    parts: list[Part]
    sync: bool = False

    @property
    def name(self) -> str:
        return " & ".join(p.name for p in self.parts)


@dataclass(eq=False)
class Program:
    """What a backend runs for one step.

    Attributes:
        buffers: all memory.
        instructions: in order; a barrier also stands after the last one.
        input_shapes, output_shapes: types of what is fed and returned, a step.
        batched: inputs are resident arrays from which a batch is gathered by an index order.
        unfused_bytes, unfused_ops: what the same step moves and launches with one kernel per op.
        index_limits: what is looked at before any work.
    """

    buffers: list[Buffer]
    instructions: list[Instruction]
    input_types: list[tuple[Shape, np.dtype[Any]]]
    output_types: list[tuple[Shape, np.dtype[Any]]]
    batched: bool
    unfused_bytes: int
    unfused_ops: int
    index_limits: list[IndexLimit] = field(default_factory=list)

    @property
    def batch_size(self) -> int:
        return self.input_types[0][0][0] if self.batched else 0

    @property
    def syncs(self) -> int:
        """Barriers a step, the one at its end included."""
        return sum(i.sync for i in self.instructions) + 1

    @property
    def arena_bytes(self) -> int:
        return sum(b.nbytes for b in self.buffers if b.kind == "arena")

    @property
    def parts(self) -> list[Part]:
        return [p for i in self.instructions for p in i.parts]

    @property
    def flops(self) -> float:
        return sum(p.flops for p in self.parts)

    @property
    def bytes_moved(self) -> int:
        return sum(p.bytes_moved for p in self.parts)

    def __str__(self) -> str:
        return "\n".join([*lines_of(self.buffers, self.instructions), "SYNC"])

    def to_dict(self) -> dict[str, Any]:
        """A JSON-serialisable description: everything but the contents of the buffers."""
        return {
            "batched": self.batched,
            "buffers": [
                {"name": b.name, "kind": b.kind, "dtype": str(b.dtype), "size": b.size}
                for b in self.buffers
            ],
            "instructions": [
                {"sync": i.sync, "parts": [_part_dict(p) for p in i.parts]}
                for i in self.instructions
            ],
            "input_types": [[list(s), str(d)] for s, d in self.input_types],
            "output_types": [[list(s), str(d)] for s, d in self.output_types],
            "unfused_bytes": self.unfused_bytes,
            "unfused_ops": self.unfused_ops,
        }


def lines_of(buffers: Sequence[Buffer], instructions: Sequence[Instruction]) -> list[str]:
    """Buffers and instructions, a line each: results, kernel, ops, operands, what is shared.

    An operand is `buffer@offset:shape`, with its strides where it is not contiguous.
    """
    lines = [f"buffer {b.name}: {b.kind} {b.dtype}[{b.size}]" for b in buffers]
    for i, instruction in enumerate(instructions):
        if instruction.sync:
            lines.append("SYNC")
        for part in instruction.parts:
            ins = ", ".join(_described(o, buffers) for o in part.inputs)
            outs = ", ".join(_described(o, buffers) for _, o in part.outputs)
            share = f"{part.shared} {part.rows}" if part.rows else "one worker"
            lines.append(f"{i:3d} {outs} = {part.kernel}<{part.name}>({ins})  [{share}]")
    return lines


def _described(operand: Operand, buffers: Sequence[Buffer]) -> str:
    shape = "x".join(map(str, operand.shape)) or "scalar"
    strides = "" if operand.contiguous else f" by {','.join(map(str, operand.strides))}"
    return f"{buffers[operand.buffer].name}@{operand.offset}:{shape}{strides}"


def _part_dict(part: Part) -> dict[str, Any]:
    return {
        "kernel": part.kernel,
        "rows": part.rows,
        "grain": part.grain,
        "anchor": part.anchor,
        "body": [
            {
                "op": c.spec.name,
                "args": list(c.args),
                "attrs": {k: list(v) if isinstance(v, tuple) else v for k, v in c.attrs.items()},
                "shape": list(c.shape),
                "dtype": str(c.dtype),
            }
            for c in part.body
        ],
        "inputs": [_operand_dict(o) for o in part.inputs],
        "outputs": [{"result": v, **_operand_dict(o)} for v, o in part.outputs],
    }


def _operand_dict(operand: Operand) -> dict[str, Any]:
    return {
        "buffer": operand.buffer,
        "dtype": str(operand.dtype),
        "offset": operand.offset,
        "shape": list(operand.shape),
        "strides": list(operand.strides),
        "value": operand.value,
        "axis": operand.axis,
    }


def equal_bounds(workers: int) -> list[int]:
    """Where the shares of so many equally fast workers begin and end, in parts of `WHOLE`."""
    return [WHOLE * w // workers for w in range(workers + 1)]


def share_of(rows: int, worker: int, bounds: Sequence[int], grain: int) -> tuple[int, int]:
    """The rows [start, stop) that `worker` takes; the same rule in every backend.

    It depends on these arguments alone, so parts with equal `rows` and `grain` meet the same worker
    without a barrier.

    Args:
        rows: of a part; 0: the first worker does all of it.
        worker: whose.
        bounds: ascending from 0 to `WHOLE`, one more than there are workers.
        grain: of the part; a smaller one is used where there are few rows.
    """
    if rows == 0:
        return (0, 1) if worker == 0 else (0, 0)
    workers = len(bounds) - 1
    grain = min(grain, 16 if rows >= 32 * workers else 8 if rows >= 16 * workers else 1)
    unit = grain * WHOLE
    first, stop = ((rows * bounds[w] + unit // 2) // unit * grain for w in (worker, worker + 1))
    return first, rows if worker == workers - 1 else stop
