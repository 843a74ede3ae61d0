"""Whole numbers: PTX ISA, "Integer Arithmetic Instructions" and "Extended-Precision" ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp.backends.cuda.emulator.env import Env, Step, applied, elementwise, family
from gpubp.backends.cuda.emulator.faults import UnknownInstructionError
from gpubp.backends.cuda.emulator.floats import float_step
from gpubp.backends.cuda.emulator.ptx import Instruction
from gpubp.backends.cuda.emulator.values import BITS, DTYPES, Value, as_dtype
from gpubp.backends.cuda.emulator.wave import Frame

Function = Callable[..., Value]
WIDER = {"u16": "u32", "s16": "s32", "u32": "u64", "s32": "s64"}


def high(a: Value, b: Value) -> Value:
    """The upper half of a product."""
    dtype = a.dtype
    width = dtype.itemsize
    if width < 8:
        wide = np.dtype(f"{dtype.kind}{2 * width}")
        return (a.astype(wide) * b.astype(wide) >> wide.type(8 * width)).astype(dtype)
    x, y = as_dtype(a, BITS[8]), as_dtype(b, BITS[8])
    low, shift = np.uint64(0xFFFFFFFF), np.uint64(32)
    x0, x1, y0, y1 = x & low, x >> shift, y & low, y >> shift
    middle = x1 * y0 + (x0 * y0 >> shift)
    other = x0 * y1 + (middle & low)
    found = x1 * y1 + (middle >> shift) + (other >> shift)
    if dtype.kind == "i":
        found = found - np.where(a < 0, y, np.uint64(0)) - np.where(b < 0, x, np.uint64(0))
        return as_dtype(found, dtype)
    return found


def divide(a: Value, b: Value) -> Value:
    """Towards zero; by zero all bits are set, as GPUs do it."""
    zero = b == 0
    if np.any(zero):
        b = np.where(zero, b.dtype.type(1), b)
    if a.dtype.kind == "u":
        found = a // b
    else:
        found = a // b
        found = found + ((a - found * b != 0) & ((a < 0) != (b < 0))).astype(a.dtype)
    return np.where(zero, ~a.dtype.type(0), found) if np.any(zero) else found


def remainder(a: Value, b: Value) -> Value:
    """With the dividend's sign; by zero it is the dividend."""
    zero = b == 0
    if np.any(zero):
        b = np.where(zero, b.dtype.type(1), b)
    found = a % b if a.dtype.kind == "u" else np.fmod(a, b)
    return np.where(zero, a, found) if np.any(zero) else found


def _saturated(function: Function) -> Function:
    """add.sat and sub.sat of s32."""

    def run(a: Value, b: Value) -> Value:
        wide = function(a.astype(np.int64), b.astype(np.int64))
        return np.clip(wide, -(2**31), 2**31 - 1).astype(np.int32)

    return run


SIMPLE: dict[str, Function] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "div": divide,
    "rem": remainder,
    "min": np.minimum,
    "max": np.maximum,
    "abs": np.abs,
    "neg": lambda a: -a,
    "sad": lambda a, b, c: np.where(a > b, a - b, b - a).astype(c.dtype) + c,
}


@family("add", "sub", "div", "rem", "min", "max", "abs", "neg", "sad")
def arithmetic(ins: Instruction, env: Env) -> Step:
    words, kind = ins.words, ins.words[-1]
    if "cc" in words:
        return _with_carry(ins, env)
    if kind in ("s16", "u16", "s32", "u32", "s64", "u64"):
        function = SIMPLE[words[0]]
        if "sat" in words:
            function = _saturated(function)
        return elementwise(ins, env, function, kind)
    return float_step(ins, env)


@family("mul", "mad")
def product(ins: Instruction, env: Env) -> Step:
    words, kind = ins.words, ins.words[-1]
    if "cc" in words:
        return _with_carry(ins, env)
    if "lo" not in words and "hi" not in words and "wide" not in words:
        return float_step(ins, env)
    if "sat" in words:
        raise UnknownInstructionError(str(ins))
    given = [env.read(o, kind, ins) for o in ins.operands[1:3]]
    target = env.target(ins.operands[0])
    result = kind
    if "wide" in words:
        result = WIDER[kind]
        wide = DTYPES[result]
        function: Function = lambda a, b: a.astype(wide) * b.astype(wide)  # noqa: E731
    else:
        function = high if "hi" in words else (lambda a, b: a * b)
    if words[0] == "mul":
        return applied(target, function, given)
    last = env.read(ins.operands[3], result, ins)
    return applied(target, lambda a, b, c: function(a, b) + c, [*given, last])


@family("mul24", "mad24")
def product_24(ins: Instruction, env: Env) -> Step:
    if "lo" not in ins.words:
        raise UnknownInstructionError(str(ins))
    shift = DTYPES[ins.words[-1]].type(8)

    def low(a: Value) -> Value:
        return (a << shift) >> shift

    if ins.words[0] == "mul24":
        return elementwise(ins, env, lambda a, b: low(a) * low(b), ins.words[-1])
    return elementwise(ins, env, lambda a, b, c: low(a) * low(b) + c, ins.words[-1])


@family("addc", "subc", "madc")
def carried(ins: Instruction, env: Env) -> Step:
    return _with_carry(ins, env)


def _with_carry(ins: Instruction, env: Env) -> Step:
    """Sums of more bits than a register has: the carry is a register of its own."""
    words = ins.words
    kind = "u" + words[-1][1:]
    dtype = DTYPES[kind]
    name, takes, gives = words[0].rstrip("c"), words[0].endswith("c"), "cc" in words
    reads = [env.read(o, kind, ins) for o in ins.operands[1:]]
    target, carry = env.target(ins.operands[0]), env.registers.add("CC", "b32")
    half = _half(words, ins) if name == "mad" else None

    def run(f: Frame) -> None:
        R = f.R
        a, b, *rest = (read(R) for read in reads)
        if half is not None:
            a, b = half(a, b), rest[0]
        into = as_dtype(R[carry], BITS[4]).astype(dtype) if takes else dtype.type(0)
        if name == "sub":
            found = a - b - into
            out = (a < b) | ((a == b) & (into != 0))
        else:
            found = a + b
            out = found < a
            found = found + into
            out = out | (found < into)
        R[target] = found
        if gives:
            R[carry] = np.asarray(out).astype(np.uint32)

    return run


def _half(words: list[str], ins: Instruction) -> Function:
    if words[-1][0] == "s" and "hi" in words:
        kind = DTYPES[words[-1]]
        return lambda a, b: as_dtype(high(as_dtype(a, kind), as_dtype(b, kind)), a.dtype)
    return high if "hi" in words else (lambda a, b: a * b)


@family("dp4a")
def dots(ins: Instruction, env: Env) -> Step:
    first, second = ins.words[-2:]
    reads = [env.read(o, k, ins) for o, k in zip(ins.operands[1:], (first, second, second))]

    def run(a: Value, b: Value, c: Value) -> Value:
        total: Any = c.astype(np.int64)
        for i in range(4):
            x = _byte(a, i, first)
            total = total + x * _byte(b, i, second)
        return total.astype(np.int32) if "s" in first + second else total.astype(np.uint32)

    return applied(env.target(ins.operands[0]), run, reads)


def _byte(x: Value, i: int, kind: str) -> Value:
    byte = (as_dtype(x, BITS[4]) >> np.uint32(8 * i)).astype(np.uint8)
    return (as_dtype(byte, DTYPES["s8"]) if kind[0] == "s" else byte).astype(np.int64)
