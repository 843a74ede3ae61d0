"""A kernel's instructions as basic blocks: runs of instructions that threads go through together.

Comes in: `Flat`. Goes out: `Graph`. An instruction at which threads wait for each other is a block
of its own. Each block knows the registers that it reads from before, and those that are read after
it: only these are kept where some threads go another way.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from gpubp.backends.cuda.emulator.faults import UnknownInstructionError
from gpubp.backends.cuda.emulator.inline import Flat, register_type
from gpubp.backends.cuda.emulator.ptx import Instruction, Label

ENDS = ("bra", "brx", "ret", "exit", "trap")
_MEETINGS = (
    "bar",
    "barrier",
    "shfl",
    "vote",
    "match",
    "redux",
    "mma",
    "ldmatrix",
    "stmatrix",
    "elect",
    "wmma",
)
_STORES = (
    *("st", "cp", "bar", "barrier", "bra", "brx", "membar", "fence", "red", "prefetch", "discard"),
)
_REGISTER = re.compile(r"%[\w$]+|(?<![\w$%.])temp_param_reg[\w$]*")


@dataclass
class Block:
    """Instructions without a jump but at the end.

    Attributes:
        steps: without the last, if that is one of ENDS.
        end: one of ENDS; None: the next block follows.
        meets: threads wait for each other in its only instruction.
        targets: numbers of the blocks that may follow; the one after it last.
        reads: registers that it reads as they were before it, and its `writes` that are read later
            (`keeps`), as bits.
    """

    steps: list[Instruction]
    end: Instruction | None
    meets: bool
    targets: list[int] = field(default_factory=list)
    uses: int = 0
    writes: int = 0
    after: int = 0

    @property
    def last(self) -> Instruction | None:
        return self.end or (self.steps[-1] if self.steps else None)


class Registers:
    """Numbers of registers, given as they are met."""

    def __init__(self, flat: Flat) -> None:
        self._declared = flat.registers
        self.numbers: dict[str, int] = {}
        self.types: list[str] = []

    def number(self, name: str) -> int | None:
        """None: it is no register."""
        known = self.numbers.get(name)
        if known is None:
            kind = register_type(name, self._declared)
            return None if kind is None else self.add(name, kind)
        return known

    def add(self, name: str, kind: str) -> int:
        """One that no declaration names: a place of a call's parameters."""
        if name not in self.numbers:
            self.numbers[name] = len(self.types)
            self.types.append(kind)
        return self.numbers[name]

    def of(self, text: str) -> list[int]:
        """Those that a text names."""
        found = (self.number(word) for word in _REGISTER.findall(text))
        return [n for n in found if n is not None]


@dataclass
class Graph:
    """Blocks in the order of the text."""

    flat: Flat
    blocks: list[Block]
    registers: Registers


def cut(flat: Flat) -> Graph:
    """Cut into blocks.

    Raises:
        UnknownInstructionError: a jump to a place that is not there.
    """
    blocks: list[Block] = []
    starts: dict[str, int] = {}
    steps: list[Instruction] = []

    def close(end: Instruction | None = None, meets: bool = False) -> None:
        if steps or end is not None:
            blocks.append(Block(steps.copy(), end, meets))
            steps.clear()

    for step in flat.body:
        if isinstance(step, Label):
            close()
            starts[step.name] = len(blocks)
        elif step.words[0] in ENDS:
            close(step)
        elif meets(step):
            close()
            steps.append(step)
            close(meets=True)
        else:
            steps.append(step)
    close()
    blocks.append(Block([], Instruction("ret"), False))  # a text may end without one
    registers = Registers(flat)
    for i, block in enumerate(blocks):
        block.targets = _targets(block, i, starts, flat)
        _uses(block, registers)
    _flow(blocks)
    return Graph(flat, blocks, registers)


def meets(step: Instruction) -> bool:
    """Threads wait for each other."""
    words = step.words
    return words[0] in _MEETINGS and "arrive" not in words


