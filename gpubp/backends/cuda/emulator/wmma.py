"""Matrices of a warp whose layout is nobody's business: PTX ISA, `wmma.load`, `wmma.mma`,
`wmma.store`.

They are what `nvcuda::wmma` is made of. The ISA leaves open which lane holds which element, so here
lane i holds the elements from `count * i` on, by rows; factors, of which each element is held
twice, in both halves of its registers.
"""

from __future__ import annotations

import re
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.emulator.access import Access
from gpubp.backends.cuda.emulator.env import Env, Step
from gpubp.backends.cuda.emulator.faults import UnknownInstructionError
from gpubp.backends.cuda.emulator.loads import space_of
from gpubp.backends.cuda.emulator.ptx import SIZES, Instruction
from gpubp.backends.cuda.emulator.values import (
    BITS,
    DTYPES,
    Read,
    Value,
    as_dtype,
    halves,
    joined,
    widened,
)
from gpubp.backends.cuda.emulator.wave import Frame

_SHAPE = re.compile(r"m(\d+)n(\d+)k(\d+)")
_FACTORS = ("f16", "bf16", "tf32")
_PACKED = ("f16", "bf16")  # two in a register


def matrices(ins: Instruction, env: Env) -> Step:
    """What a `wmma` instruction does for whole warps."""
    shape = next((m for w in ins.words if (m := _SHAPE.fullmatch(w))), None)
    if shape is None:
        raise UnknownInstructionError(str(ins))
    sizes = tuple(int(n) for n in shape.groups())
    make = {"load": _load, "store": _store, "mma": _multiply}.get(ins.words[1])
    if make is None:
        raise UnknownInstructionError(str(ins))
    return make(ins, env, sizes)


def _dims(role: str, sizes: tuple[int, ...]) -> tuple[int, int]:
    m, n, k = sizes
    return {"a": (m, k), "b": (k, n)}.get(role, (m, n))


def _places(f: Frame, dims: tuple[int, int], row: bool, stride: Value) -> list[Any]:
    """Offsets, in elements, of what each lane holds."""
    count = dims[0] * dims[1] // 32
    lane = f.wave.thread_of[f.ids()] % 32
    found = []
    for i in range(count):
        r, c = np.divmod(lane * count + i, dims[1])
        wide = f.spread(stride).astype(np.int64)
        found.append((r * wide + c if row else c * wide + r).astype(np.uint64))
    return found


def _stride(ins: Instruction, env: Env, dims: tuple[int, int], at: int) -> Read:
    if len(ins.operands) > at:
        return env.read(ins.operands[at], "u32", ins)
    tight = np.uint32(dims[1] if "row" in ins.words else dims[0])
    return lambda R: tight


def _load(ins: Instruction, env: Env, sizes: tuple[int, ...]) -> Step:
    role, kind = ins.words[2], ins.words[-1]
    if kind not in (*_FACTORS, "f32"):
        raise UnknownInstructionError(str(ins))
    dims, targets = _dims(role, sizes), [env.target(t) for t in env.vector(ins.operands[0])]
    base, offset = env.address(ins.operands[1], ins)
    stride = _stride(ins, env, dims, 2)
    access = Access(ins, space_of(ins), SIZES[kind])

    def run(f: Frame) -> None:
        start = f.spread(base(f.R)) + np.uint64(offset)
        found = []
        for place in _places(f, dims, "row" in ins.words, stride(f.R)):
            found += access.load(f, start + place * np.uint64(access.width))
        _keep(f, targets, found, kind)

    return run


def _keep(f: Frame, targets: list[int], elements: list[Any], kind: str) -> None:
    """Elements to registers, again from the start if there are more registers."""
    registers = elements
    if kind in _PACKED:
        registers = [joined(a, b) for a, b in zip(elements[::2], elements[1::2])]
    for i, n in enumerate(targets):
        f.R[n] = as_dtype(np.asarray(registers[i % len(registers)]), BITS[4])


def _elements(f: Frame, reads: list[Read], kind: str) -> list[NDArray[np.float64]]:
    found: list[Any] = []
    for read in reads:
        bits = f.spread(read(f.R))
        if kind == "bf16":
            found += [widened(h) for h in halves(bits)]
        elif kind == "f16":
            found += [as_dtype(h, DTYPES["f16"]) for h in halves(bits)]
        else:
            mask = np.uint32(0xFFFFE000 if kind == "tf32" else 0xFFFFFFFF)
            found.append((as_dtype(bits, BITS[4]) & mask).view(np.float32))
    return [x.astype(np.float64) for x in found]


def _matrix(f: Frame, elements: list[Any], dims: tuple[int, int]) -> NDArray[np.float64]:
    """(warps, rows, columns)"""
    count = dims[0] * dims[1] // 32
    return np.stack(elements[:count], 1).reshape(-1, 32 * count).reshape(-1, *dims)


def _multiply(ins: Instruction, env: Env, sizes: tuple[int, ...]) -> Step:
    words = ins.words
    types = words[words.index(next(w for w in words if _SHAPE.fullmatch(w))) + 1 :]
    result, total = types[0], types[-1]
    factor = types[1] if len(types) == 4 else "f16"
    if factor not in _FACTORS or {result, total} - {"f16", "f32"} or "satfinite" in words:
        raise UnknownInstructionError(str(ins))
    vectors = [env.vector(o) for o in ins.operands]
    targets = [env.target(t) for t in vectors[0]]
    a, b, c = ([env.read(o, "b32", ins) for o in names] for names in vectors[1:])

    def run(f: Frame) -> None:
        left = _matrix(f, _elements(f, a, factor), _dims("a", sizes))
        right = _matrix(f, _elements(f, b, factor), _dims("b", sizes))
        found = left @ right + _matrix(f, _elements(f, c, total), _dims("c", sizes))
        flat = found.reshape(len(found) * 32, -1).astype(DTYPES[result])
        parts = [as_dtype(np.ascontiguousarray(x), BITS[SIZES[result]]) for x in flat.T]
        _keep(f, targets, parts, result)

    return run


def _store(ins: Instruction, env: Env, sizes: tuple[int, ...]) -> Step:
    kind = ins.words[-1]
    if kind not in ("f16", "f32"):
        raise UnknownInstructionError(str(ins))
    dims, reads = _dims("d", sizes), [env.read(o, "b32", ins) for o in env.vector(ins.operands[1])]
    base, offset = env.address(ins.operands[0], ins)
    stride = _stride(ins, env, dims, 2)
    access = Access(ins, space_of(ins), SIZES[kind])

    def run(f: Frame) -> None:
        start = f.spread(base(f.R)) + np.uint64(offset)
        bits = [f.spread(read(f.R)) for read in reads]
        parts = [h for x in bits for h in halves(x)] if kind == "f16" else bits
        for place, part in zip(_places(f, dims, "row" in ins.words, stride(f.R)), parts):
            access.store(
                f, start + place * np.uint64(access.width), [as_dtype(part, BITS[access.width])]
            )

    return run
