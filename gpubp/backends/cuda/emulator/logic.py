"""Bits, comparisons and choices: PTX ISA, "Logic and Shift", "Comparison and Selection", bit
fields.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp.backends.cuda.emulator.env import Env, Step, applied, elementwise, family
from gpubp.backends.cuda.emulator.faults import UnknownInstructionError
from gpubp.backends.cuda.emulator.ptx import Instruction
from gpubp.backends.cuda.emulator.values import BITS, DTYPES, Value, as_dtype, widened
from gpubp.backends.cuda.emulator.wave import Frame

_LOGIC: dict[str, Callable[..., Value]] = {
    "and": lambda a, b: a & b,
    "or": lambda a, b: a | b,
    "xor": lambda a, b: a ^ b,
    "not": lambda a: ~a,
    "cnot": lambda a: (a == 0).astype(a.dtype),
}


@family(*_LOGIC)
def logic(ins: Instruction, env: Env) -> Step:
    return elementwise(ins, env, _LOGIC[ins.words[0]], ins.words[-1])


@family("shl", "shr")
def shift(ins: Instruction, env: Env) -> Step:
    """By more than the width: zero, or copies of the sign."""
    words, kind = ins.words, ins.words[-1]
    value, by = env.read(ins.operands[1], kind, ins), env.read(ins.operands[2], "u32", ins)
    dtype = DTYPES[kind]
    width = 8 * dtype.itemsize
    signed = dtype.kind == "i"

    def run(a: Value, n: Value) -> Value:
        far = n >= width
        any_far = np.any(far)
        if any_far:
            n = np.minimum(n, np.uint32(width - 1))
        n = n.astype(dtype)
        found = a << n if words[0] == "shl" else a >> n
        return np.where(far, dtype.type(0), found) if any_far and not signed else found

    return applied(env.target(ins.operands[0]), run, [value, by])


@family("shf")
def funnel(ins: Instruction, env: Env) -> Step:
    left, clamp = "l" in ins.words, "clamp" in ins.words

    def run(a: Value, b: Value, c: Value) -> Value:
        n = (np.minimum(c, np.uint32(32)) if clamp else c & np.uint32(31)).astype(np.uint64)
        both = (b.astype(np.uint64) << np.uint64(32)) | a
        if left:
            return ((both << n) >> np.uint64(32)).astype(np.uint32)
        return (both >> n).astype(np.uint32)

    return elementwise(ins, env, run, "u32")


@family("lop3")
def lookup(ins: Instruction, env: Env) -> Step:
    table = int(ins.operands[4], 0)

    def run(a: Value, b: Value, c: Value) -> Value:
        found = a & np.uint32(0)
        for i in range(8):
            if table >> i & 1:
                x = a if i & 4 else ~a
                y = b if i & 2 else ~b
                z = c if i & 1 else ~c
                found = found | (x & y & z)
        return found

    reads = [env.read(o, "b32", ins) for o in ins.operands[1:4]]
    return applied(env.target(ins.operands[0]), run, reads)


def _compare(name: str, a: Value, b: Value, floats: bool) -> Value:
    """A comparison; of floats one with NaN is false, but for those whose names end in u."""
    names = {"lo": "lt", "ls": "le", "hi": "gt", "hs": "ge"}
    name = names.get(name, name)
    if floats and name in ("num", "nan"):
        nan = np.isnan(a) | np.isnan(b)
        return ~nan if name == "num" else nan
    plain = name[:2]
    if plain == "eq":
        found = a == b
    elif plain == "ne":
        found = a != b
    elif plain == "lt":
        found = a < b
    elif plain == "le":
        found = a <= b
    elif plain == "gt":
        found = a > b
    else:
        found = a >= b
    if not floats:
        return found
    if name.endswith("u") and len(name) == 3:
        return found | np.isnan(a) | np.isnan(b) if plain != "ne" else found
    return found & ~(np.isnan(a) | np.isnan(b)) if plain == "ne" else found


@family("setp", "set")
def compare(ins: Instruction, env: Env) -> Step:
    words = [w for w in ins.words if w != "ftz"]
    kind = words[-1]
    how, joins = words[1], words[2] if words[2] in ("and", "or", "xor") else ""
    if kind in ("f16x2", "bf16x2"):
        raise UnknownInstructionError(str(ins))
    a, b = (env.read(o, kind, ins) for o in ins.operands[1:3])
    third = ins.operands[3] if joins else ""
    more = env.read(third.lstrip("!"), "pred", ins) if joins else None
    first, _, second = ins.operands[0].partition("|")
    targets = [env.target(t) for t in (first, second) if t]
    floats, brain = DTYPES[kind].kind == "f" or kind == "bf16", kind == "bf16"
    result = DTYPES[words[-2]] if words[0] == "set" else None

    def run(f: Frame) -> None:
        x, y = a(f.R), b(f.R)
        if brain:
            x, y = widened(x), widened(y)
        held = _compare(how, x, y, floats)
        for n, found in zip(targets, (held, ~held)):
            if more is not None:
                c = more(f.R)
                c = ~c if third.startswith("!") else c
                found = _LOGIC[joins](found, c)
            f.R[n] = found if result is None else _as_number(found, result)

    return run


def _as_number(held: Value, dtype: np.dtype[Any]) -> Value:
    """set: all bits, or 1.0 of floats."""
    one = dtype.type(1) if dtype.kind == "f" else (~BITS[dtype.itemsize].type(0)).view(dtype)
    return np.where(held, one, dtype.type(0))


@family("selp")
def select(ins: Instruction, env: Env) -> Step:
    kind = ins.words[-1]
    a, b = (env.read(o, kind, ins) for o in ins.operands[1:3])
    p = env.read(ins.operands[3], "pred", ins)
    return applied(env.target(ins.operands[0]), lambda x, y, c: np.where(c, x, y), [a, b, p])


@family("slct")
def select_by_sign(ins: Instruction, env: Env) -> Step:
    kind, by = ins.words[-2:]
    reads = [env.read(o, k, ins) for o, k in zip(ins.operands[1:], (kind, kind, by))]
    return applied(env.target(ins.operands[0]), lambda x, y, c: np.where(c >= 0, x, y), reads)


@family("popc", "clz", "bfind", "brev", "fns")
def count(ins: Instruction, env: Env) -> Step:
    name, kind = ins.words[0], ins.words[-1]
    if name == "fns":
        raise UnknownInstructionError(str(ins))
    width = 8 * DTYPES[kind].itemsize

    def run(a: Value) -> Value:
        bits = as_dtype(a, BITS[a.dtype.itemsize])
        if name == "popc":
            return np.bitwise_count(bits).astype(np.uint32)
        if name == "brev":
            return _reversed(bits)
        if name == "bfind" and a.dtype.kind == "i":
            bits = np.where(a < 0, ~bits, bits)
        length = _length(bits)
        if name == "clz":
            return np.uint32(width) - length
        found = length - np.uint32(1)  # of 0 it is all bits
        shifted = np.where(length == 0, found, np.uint32(width) - length)
        return shifted if "shiftamt" in ins.words else found

    return elementwise(ins, env, run, kind)


def _length(bits: Value) -> Value:
    """Bits up to the highest one."""
    for by in (1, 2, 4, 8, 16, 32)[: 6 if bits.dtype.itemsize == 8 else 5]:
        bits = bits | (bits >> bits.dtype.type(by))
    return np.bitwise_count(bits).astype(np.uint32)


def _reversed(bits: Value) -> Value:
    width = 8 * bits.dtype.itemsize
    found = bits & bits.dtype.type(0)
    for i in range(width):
        bit = (bits >> bits.dtype.type(i)) & bits.dtype.type(1)
        found = found | (bit << bits.dtype.type(width - 1 - i))
    return found


@family("bfe")
def extract(ins: Instruction, env: Env) -> Step:
    kind = ins.words[-1]
    reads = [env.read(o, k, ins) for o, k in zip(ins.operands[1:], (kind, "u32", "u32"))]
    dtype = DTYPES[kind]
    width, bits = 8 * dtype.itemsize, BITS[dtype.itemsize]

    def run(a: Value, b: Value, c: Value) -> Value:
        at, n = b & np.uint32(255), c & np.uint32(255)
        raw = _shifted(as_dtype(a, bits), at, width) & _low(n, width, bits)
        if dtype.kind == "u":
            return raw
        top = np.minimum(at + n - np.uint32(1), np.uint32(width - 1)).astype(bits)
        sign = ((as_dtype(a, bits) >> top) & bits.type(1)) != 0
        there = np.minimum(n, np.uint32(width) - np.minimum(at, np.uint32(width)))
        filled = np.where(sign & (n > 0), raw | ~_low(there, width, bits), raw)
        return as_dtype(np.asarray(filled), dtype)

    return applied(env.target(ins.operands[0]), run, reads)


def _shifted(bits: Value, by: Value, width: int) -> Value:
    inside = np.minimum(by, np.uint32(width - 1)).astype(bits.dtype)
    return np.where(by >= width, bits.dtype.type(0), bits >> inside)


def _low(n: Value, width: int, bits: np.dtype[Any]) -> Value:
    """n ones."""
    few = np.minimum(n, np.uint32(width - 1)).astype(bits)
    return np.where(n >= width, ~bits.type(0), (bits.type(1) << few) - bits.type(1))


@family("bfi")
def insert(ins: Instruction, env: Env) -> Step:
    kind = ins.words[-1]
    reads = [env.read(o, k, ins) for o, k in zip(ins.operands[1:], (kind, kind, "u32", "u32"))]
    dtype = DTYPES[kind]
    width = 8 * dtype.itemsize

    def run(a: Value, b: Value, c: Value, d: Value) -> Value:
        at, n = c & np.uint32(255), d & np.uint32(255)
        shift = np.minimum(at, np.uint32(width - 1)).astype(dtype)
        mask = np.where(at >= width, dtype.type(0), _low(n, width, dtype) << shift)
        return (b & ~mask) | ((a << shift) & mask)

    return applied(env.target(ins.operands[0]), run, reads)


@family("prmt")
def permute(ins: Instruction, env: Env) -> Step:
    if ins.words[-1] != "b32" or len(ins.words) != 2:
        raise UnknownInstructionError(str(ins))

    def run(a: Value, b: Value, c: Value) -> Value:
        both = (b.astype(np.uint64) << np.uint64(32)) | a
        found: Value = np.uint32(0)
        for i in range(4):
            chosen = (c >> np.uint32(4 * i)) & np.uint32(15)
            at = ((chosen & np.uint32(7)) * np.uint32(8)).astype(np.uint64)
            byte = (both >> at) & np.uint64(255)
            sign = np.where(byte & np.uint64(128), np.uint64(255), np.uint64(0))
            byte = np.where(chosen & np.uint32(8), sign, byte)
            found = found | (byte.astype(np.uint32) << np.uint32(8 * i))
        return found

    return elementwise(ins, env, run, "b32")


@family("bmsk")
def ones(ins: Instruction, env: Env) -> Step:
    def run(a: Value, b: Value) -> Value:
        at, n = np.minimum(a, np.uint32(32)), np.minimum(b, np.uint32(32))
        mask = (np.uint64(1) << n.astype(np.uint64)) - np.uint64(1)
        return (mask << at.astype(np.uint64)).astype(np.uint32)

    if "wrap" in ins.words:
        raise UnknownInstructionError(str(ins))
    return elementwise(ins, env, run, "u32")


@family("testp")
def test_number(ins: Instruction, env: Env) -> Step:
    name = ins.words[1]

    def run(a: Value) -> Value:
        least = np.finfo(a.dtype).tiny
        if name == "subnormal":
            return (np.abs(a) < least) & (a != 0)
        if name == "normal":
            return np.isfinite(a) & (np.abs(a) >= least)
        found = {"finite": np.isfinite, "infinite": np.isinf, "notanumber": np.isnan}.get(name)
        return ~np.isnan(a) if found is None else found(a)

    return elementwise(ins, env, run, ins.words[-1])
