"""Encoding of elementwise chains: registers, strips and operand modes."""

from __future__ import annotations

import math
import struct
from collections.abc import Sequence
from dataclasses import dataclass, field

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.opcodes import (
    DTYPE_CODES,
    FUNCTORS,
    OPCODES,
    RANDOM_NORMAL,
    RANDOM_UNIFORM,
)
from gpubp.compiler.parts import Compute, Operand, Part
from gpubp.compiler.views import collapse
from gpubp.core import Kind, Shape, dtype_name
from gpubp.core.store import round_up
from gpubp.errors import BackendError

_FLOAT64 = struct.Struct("<d")


@dataclass
class Encoded:
    """Words of a chain (the first is the elements a row), and the scratch it needs in bytes.

    `needs`: (word, kernel) as in `encoded.EncodedPart`.
    """

    words: list[int]
    scratch: int
    needs: list[tuple[int, str]]

    def needs_at(self, start: int) -> list[tuple[int, str]]:
        """The needs, where the chain's words start at `start` of a part's."""
        return [(start + word, name) for word, name in self.needs]


def float_bits(value: float) -> int:
    """The int64 with the bits of a float64."""
    return int.from_bytes(_FLOAT64.pack(value), "little", signed=True)


def place(operand: Operand) -> list[int]:
    """Buffer and byte offset."""
    return [*operand.place]


def functor_name(compute: Compute, dtype: str) -> str:
    """The entry of FUNCTORS for an op; casts depend on their target."""
    name = compute.spec.name
    if name == "cast":
        target = compute.attrs["dtype"]
        if target in ("int64", "int32", "bool"):
            return {"int64": "cast_integer", "int32": "cast_int32", "bool": "cast_truth"}[target]
        return "cast_float32" if target == "float32" and dtype == "float64" else "cast_same"
    name = compute.spec.formula_name(compute.attrs)
    if name not in FUNCTORS:
        raise BackendError(f"the CPU backend has no kernel for the elementwise op {name!r}.")
    if dtype == "int64" and not FUNCTORS[name].integer:
        raise BackendError(f"the CPU backend computes {name!r} on floats only.")
    return name


def op_words(compute: Compute, dtype: str, dst: int, args: Sequence[int]) -> list[int]:
    """One op: code, destination, five operands, two attributes, extra."""
    padded = [*args, *[args[0]] * (5 - len(args))]
    if compute.spec.kind is Kind.RANDOM:
        code = RANDOM_UNIFORM if compute.spec.name == "uniform" else RANDOM_NORMAL
        return [code, dst, *padded, 0, 0, compute.attrs["stream"]]
    name = functor_name(compute, dtype)
    bits = [*[float_bits(float(a)) for a in FUNCTORS[name].attrs(compute.attrs)], 0, 0][:2]
    return [OPCODES[name], dst, *padded, *bits, DTYPE_CODES[dtype_name(compute.dtype)]]


