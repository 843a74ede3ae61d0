"""Between types: PTX ISA, "cvt", and `mov` of parts of registers."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp.backends.cuda.emulator.env import Env, Step, family
from gpubp.backends.cuda.emulator.faults import UnknownInstructionError
from gpubp.backends.cuda.emulator.floats import flushed, saturated
from gpubp.backends.cuda.emulator.ptx import SIZES, Instruction
from gpubp.backends.cuda.emulator.rounding import directed
from gpubp.backends.cuda.emulator.values import (
    BITS,
    DTYPES,
    Value,
    as_dtype,
    fitted,
    joined,
    to_bf16,
    widened,
)
from gpubp.backends.cuda.emulator.wave import Frame

Function = Callable[[Value], Value]
_INTEGRAL: dict[str, Function] = {"rni": np.rint, "rzi": np.trunc, "rmi": np.floor, "rpi": np.ceil}
_MODIFIERS = {"rn", "rz", "rm", "rp", "rna", "sat", "ftz", "relu", "satfinite", *_INTEGRAL}


@family("cvt")
def convert(ins: Instruction, env: Env) -> Step:
    into, source = ins.words[-2:]
    how = set(ins.words[1:-2])
    if not how <= _MODIFIERS or len(ins.operands) > 3:
        raise UnknownInstructionError(str(ins))
    if into in ("f16x2", "bf16x2") and len(ins.operands) == 3:
        return _pair(ins, env, into, how)
    for kind in (into, source):
        if kind not in DTYPES or (kind == "tf32" and source != "f32"):
            raise UnknownInstructionError(str(ins), f"the type {kind!r}")
    function = _function(into, source, how, ins)
    read = env.read(ins.operands[1], source, ins)
    target, dtype = env.target(ins.operands[0]), env.dtype(ins.operands[0])

    def run(f: Frame) -> None:
        f.R[target] = extended(function(read(f.R)), dtype)

    return run


def extended(x: Value, dtype: np.dtype[Any]) -> Value:
    """For a register that is wider than the value: with copies of the sign, if it has one."""
    if x.dtype.itemsize == dtype.itemsize:
        return x
    if x.dtype.kind == "f":
        x = as_dtype(x, BITS[x.dtype.itemsize])
    return x.astype(np.dtype(f"{x.dtype.kind}{dtype.itemsize}"))


def _function(into: str, source: str, how: set[str], ins: Instruction) -> Function:
    if into in ("bf16", "tf32"):
        return _to_brain(into, source, how, ins)
    read: Function = widened if source == "bf16" else lambda x: x
    a, b = DTYPES["f32" if source == "bf16" else source], DTYPES[into]
    if a.kind == "f" and b.kind == "f":
        inner = _float_to_float(a, b, how, ins)
    elif a.kind == "f":
        inner = _float_to_integer(b, how, ins)
    elif b.kind == "f":
        inner = _integer_to_float(a, b, how, ins)
    else:
        inner = _integers(b, "sat" in how)
    return lambda x: inner(read(x))


def _integers(into: np.dtype[Any], sat: bool) -> Function:
    if not sat:
        return lambda x: x.astype(into)
    low, high = np.iinfo(into).min, np.iinfo(into).max

    def run(x: Value) -> Value:
        least, most = np.iinfo(x.dtype).min, np.iinfo(x.dtype).max
        clipped = np.clip(x, x.dtype.type(max(low, least)), x.dtype.type(min(high, most)))
        return clipped.astype(into)

    return run


def _float_to_float(
    a: np.dtype[Any],
    b: np.dtype[Any],
    how: set[str],
    ins: Instruction,
) -> Function:
    whole = next((_INTEGRAL[w] for w in how if w in _INTEGRAL), None)
    mode = next((w for w in how if w in ("rz", "rm", "rp", "rna")), "rn")
    narrow = b.itemsize < a.itemsize
    if mode != "rn" and narrow and (a.itemsize, b.itemsize) != (8, 4):
        raise UnknownInstructionError(str(ins), f"rounding {mode}")

    def run(x: Value) -> Value:
        if "ftz" in how and a.itemsize == 4:
            x = flushed(x)
        if whole is not None:
            x = whole(x)
        x = directed(x, mode) if narrow and mode != "rn" else x.astype(b)
        if "ftz" in how and b.itemsize == 4:
            x = flushed(x)
        if "relu" in how:
            x = np.where(x > 0, x, np.where(np.isnan(x), x, b.type(0)))
        if "satfinite" in how:
            x = np.where(np.isinf(x), np.copysign(np.finfo(b).max, x), x)
        return saturated(x) if "sat" in how else x

    return run


def _float_to_integer(into: np.dtype[Any], how: set[str], ins: Instruction) -> Function:
    """Beyond the type's ends it is the end; NaN is 0."""
    whole = next((_INTEGRAL[w] for w in how if w in _INTEGRAL), None)
    if whole is None:
        raise UnknownInstructionError(str(ins), "a conversion without rounding")
    info = np.iinfo(into)
    above = float(2 ** (8 * into.itemsize - (into.kind == "i")))

    def run(x: Value) -> Value:
        if "ftz" in how and x.dtype.itemsize == 4:
            x = flushed(x)
        wide = whole(x.astype(np.float64))
        high, low = wide >= above, wide < float(info.min)
        inside = np.where(high | low | np.isnan(wide), 0.0, wide).astype(into)
        return np.where(high, into.type(info.max), np.where(low, into.type(info.min), inside))

    return run


