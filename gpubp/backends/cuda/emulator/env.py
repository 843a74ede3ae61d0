"""What an instruction is translated with: its operands as functions of the registers.

A family of instructions is a function, registered under the first words of its opcodes, that makes
a `Step`: what carries out one instruction for all lanes of a `Frame`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from gpubp.backends.cuda.emulator.blocks import Registers, place_name
from gpubp.backends.cuda.emulator.faults import UnknownInstructionError
from gpubp.backends.cuda.emulator.ptx import Instruction, split
from gpubp.backends.cuda.emulator.values import (
    DTYPES,
    Read,
    Value,
    as_dtype,
    constant,
    fitted,
    integer,
    known,
)
from gpubp.backends.cuda.emulator.wave import Frame

Step = Callable[[Frame], None]
Family = Callable[[Instruction, "Env"], Step]
FAMILIES: dict[str, Family] = {}


def family(*names: str) -> Callable[[Family], Family]:
    """Register what translates opcodes that begin with these words."""

    def register(function: Family) -> Family:
        FAMILIES.update(dict.fromkeys(names, function))
        return function

    return register


@dataclass
class Env:
    """What names of a kernel stand for.

    Attributes:
        registers: their numbers.
        symbols: variables and kernel parameters: name -> (space, address in it).
        params: of the kernel, as memory: name -> offset.
    """

    registers: Registers
    symbols: Mapping[str, tuple[str, int]]
    params: Mapping[str, int]
    traits: set[str] = field(default_factory=set)

    def kind(self, text: str) -> str | None:
        """A register's declared type; None if this is no register."""
        n = self.registers.number(text)
        return None if n is None else self.registers.types[n]

    def target(self, text: str) -> int:
        """The register that an operand names, to write to."""
        n = self.registers.number(text)
        if n is None:
            if text == "_":
                return self.registers.add("_", "b64")
            raise UnknownInstructionError(text, "no register")
        return n

    def dtype(self, text: str) -> np.dtype[Any]:
        """What a register's bits are kept as."""
        kind = self.kind(text)
        return DTYPES["b32" if kind is None else kind]

    def read(self, text: str, kind: str, ins: Instruction) -> Read:
        """An operand's value as a type."""
        dtype = known(kind, ins)
        n = self.registers.number(text)
        if n is not None:
            return _register(n, dtype, DTYPES[self.registers.types[n]])
        fixed = constant(text, kind)
        if fixed is None and text in self.symbols:
            fixed = fitted(np.uint64(self.symbols[text][1]), dtype)
        if fixed is None and text == "WARP_SZ":
            fixed = dtype.type(32)
        if fixed is None:
            raise UnknownInstructionError(str(ins), f"the operand {text!r}")
        return lambda R: fixed

    def vector(self, text: str) -> list[str]:
        """The elements of "{a, b}"; of a scalar, itself."""
        return split(text[1:-1]) if text.startswith("{") else [text]

    def address(self, text: str, ins: Instruction) -> tuple[Read, int]:
        """Of "[base+8]": the base, as 64 bits, and the offset."""
        inside = text.strip("[] ")
        base, _, offset = inside.partition("+")
        base = base.strip()
        number = integer(base)
        more = integer(offset) if offset else 0
        if more is None:
            raise UnknownInstructionError(str(ins), f"the address {text!r}")
        if number is not None:
            fixed = np.uint64(number)
            return (lambda R: fixed), more
        kind = self.kind(base)
        if kind is not None and DTYPES[kind].itemsize == 4:
            narrow = self.read(base, "u32", ins)
            return (lambda R: narrow(R).astype(np.uint64)), more
        return self.read(base, "u64", ins), more

    def place(self, text: str, kind: str, add: bool) -> int | None:
        """The register of a place in a call's parameters; None if nobody wrote it.

        Args:
            kind: of what is written there.
            add: it is being written.
        """
        name = place_name(text)
        if add:
            n = self.registers.add(name, kind)
            self.registers.types[n] = kind
            return n
        return self.registers.numbers.get(name)


def _register(n: int, dtype: np.dtype[Any], declared: np.dtype[Any]) -> Read:
    if declared.itemsize == dtype.itemsize and declared.kind != "b" and dtype.kind != "b":

        def same(R: list[Value]) -> Value:
            x = R[n]
            return x if x.dtype is dtype else x.view(dtype)

        return same
    if declared.kind == "b" or dtype.kind == "b":
        if declared.kind != dtype.kind:
            raise UnknownInstructionError(f"{declared} as {dtype}", "a predicate as a number")
        return lambda R: R[n]
    if declared.itemsize > dtype.itemsize:
        return lambda R: fitted(R[n], dtype)
    raise UnknownInstructionError(f"{declared} as {dtype}", "a register that is too narrow")


def translate(ins: Instruction, env: Env) -> Step:
    """What carries out an instruction.

    Raises:
        UnknownInstructionError: nobody does.
    """
    words = ins.words
    make = FAMILIES.get(".".join(words[:2])) or FAMILIES.get(words[0])
    if make is None:
        raise UnknownInstructionError(str(ins))
    step = make(ins, env)
    return step if ins.guard is None else _guarded(ins, env, step)


def _guarded(ins: Instruction, env: Env, step: Step) -> Step:
    """Only for the lanes whose predicate says so."""
    assert ins.guard is not None
    name, wanted = ins.guard
    condition = env.read(name, "pred", ins)
    written = [n for o in ins.operands[:1] for n in env.registers.of(o) if not o.startswith("[")]
    if ins.words[0] in ("st", "red", "bar", "barrier"):
        written = []

    def run(f: Frame) -> None:
        chosen = condition(f.R)
        chosen = chosen if wanted else ~chosen
        if not np.any(chosen):
            return
        if np.all(chosen):
            step(f)
            return
        before = [f.R[n] for n in written]
        f.mask = f.spread(chosen)
        try:
            step(f)
        finally:
            f.mask = None
        for n, old in zip(written, before):
            new = f.R[n]
            f.R[n] = np.where(
                chosen, new, as_dtype(old, new.dtype) if old.dtype != new.dtype else old
            )

    return run


def elementwise(
    ins: Instruction, env: Env, function: Callable[..., Value], kind: str, first: int = 1
) -> Step:
    """`function` of the operands from `first` on, all of one type, to the first one's register."""
    reads = [env.read(o, kind, ins) for o in ins.operands[first:]]
    return applied(env.target(ins.operands[0]), function, reads)


def applied(target: int, function: Callable[..., Value], reads: list[Read]) -> Step:
    """The step that puts a function of operands into a register."""
    if len(reads) == 1:
        (one,) = reads

        def unary(f: Frame) -> None:
            f.R[target] = function(one(f.R))

        return unary
    if len(reads) == 2:
        a, b = reads

        def binary(f: Frame) -> None:
            R = f.R
            R[target] = function(a(R), b(R))

        return binary

    def several(f: Frame) -> None:
        R = f.R
        R[target] = function(*[read(R) for read in reads])

    return several