@dataclass
class ChainEncoder:
    """Encodes some ops of a part as a chain over one iteration space.

    Attributes:
        part: the part.
        ops: positions in its body, in order.
        shape: the iteration space.
        dtype: the chain's arithmetic.
        tile_in: number of the value that the calling kernel has made, if any.
        tile_out: number of the value that the calling kernel wants, if any.
        whole_rows: the chain is only ever run from the start of a row of its innermost axis.
    """

    part: Part
    ops: Sequence[int]
    shape: Shape
    dtype: str
    tile_in: int | None = None
    tile_out: int | None = None
    whole_rows: bool = False
    homes: list[int] = field(default_factory=list)
    free: list[int] = field(default_factory=list)
    strips: int = 0

    def encode(self, per_row: int) -> Encoded:
        """The words of the chain."""
        self.base = len(self.part.inputs)
        self.last_use = self._last_uses()
        self.reg: dict[int, int] = {}
        of_ops = [self.part.body[i] for i in self.ops]
        self.raw = {c.args[0] for c in of_ops if c.spec.kind is Kind.RANDOM}  # states of generators
        inputs = self._inputs()
        outputs, direct = self._outputs()
        ops = self._ops(direct)
        outputs = [[self.reg[value], *rest] for value, *rest in outputs]
        strips_at = round_up(8 * len(self.homes), words.ALIGN)
        header = [len(inputs), len(ops), len(outputs), len(self.dims), len(self.homes)]
        flat = [per_row, *header, strips_at, self.step, 0, *self.dims, *self.homes]
        for row in (*inputs, *ops, *outputs):
            flat.extend(row)
        needs = [(1 + words.CHAIN_RUN_OPS, f"ops_{self.dtype}")]
        return Encoded(flat, strips_at + self.strips * words.STRIP_BYTES, needs)

    def _last_uses(self) -> dict[int, int]:
        uses: dict[int, int] = {}
        for position in self.ops:
            for value in self.part.body[position].args:
                uses[value] = position
        return uses

    def _new_reg(self, value: int, strip: bool) -> int:
        home = -1
        if strip:
            home = self.free.pop() if self.free else self.strips
            self.strips = max(self.strips, home + 1)
        self.reg[value] = len(self.homes)
        self.homes.append(home)
        return self.reg[value]

    def _inputs(self) -> list[list[int]]:
        inside = {self.base + i for i in self.ops}
        needed = sorted({v for v in self.last_use if v not in inside})
        strided = [v for v in needed if v != self.tile_in]
        axes = {v: self._strides(v) for v in strided}
        self.dims, walked = collapse(self.shape, *[axes[v] for v in strided])
        strip = words.STRIP_BYTES // (4 if self.dtype == "float32" else 8)
        self.step = strip
        if self.whole_rows and self.dims[-1] <= strip:
            self.step = strip // max(self.dims[-1], 1) * self.dims[-1] or strip
        rows = []
        for value in needed:
            if value == self.tile_in:
                rows.append(self._tile(value))
            else:
                rows.append(self._input(value, walked[strided.index(value)]))
        if self.tile_out is not None:
            rows.append(self._tile(self.tile_out))
        return rows

    def _tile(self, value: int) -> list[int]:
        """A value that the calling kernel has made or wants."""
        return [self._new_reg(value, False), words.MODE_TILE, 0, 0, 0, 0, *[0] * len(self.dims)]

    def _strides(self, value: int) -> tuple[int, ...]:
        """An operand's strides over the iteration space, 0 where it is broadcast."""
        operand = self.part.inputs[value]
        extra = len(self.shape) - len(operand.shape)
        if extra < 0 or value in self.raw:
            return (0,) * len(self.shape)
        kept = [s if n != 1 else 0 for n, s in zip(operand.shape, operand.strides)]
        return (*[0] * extra, *kept)

    def _repeats_each_row(self, strides: tuple[int, ...]) -> bool:
        row = self.dims[-1]
        return self.whole_rows and row > 0 and self.step % row == 0 and not any(strides[:-1])

    def _input(self, value: int, strides: tuple[int, ...]) -> list[int]:
        operand = self.part.inputs[value]
        dtype, size = dtype_name(operand.dtype), operand.dtype.itemsize
        if value in self.raw:
            mode = words.MODE_RAW
        elif math.prod(operand.shape) == 1 and math.prod(self.shape) != 1:
            mode = words.MODE_SCALAR
        elif dtype == self.dtype and operand.shape == self.shape and operand.contiguous:
            mode = words.MODE_DIRECT
        elif self._repeats_each_row(strides):
            mode = words.MODE_PERIODIC
        else:
            mode = words.MODE_STRIDED
        strip = mode in (words.MODE_SCALAR, words.MODE_STRIDED, words.MODE_PERIODIC)
        reg = self._new_reg(value, strip)
        code = DTYPE_CODES[dtype]
        return [reg, mode, code, operand.buffer, operand.offset * size, size, *strides]

    def _outputs(self) -> tuple[list[list[int]], set[int]]:
        """Rows (value, dtype, buffer, offset, direct), and the values that ops write in place."""
        rows, direct = [], set()
        mine = {self.base + i for i in self.ops}
        for value, operand in self.part.outputs:
            if value not in mine:
                continue
            dtype, offset = dtype_name(operand.dtype), operand.offset * operand.dtype.itemsize
            in_place = (
                dtype == self.dtype
                and value != self.tile_out
                and not self._read_later(value, operand)
            )
            if in_place:
                direct.add(value)
            rows.append([value, DTYPE_CODES[dtype], operand.buffer, offset, int(in_place)])
        return rows, direct

    def _read_later(self, value: int, target: Operand) -> bool:
        """An op after the one that makes `value` reads the memory that `value` goes to."""
        for position in self.ops:
            if self.base + position > value:
                for arg in self.part.body[position].args:
                    if arg < self.base and self.part.inputs[arg].meets(target):
                        return True
        return False

    def _ops(self, direct: set[int]) -> list[list[int]]:
        kept = {v for v, _ in self.part.outputs} | {self.tile_out}
        rows = []
        for position in self.ops:
            compute, value = self.part.body[position], self.base + position
            args = [self.reg[a] for a in compute.args]
            if value not in self.reg:
                self._new_reg(value, value not in direct)
            rows.append(op_words(compute, self.dtype, self.reg[value], args))
            read = value in self.last_use or value == self.tile_out
            if read and dtype_name(compute.dtype) == "int32":
                rows.append(_wrapped(self.reg[value]))
            for arg in set(compute.args):
                home = self.homes[self.reg[arg]]
                made_here = arg >= self.base and arg not in kept
                if made_here and home >= 0 and self.last_use[arg] == position:
                    self.free.append(home)
        return rows


def _wrapped(reg: int) -> list[int]:
    """An int64 register is brought to what an int32 would hold, before other ops read it."""
    return [OPCODES["cast_int32"], reg, *[reg] * 5, 0, 0, DTYPE_CODES["int32"]]
