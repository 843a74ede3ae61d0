"""Encoded parts as text: every word by its name, for people and tests.

Comes in: encoded parts. Goes out: a line for the part, and indented lines for what it consists of.
Addresses that are filled in when a program is loaded are shown by the kernel's name, words that are
0 are left out.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.encode import encoded_parts
from gpubp.backends.numba_cpu.encoded import EncodedPart
from gpubp.backends.numba_cpu.opcodes import DTYPE_CODES, OPCODES, RANDOM_NORMAL, RANDOM_UNIFORM
from gpubp.backends.numba_cpu.words import Layout
from gpubp.compiler.program import Program

_LAYOUTS = {
    "matmul": words.MM,
    "conv": words.CONV,
    "attention": words.ATTENTION,
    "reduce": words.RED,
    "softmax": words.SOFTMAX,
    "cross_entropy": words.CROSS_ENTROPY,
    "load_batch": words.LOAD_BATCH,
    "gather": words.GATHER,
    "scatter_add": words.SCATTER_ADD,
    "concat": words.CONCAT,
    "unslice": words.UNSLICE,
    "custom": words.CUSTOM,
    "max_pool": words.POOL,
    "sum_pool": words.POOL,
    "unpool": words.UNPOOL,
    "rounds": words.LOOP,
    "scalar": words.SCALAR,
}
_MODES = ("direct", "tile", "raw", "scalar", "strided", "periodic")
_DTYPES = {code: name for name, code in DTYPE_CODES.items()}
_OPS = {code: name for name, code in OPCODES.items()}
_OPS |= {RANDOM_UNIFORM: "uniform", RANDOM_NORMAL: "normal"}


def listing(program: Program) -> str:
    """What the CPU backend makes of a program, part by part."""
    names = [b.name for b in program.buffers]
    names += [f"resident{i}" for i in range(len(program.input_types) if program.batched else 0)]
    lines = []
    for i, (part, encoded) in enumerate(zip(program.parts, encoded_parts(program), strict=True)):
        lines.append(f"{i:3d} {part.name}")
        lines += _Reader(encoded, [*names, "order"]).lines() if encoded else ["    nothing to do"]
        if part.body_program is not None:
            inside = listing(part.body_program.program).splitlines()
            lines += [f"        {line}" for line in inside]
    return "\n".join(lines)


class _Reader:
    """Walks the words of one part."""

    def __init__(self, encoded: EncodedPart, names: Sequence[str]) -> None:
        self.words = encoded.words
        self.kernel, self.scratch = encoded.kernel, encoded.scratch
        self.names = names
        self.needs = dict(encoded.needs)

    def lines(self) -> list[str]:
        """The part as text."""
        family = next((f for f in _LAYOUTS if self.kernel.startswith(f)), "chain")
        head = f"    {self.kernel}, {len(self.words)} words, scratch {self.scratch}"
        if family == "chain":
            return [head, *self._chain(0)]
        layout = _LAYOUTS[family]
        lines = [f"{head}: {self._named(layout, 0)}"]
        if family == "scalar":
            return lines + self._scalar()
        for name in ("chain", "prologue", "epilogue"):
            start = self.words[layout[name]] if name in layout.fields else 0
            if start > 0 and (name != "epilogue" or family == "reduce"):  # else: a kind of it
                lines += [f"      {name}", *self._chain(start)]
        repeated = {"concat": words.JOINED, "unslice": words.SLICED}.get(family)
        if repeated is not None:
            many = range(len(layout), len(self.words), len(repeated))
            lines += [f"      {self._named(repeated, at)}" for at in many]
        return lines

    def _chain(self, start: int) -> list[str]:
        """A chain: the elements a row, the header, homes of registers, inputs, ops, outputs."""
        at, chain = start + 1, words.CHAIN
        inputs, ops, outputs, ndim, regs = self.words[at : at + 5]
        found = [f"      per_row={self.words[start]} {self._named(chain, at)}"]
        at += len(chain)
        homes = self.words[at + ndim : at + ndim + regs]
        found[0] += f" dims={self.words[at : at + ndim]} homes={homes}"
        at += ndim + regs
        for _ in range(inputs):
            strides = self.words[at + len(words.INPUT) : at + len(words.INPUT) + ndim]
            found.append(f"      input {self._named(words.INPUT, at)} strides={strides}")
            at += len(words.INPUT) + ndim
        for _ in range(ops):
            found.append(f"      op {self._op(at)}")
            at += len(words.OP)
        for _ in range(outputs):
            found.append(f"      output {self._named(words.OUTPUT, at)}")
            at += len(words.OUTPUT)
        return found

    def _scalar(self) -> list[str]:
        inputs, ops, outputs = self.words[: len(words.SCALAR)]
        at, found = len(words.SCALAR), []
        for layout, what, many in (
            (words.SCALAR_INPUT, "input", inputs),
            (words.OP, "op", ops),
            (words.SCALAR_OUTPUT, "output", outputs),
        ):
            for _ in range(many):
                text = self._op(at) if what == "op" else self._named(layout, at)
                found.append(f"      {what} {text}")
                at += len(layout)
        return found

    def _op(self, at: int) -> str:
        """`r3 = add(r0, r1, ...)`: all five operands, of which an op reads as many as it takes."""
        code, dst = self.words[at : at + 2]
        args = self.words[at + words.OP_ARGS : at + words.OP_P]
        attrs = [
            f" {name}={_float(self.words[at + words.OP[name]]):g}"
            for name in ("p", "q")
            if self.words[at + words.OP[name]]
        ]
        called = ", ".join(f"r{a}" for a in args)
        extra = self.words[at + words.OP_EXTRA]
        return f"r{dst} = {_OPS[code]}({called}){''.join(attrs)} extra={extra}"

    def _named(self, layout: Layout, at: int) -> str:
        """The fields of a layout that stands at a word."""
        found = []
        unused = self._unused(layout, at)
        for name, (first, width) in layout.fields.items():
            if name in unused:
                continue
            values = self.words[at + first : at + first + width]
            if at + first in self.needs:
                found.append(f"{name}={self.needs[at + first]}")
            elif name in layout.places:
                if values[0] >= 0:
                    found.append(f"{name}={self.names[values[0]]}@{values[1]}")
            elif any(values) or name in ("reg", "value"):
                found.append(f"{name}={self._value(name, values[0])}")
        return " ".join(found)

    def _unused(self, layout: Layout, at: int) -> set[str]:
        """Places that the kernel does not look at, as another kernel makes or takes the value."""
        if layout is words.INPUT:
            return {"at"} if self.words[at + words.INPUT_MODE] == words.MODE_TILE else set()
        if layout is words.RED:
            pairs = (("in", words.RED_PROLOGUE), ("out", words.RED_OUT_SCRATCH))
            return {name for name, word in pairs if self.words[at + word]}
        return set()

    def _value(self, name: str, value: int) -> str:
        if name.endswith("dtype"):
            return _DTYPES[value]
        if name == "mode":
            return _MODES[value]
        if name.startswith("bits"):
            return f"{_float(value):g}"
        if name == "epilogue" and self.kernel.startswith("matmul"):
            return words.EPILOGUES[value]
        return str(value)


def _float(bits: int) -> float:
    """The float64 with these bits."""
    found: float = struct.unpack("<d", struct.pack("<q", bits))[0]
    return found
