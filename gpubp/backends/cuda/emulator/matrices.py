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
# Elements of a register.
_FACTORS = {"f16": 2, "bf16": 2, "tf32": 1, "s8": 4, "u8": 4, "f64": 1}


def multiply(ins: Instruction, env: Env) -> Step:
    """mma.sync.aligned.mMnNkK.row.col: factors of f16, bf16, tf32 with sums of f32 or f16; of 8-bit
    whole numbers with sums of s32; of f64.
    """
    words = ins.words
    match = _SHAPE.fullmatch(words[3]) if len(words) == 10 else None
    if match is None or words[4:6] != ["row", "col"]:
        raise UnknownInstructionError(str(ins))
    m, n, k = (int(x) for x in match.groups())
    total, left, right, added = words[6:]
    wide = {"f64": "f64", "s8": "s32", "u8": "s32"}.get(left, "f32")
    if left not in _FACTORS or wide != {"f16": "f32"}.get(total, total) or added != total:
        raise UnknownInstructionError(str(ins))
    if (m, n) != (16, 8) and (m, n, left) != (8, 8, "f64"):
        raise UnknownInstructionError(str(ins))
    a_at, b_at = _rows_of_a(m, k, left), _columns_of_b(k, left)
    operands = [env.vector(o) for o in ins.operands]
    bits = "b64" if left == "f64" else "b32"
    reads = [[env.read(o, bits, ins) for o in names] for names in operands[1:3]]
    sums = [env.read(o, "b32" if total == "f16" else total, ins) for o in operands[3]]
    targets = [env.target(o) for o in operands[0]]
    if len(reads[0]) * _FACTORS[left] != len(a_at[0]) or len(targets) != len(sums):
        raise UnknownInstructionError(str(ins), "another number of registers")

    def run(f: Frame) -> None:
        a = _gathered(_elements(f, reads[0], left), a_at, (m, k))
        b = _gathered(_elements(f, reads[1], right), b_at, (k, n))
        c = [f.spread(read(f.R)).reshape(-1, 32) for read in sums]
        _put(f, targets, c, a @ b, total)

    return run


def _rows_of_a(m: int, k: int, factor: str) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    """(row, column) of each element of A that a lane holds, in the order of its registers."""
    each = _FACTORS[factor]
    rows, columns = [], []
    for register in range(m * k // 32 // each):
        for part in range(each):
            rows.append(GROUP + 8 * (register % 2))
            columns.append(MEMBER * each + part + 4 * each * (register // 2))
    return rows, columns


def _columns_of_b(k: int, factor: str) -> tuple[list[NDArray[Any]], list[NDArray[Any]]]:
    each = _FACTORS[factor]
    rows, columns = [], []
    for register in range(8 * k // 32 // each):
        for part in range(each):
            rows.append(MEMBER * each + part + 4 * each * register)
            columns.append(GROUP)
    return rows, columns


def _elements(f: Frame, reads: list[Callable[[list[Value]], Value]], factor: str) -> list[Any]:
    """What the lanes hold, as float64, each (warps, 32)."""
    found: list[Any] = []
    for read in reads:
        bits = f.spread(read(f.R))
        values: list[Any]
        if factor == "f64":
            values = [bits.view(np.float64)]
        elif factor == "tf32":  # 10 bits of fraction count
            values = [(bits & np.uint32(0xFFFFE000)).view(np.float32)]
        elif factor == "bf16":
            values = [widened(h) for h in halves(bits)]
        elif factor == "f16":
            values = [as_dtype(h, np.dtype(np.float16)) for h in halves(bits)]
        else:
            each = [(bits >> np.uint32(8 * i)).astype(np.uint8) for i in range(4)]
            values = [as_dtype(b, DTYPES[factor]) for b in each]
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
    for i, target in enumerate(targets):
        if total == "f16":
            f.R[target] = _pair_of_sums(found[:, GROUP + 8 * i], c[i])
            continue
        part = found[:, GROUP + 8 * (i // 2), MEMBER * 2 + i % 2]
        if total == "s32":  # exact, and wraps around
            whole = part.astype(np.int64) + c[i]
            f.R[target] = whole.astype(np.int32).reshape(-1)
        else:
            f.R[target] = (part + c[i]).astype(DTYPES[total]).reshape(-1)


def _pair_of_sums(rows: Any, c: Any) -> Any:
    """Two sums of f16 in a register; `rows`: (warps, 32, columns)."""
    pair = []
    for half, held in enumerate(halves(c)):
        wide = rows[:, LANE, MEMBER * 2 + half] + held.view(np.float16)
        pair.append(wide.astype(np.float16).view(np.uint16).astype(np.uint32))
    return (pair[0] | pair[1] << np.uint32(16)).reshape(-1)


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
        address = f.spread(base(f.R) + np.uint64(offset & 0xFFFFFFFFFFFFFFFF))
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
