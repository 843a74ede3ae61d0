"""A kernel that was translated: its blocks with what carries them out, and the memory that it
needs.

Comes in: PTX and the device's memory, where its variables get places. Goes out: `Kernel`, which
launches run.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.emulator import (  # noqa: F401 - each registers its family
    async_copies,
    atomics,
    convert,
    floats,
    integers,
    loads,
    logic,
    others,
)
from gpubp.backends.cuda.emulator.blocks import Block, Graph, bits, cut
from gpubp.backends.cuda.emulator.env import Env, Step, translate
from gpubp.backends.cuda.emulator.faults import UnknownInstructionError
from gpubp.backends.cuda.emulator.inline import flatten
from gpubp.backends.cuda.emulator.meetings import Meeting, meeting
from gpubp.backends.cuda.emulator.memory import DeviceSpace, Piece
from gpubp.backends.cuda.emulator.ptx import SIZES, Module, Variable, parse
from gpubp.backends.cuda.emulator.values import DTYPES, Read, integer
from gpubp.errors import BackendError

SHARED_GAP = 16  # between shared variables, so that running over one's end is seen


@dataclass
class Code:
    """A block of instructions, translated.

    Attributes:
        steps: one an instruction; empty if threads meet here.
        meeting: where they meet.
        condition: of the jump at its end; with `wanted`, when it is taken.
        end: what the end does: "bra", "brx", "ret", "exit", "trap", or "" for going on.
        index: of "brx".
        uses, keeps: registers that are read as they were before, and those to be kept.
    """

    block: Block
    steps: list[Step]
    meeting: Meeting | None
    condition: Read | None
    wanted: bool
    end: str
    index: Read | None
    uses: list[int]
    keeps: list[int]


@dataclass
class Kernel:
    """A kernel for launches.

    Attributes:
        params: bytes of its parameters.
        registers: types, by number.
        shared: (offset, bytes) of variables; dynamic memory follows at `dynamic`.
        static: bytes of shared variables, as a GPU counts them.
        local_bytes: of a thread.
        fences: it orders accesses of different blocks by itself.
        granule: the smallest access, up to 4 bytes.
        bounds: the most threads that it was compiled for; 0: any.
    """

    name: str
    lines: list[str]
    code: list[Code]
    params: int
    registers: list[str]
    shared: list[tuple[int, int]]
    dynamic: int
    static: int
    local_bytes: int
    fences: bool
    granule: int
    bounds: int

    def fresh(self) -> list[Any]:
        """Registers before the first instruction."""
        return [DTYPES[kind].type(0) for kind in self.registers]


@dataclass
class Program:
    """The kernels of one source, in a device's memory.

    Attributes:
        module: what was read.
        lines: of the CUDA source, for messages.
        memory: of the device.
        places: global variables: name -> address.
    """

    module: Module
    lines: list[str]
    memory: DeviceSpace
    places: dict[str, int] = field(default_factory=dict)
    _pieces: list[Piece] = field(default_factory=list)
    _kernels: dict[str, Kernel] = field(default_factory=dict)

    def names(self) -> list[str]:
        """Of all kernels."""
        return [n for n, f in self.module.functions.items() if f.entry]

    def get(self, name: str) -> Kernel:
        """A kernel, translated when it is first asked for.

        Raises:
            BackendError: there is none of this name.
            UnknownInstructionError: it holds one that the emulator does not know.
        """
        if name not in self.names():
            raise BackendError(f"there is no kernel {name!r}; there are {self.names()}.")
        if name not in self._kernels:
            self._kernels[name] = _translated(self, name)
        return self._kernels[name]


def loaded(ptx: str, source: str, memory: DeviceSpace) -> Program:
    """PTX with its variables in a device's memory.

    Args:
        ptx: its text.
        source: the CUDA source that it was made of.
        memory: of the device.
    """
    program = Program(parse(ptx), source.splitlines(), memory)
    for variable in program.module.variables.values():
        if variable.space in ("global", "const"):
            piece = memory.allocate(max(variable.nbytes, 1))
            program._pieces.append(piece)
            program.places[variable.name] = piece.address
    for variable in program.module.variables.values():
        if variable.space in ("global", "const") and variable.values:
            memory.write(program.places[variable.name], _initial(variable, program.places))
    return program


def _initial(variable: Variable, places: dict[str, int]) -> NDArray[np.uint8]:
    """A variable's first bytes."""
    out = bytearray()
    for text in variable.values:
        number = integer(text)
        if text[:2] in ("0f", "0d"):
            number = int(text[2:], 16)
        if number is None:
            name, _, more = text.removeprefix("generic(").replace(")", "").partition("+")
            if name.strip() not in places:
                raise UnknownInstructionError(
                    f"{variable.name} = {text}", "a first value of this kind"
                )
            number = places[name.strip()] + int(more or 0)
        width = variable.element
        out += (number & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    out += bytes(max(variable.nbytes - len(out), 0))
    return np.frombuffer(bytes(out), np.uint8)


def _translated(program: Program, name: str) -> Kernel:
    flat = flatten(program.module, name)
    graph = cut(flat)
    shared, dynamic, static, symbols = _shared_places(program.module, flat.variables)
    local, local_bytes = _placed([v for v in flat.variables if v.space == "local"], 0)
    symbols |= {n: ("local", at) for n, at in local.items()}
    symbols |= {n: ("global", at) for n, at in program.places.items()}
    params, size = _placed(flat.kernel.params, 0)
    symbols |= {n: ("param", at) for n, at in params.items()}
    env = Env(graph.registers, symbols, params)
    code = [_code(block, env) for block in graph.blocks]
    return Kernel(
        name,
        program.lines,
        code,
        size,
        graph.registers.types,
        shared,
        dynamic,
        static,
        -(-local_bytes // 16) * 16,
        "fence" in env.traits,
        _granule(graph),
        flat.kernel.bounds,
    )


def _placed(variables: Sequence[Variable], gap: int) -> tuple[dict[str, int], int]:
    """Offsets one behind the other, aligned; and the end."""
    found, end = {}, 0
    for v in variables:
        end = -(-end // v.align) * v.align
        found[v.name] = end
        end += v.nbytes + gap
    return found, end


def _shared_places(
    module: Module, own: Sequence[Variable]
) -> tuple[list[tuple[int, int]], int, int, dict[str, tuple[str, int]]]:
    """Where shared variables lie: (offset, bytes); dynamic memory's offset; bytes; names."""
    seen = {v.name: v for v in (*module.variables.values(), *own) if v.space == "shared"}
    fixed = [v for v in seen.values() if v.nbytes]
    at, end = _placed(fixed, SHARED_GAP)
    dynamic = -(-end // 16) * 16
    symbols = {n: ("shared", offset) for n, offset in at.items()}
    symbols |= {v.name: ("shared", dynamic) for v in seen.values() if not v.nbytes}
    return [(at[v.name], v.nbytes) for v in fixed], dynamic, _placed(fixed, 0)[1], symbols


def _code(block: Block, env: Env) -> Code:
    steps: list[Step] = []
    together = None
    if block.meets:
        together = meeting(block.steps[0], env)
    else:
        steps = [translate(step, env) for step in block.steps]
    condition, wanted, index = None, True, None
    end = block.end
    if end is not None and end.guard is not None:
        condition, wanted = env.read(end.guard[0], "pred", end), end.guard[1]
    if end is not None and end.words[0] == "brx":
        if end.guard is not None:
            raise UnknownInstructionError(str(end), "a jump by table under a condition")
        index = env.read(end.operands[0], "u32", end)
    return Code(
        block,
        steps,
        together,
        condition,
        wanted,
        end.words[0] if end is not None else "",
        index,
        bits(block.uses),
        bits(block.writes & block.after),
    )


def _granule(graph: Graph) -> int:
    """The smallest access of shared or device memory, up to 4 bytes."""
    widths = [4]
    for block in graph.blocks:
        for step in block.steps:
            if step.words[0] in ("ld", "st", "atom", "red") and "param" not in step.words:
                widths.append(SIZES.get(step.words[-1], 4))
    return min(widths)
