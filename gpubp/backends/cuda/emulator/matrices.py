"""Tensor cores: PTX ISA, "Matrix multiply-accumulate operation using mma instruction", and
`ldmatrix`.

Where the elements of A, B, C and D lie among a warp's registers is taken from the ISA's figures.
Products are exact in float64, sums of a row are made in float64 and rounded to float32 once; a GPU
adds in an order that nobody promises.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.emulator.access import Access
from gpubp.backends.cuda.emulator.env import Env, Step
from gpubp.backends.cuda.emulator.faults import UnknownInstructionError
from gpubp.backends.cuda.emulator.ptx import Instruction
from gpubp.backends.cuda.emulator.values import DTYPES, Value, as_dtype, halves, widened
from gpubp.backends.cuda.emulator.wave import Frame

LANE = np.arange(32)
GROUP, MEMBER = LANE // 4, LANE % 4
_SHAPE = re.compile(r"m(\d+)n(\d+)k(\d+)")
_FACTORS = {"f16": 2, "bf16": 2, "tf32": 1}  # elements of a register


def multiply(ins: Instruction, env: Env) -> Step:
    """mma.sync.aligned.m16n8kK.row.col of f16, bf16 and tf32, with sums of f32 or f16."""
    words = ins.words
    match = _SHAPE.fullmatch(words[3])
    types = words[6:10]
    if match is None or words[4:6] != ["row", "col"] or len(types) != 4 or types[1] not in _FACTORS:
        raise UnknownInstructionError(str(ins))
    m, n, k = (int(x) for x in match.groups())
    factor, total = types[1], types[0]
    if (m, n) != (16, 8) or types[2] != factor or types[3] != total or total not in ("f32", "f16"):
        raise UnknownInstructionError(str(ins))
    a_at, b_at = _rows_of_a(k, factor), _columns_of_b(k, factor)
    operands = [env.vector(o) for o in ins.operands]
    kind = "f32" if total == "f32" else "b32"
    reads = [[env.read(o, "b32", ins) for o in names] for names in operands[1:3]]
    sums = [env.read(o, kind, ins) for o in operands[3]]
    targets = [env.target(o) for o in operands[0]]
    if len(reads[0]) * _FACTORS[factor] != len(a_at[0]) or len(targets) not in (2, 4):
        raise UnknownInstructionError(str(ins), "another number of registers")

    def run(f: Frame) -> None:
        a, b = (_elements(f, side, factor) for side in reads)
        left = _gathered(a, a_at, (m, k))
        right = _gathered(b, b_at, (k, n))
        c = [f.spread(read(f.R)).reshape(-1, 32) for read in sums]
        found = left @ right
        _put(f, targets, c, found, total)

    return run


def _rows_of_a(k: int, factor: str) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """(row, column) of each element of A that a lane holds, in the order of its registers."""
    each = _FACTORS[factor]
    rows, columns = [], []
    for register in range(16 * k // 32 // each):
        for half in range(each):
            rows.append(GROUP + 8 * (register % 2))
            columns.append(MEMBER * each + half + 4 * each * (register // 2))
    return rows, columns


def _columns_of_b(k: int, factor: str) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    each = _FACTORS[factor]
    rows, columns = [], []
    for register in range(8 * k // 32 // each):
        for half in range(each):
            rows.append(MEMBER * each + half + 4 * each * register)
            columns.append(GROUP)
    return rows, columns


def _elements(f: Frame, reads: list[Callable[[list[Value]], Value]], factor: str) -> list[Any]:
    """What the lanes hold, as float64, each (warps, 32)."""
    found: list[Any] = []
    for read in reads:
        bits = f.spread(read(f.R))
        if factor == "tf32":
            # 10 bits of fraction count.
            values = [(bits & np.uint32(0xFFFFE000)).view(np.float32)]
        elif factor == "bf16":
            values = [widened(h) for h in halves(bits)]
        else:
            values = [as_dtype(h, np.dtype(np.float16)) for h in halves(bits)]
        found += [v.astype(np.float64).reshape(-1, 32) for v in values]
    return found


def _gathered(
    elements: list[Any], at: tuple[list[Any], list[Any]], shape: tuple[int, int]
) -> NDArray[np.float64]:
    """The matrix of each warp."""
    whole = np.zeros((len(elements[0]), *shape))
    for values, row, column in zip(elements, *at, strict=True):
        whole[:, row, column] = values
    return whole


def _put(f: Frame, targets: list[int], c: list[Any], found: Any, total: str) -> None:
    """D = A B + C, to the registers of its lanes."""
    if total == "f32":
        for i, target in enumerate(targets):
            part = found[:, GROUP + 8 * (i // 2), MEMBER * 2 + i % 2]
            f.R[target] = (part + c[i]).astype(np.float32).reshape(-1)
        return
    for i, target in enumerate(targets):
        pair = []
        for half, held in enumerate(halves(c[i])):
            part = found[:, GROUP + 8 * i, MEMBER * 2 + half]
            wide = part + held.view(np.float16)
            pair.append(wide.astype(np.float16).view(np.uint16).astype(np.uint32))
        f.R[target] = (pair[0] | pair[1] << np.uint32(16)).reshape(-1)


def load_matrix(ins: Instruction, env: Env) -> Step:
    """ldmatrix.sync.aligned.m8n8.xN{.trans}.shared.b16: rows of 16 bytes at the addresses of 8
    lanes each.
    """
    words = ins.words
    if "m8n8" not in words or words[-1] != "b16" or "shared" not in ins.opcode:
        raise UnknownInstructionError(str(ins))
    count = next(int(w[1:]) for w in words if re.fullmatch(r"x[124]", w))
    targets = [env.target(t) for t in env.vector(ins.operands[0])]
    base, offset = env.address(ins.operands[1], ins)
    access = Access(ins, "shared", DTYPES["b32"].itemsize, 4)

    def run(f: Frame) -> None:
        address = f.spread(base(f.R) + np.uint64(offset))
        f.mask = np.tile(8 * count > LANE, f.n // 32)
        try:
            parts = access.load(f, address)  # the row of each lane's address, in four words
        finally:
            f.mask = None
        rows = np.stack(parts, 1).view(np.uint16).reshape(-1, 32, 8)  # warp, lane, element
        for i, target in enumerate(targets):
            tile = rows[:, 8 * i : 8 * i + 8]
            if "trans" in words:
                tile = tile.transpose(0, 2, 1)
            low, high = tile[:, GROUP, MEMBER * 2], tile[:, GROUP, MEMBER * 2 + 1]
            joint = low.astype(np.uint32) | high.astype(np.uint32) << np.uint32(16)
            f.R[target] = joint.reshape(-1)

    return run