def _targets(block: Block, i: int, starts: dict[str, int], flat: Flat) -> list[int]:
    end = block.end
    if end is None:
        return [i + 1]
    kind, found = end.words[0], []
    if kind in ("bra", "brx"):
        names = [end.operands[-1]]
        if kind == "brx":
            names = flat.targets.get(names[0], names)
        if any(n not in starts for n in names):
            raise UnknownInstructionError(str(end), "it jumps to no label")
        found = [starts[n] for n in names]
    if end.guard is not None:
        found.append(i + 1)
    return found


def effects(step: Instruction, registers: Registers) -> tuple[list[int], list[int]]:
    """Registers that are read, and written."""
    operands = step.operands
    kind = step.words[0]
    read = registers.of(step.guard[0]) if step.guard else []
    first = 0 if kind in _STORES and not _has_result(step) else 1
    if kind == "st" and "param" in step.words:
        return [*read, *registers.of(operands[1])], [parameter(step, operands[0], registers)]
    if kind == "call":
        return _call_effects(step, registers)
    written = [n for o in operands[:first] for n in registers.of(o)]
    for operand in operands[first:]:
        read += registers.of(operand)
    if first and operands and operands[0].startswith("["):  # st-like forms
        read += registers.of(operands[0])
    if step.guard is not None:
        read += written  # kept where the guard does not hold
    carry = (
        registers.add("CC", "b32")
        if "cc" in step.words or kind in ("addc", "subc", "madc")
        else None
    )
    if carry is not None:
        read.append(carry)
        written.append(carry)
    if kind == "ld" and "param" in step.words and not registers.of(operands[1]):
        read += _parameters_read(step, registers)
    return read, written


def _call_effects(step: Instruction, registers: Registers) -> tuple[list[int], list[int]]:
    """Of what the emulator does itself: arguments were written as places, so is the result."""
    names = [place_name(f"[{o}]") for o in step.operands]
    printing = step.words[1] == "vprintf"
    written = [registers.add(names[0], "b32")] if printing else []
    known = (registers.numbers.get(n) for n in names[len(written) :])
    return [n for n in known if n is not None], written


def _has_result(step: Instruction) -> bool:
    return step.words[0] in ("bar", "barrier") and "red" in step.words


def parameter(step: Instruction, place: str, registers: Registers) -> int:
    """The register that stands for a place in the parameters of a call."""
    return registers.add(place_name(place), "b64")


def place_name(place: str) -> str:
    """ "[param0+8]" and "[param0 + 8]" are one."""
    name, _, offset = place.strip("[] ").replace(" ", "").partition("+")
    return f"[{name}+{int(offset or 0)}]"


def _parameters_read(step: Instruction, registers: Registers) -> list[int]:
    known = registers.numbers.get(place_name(step.operands[1]))
    return [] if known is None else [known]


def _uses(block: Block, registers: Registers) -> None:
    for step in (*block.steps, *([block.end] if block.end else [])):
        read, written = effects(step, registers)
        for n in read:
            if not block.writes >> n & 1:
                block.uses |= 1 << n
        for n in written:
            block.writes |= 1 << n


def _flow(blocks: list[Block]) -> None:
    """What is read after each block, by going backwards until nothing changes."""
    before = [block.uses for block in blocks]
    changed = True
    while changed:
        changed = False
        for i in range(len(blocks) - 1, -1, -1):
            block = blocks[i]
            after = 0
            for target in block.targets:
                after |= before[target]
            if after != block.after:
                block.after = after
                changed = True
            now = block.uses | (after & ~block.writes)
            if now != before[i]:
                before[i], changed = now, True


def bits(mask: int) -> list[int]:
    """The numbers of the bits that are set."""
    found = []
    while mask:
        low = mask & -mask
        found.append(low.bit_length() - 1)
        mask ^= low
    return found