def _integer_to_float(
    a: np.dtype[Any],
    b: np.dtype[Any],
    how: set[str],
    ins: Instruction,
) -> Function:
    mode = next((w for w in how if w in ("rz", "rm", "rp")), "rn")
    if mode == "rn":
        return lambda x: x.astype(b)
    if b.itemsize != 4 or a.itemsize > 4:
        raise UnknownInstructionError(str(ins), f"rounding {mode}")
    return lambda x: directed(x.astype(np.float64), mode)


def _to_brain(into: str, source: str, how: set[str], ins: Instruction) -> Function:
    if source != "f32" or not how <= {"rn", "rna", "relu"} or (into == "bf16" and "rna" in how):
        raise UnknownInstructionError(str(ins))

    def run(x: Value) -> Value:
        if "relu" in how:
            x = np.where(x > 0, x, np.where(np.isnan(x), x, np.float32(0)))
        return to_bf16(x) if into == "bf16" else to_tf32(x, "rna" in how)

    return run


def to_tf32(x: Value, away: bool) -> Value:
    """float32 with 10 bits of fraction: to nearest, ties away from 0 or to even."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    half: Value = np.uint32(0x1000)
    if not away:
        half = np.uint32(0xFFF) + ((bits >> np.uint32(13)) & np.uint32(1))
    found = (bits + half) & np.uint32(0xFFFFE000)
    return np.where(np.isfinite(x), found, bits)


def _pair(ins: Instruction, env: Env, into: str, how: set[str]) -> Step:
    """Two numbers to the halves of 32 bits: the first one is the upper half."""
    one = _function(into[:-2], "f32", how, ins)
    high, low = (env.read(o, "f32", ins) for o in ins.operands[1:])
    target = env.target(ins.operands[0])

    def run(f: Frame) -> None:
        upper, lower = one(high(f.R)), one(low(f.R))
        f.R[target] = joined(fitted(lower, BITS[2]), fitted(upper, BITS[2]))

    return run


@family("mov")
def move(ins: Instruction, env: Env) -> Step:
    """A copy; or elements of a register, or of elements a register."""
    to, source = ins.operands
    kind = ins.words[-1]
    if to.startswith("{"):
        return _unpacked(ins, env, kind)
    target = env.target(to)
    if source.startswith("{"):
        return _packed(ins, env, target, kind)
    special = special_register(source)
    if special is not None:
        dtype = env.dtype(to)
        return lambda f: f.R.__setitem__(target, fitted(special(f), dtype))
    if env.kind(source) is not None:
        n = env.target(source)
        return lambda f: f.R.__setitem__(target, f.R[n])
    read = env.read(source, kind, ins)
    return lambda f: f.R.__setitem__(target, read(f.R))


def _unpacked(ins: Instruction, env: Env, kind: str) -> Step:
    names = env.vector(ins.operands[0])
    each = BITS[SIZES[kind] // len(names)]
    whole = BITS[SIZES[kind]]
    read = env.read(ins.operands[1], kind, ins)
    targets = [None if n == "_" else env.target(n) for n in names]

    def run(f: Frame) -> None:
        bits = as_dtype(read(f.R), whole)
        for i, n in enumerate(targets):
            if n is not None:
                f.R[n] = (bits >> whole.type(8 * each.itemsize * i)).astype(each)

    return run


def _packed(ins: Instruction, env: Env, target: int, kind: str) -> Step:
    names = env.vector(ins.operands[1])
    whole = BITS[SIZES[kind]]
    width = SIZES[kind] // len(names)
    reads = [env.read(n, f"b{8 * width}", ins) for n in names]

    def run(f: Frame) -> None:
        found = whole.type(0)
        for i, read in enumerate(reads):
            found = found | (read(f.R).astype(whole) << whole.type(8 * width * i))
        f.R[target] = found

    return run


def special_register(name: str) -> Callable[[Frame], Value] | None:
    """What a name such as %tid.x gives; None if it is no such name."""
    if not name.startswith("%") or name[1:] not in _SPECIAL:
        return None
    key = name[1:]
    return lambda f: f.wave.special(key, f)


_SPECIAL = {
    *(f"{n}.{a}" for n in ("tid", "ntid", "ctaid", "nctaid") for a in "xyz"),
    *("laneid", "warpid", "nwarpid", "smid", "nsmid", "gridid", "clock", "clock_hi", "clock64"),
    *(
        "globaltimer",
        "globaltimer_lo",
        "lanemask_eq",
        "lanemask_lt",
        "lanemask_le",
        "lanemask_gt",
        "lanemask_ge",
    ),
    *("dynamic_smem_size", "total_smem_size", "envreg1", "envreg2"),
    *(f"clusterid.{a}" for a in "xyz"),
}
