"""Floats: PTX ISA, "Floating Point Instructions" and "Half Precision" ones.

Sums, products, quotients, roots and `fma` are rounded as the instruction says. `.approx` ones are
computed in float64 and rounded: within the error bounds of the ISA, but not a GPU's bits.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp.backends.cuda.emulator.env import Env, Step, applied, elementwise, family
from gpubp.backends.cuda.emulator.faults import UnknownInstructionError
from gpubp.backends.cuda.emulator.native import fma
from gpubp.backends.cuda.emulator.ptx import Instruction
from gpubp.backends.cuda.emulator.rounding import directed, to_odd
from gpubp.backends.cuda.emulator.values import (
    BITS,
    Value,
    as_dtype,
    halves,
    joined,
    to_bf16,
    widened,
)

Function = Callable[..., Value]
ROUNDINGS = ("rn", "rz", "rm", "rp", "rna")


def least(a: Value, b: Value) -> Value:
    """The smaller one; of a number and NaN the number; -0 is below 0."""
    return _zeros(np.fmin(a, b), a, b, np.bitwise_or)


def greatest(a: Value, b: Value) -> Value:
    """The larger one."""
    return _zeros(np.fmax(a, b), a, b, np.bitwise_and)


def _zeros(found: Value, a: Value, b: Value, join: Function) -> Value:
    both = (a == 0) & (b == 0)
    if not np.any(both):
        return found
    bits = BITS[a.dtype.itemsize]
    return np.where(both, join(as_dtype(a, bits), as_dtype(b, bits)).view(a.dtype), found)


SIMPLE: dict[str, Function] = {
    "add": lambda a, b: a + b,
    "sub": lambda a, b: a - b,
    "mul": lambda a, b: a * b,
    "div": lambda a, b: a / b,
    "fma": fma,
    "mad": fma,
    "min": least,
    "max": greatest,
    "abs": np.abs,
    "neg": lambda a: -a,
    "copysign": lambda a, b: np.copysign(b, a),
    "sqrt": np.sqrt,
    "rcp": lambda a: a.dtype.type(1) / a,
}


def _wide(function: Function) -> Function:
    """Of a function of float64, the one of float32."""
    return lambda a: np.asarray(function(a.astype(np.float64))).astype(a.dtype)


APPROXIMATE: dict[str, Function] = {
    "ex2": _wide(np.exp2),
    "lg2": _wide(np.log2),
    "sin": _wide(np.sin),
    "cos": _wide(np.cos),
    "tanh": _wide(np.tanh),
    "rsqrt": _wide(lambda a: 1 / np.sqrt(a)),
}


def _upper(a: Value) -> Value:
    """float64 of whose bits only the upper 32 count."""
    return (as_dtype(a, BITS[8]) & np.uint64(0xFFFFFFFF00000000)).view(np.float64)


def flushed(a: Value) -> Value:
    """ftz: subnormal numbers are 0, with their sign."""
    small = np.abs(a) < np.finfo(np.float32).tiny
    return np.where(small, np.copysign(np.float32(0), a), a) if np.any(small) else a


def _flushing(function: Function) -> Function:
    return lambda *x: flushed(function(*[flushed(one) for one in x]))


def saturated(a: Value) -> Value:
    """sat: to 0 up to 1; NaN is 0."""
    one, zero = a.dtype.type(1), a.dtype.type(0)
    return np.where(a > zero, np.where(a < one, a, one), zero)


def _directed(name: str, mode: str, kind: str) -> Function | None:
    """A sum, product or quotient that is not rounded to nearest."""
    if kind != "f32" or name not in ("add", "sub", "mul", "fma", "div", "rcp", "sqrt"):
        return None

    def run(*x: Value) -> Value:
        return directed(to_odd(name, *[one.astype(np.float64) for one in x]), mode)

    return run


@family("fma", "copysign", "sqrt", "rcp", "ex2", "lg2", "sin", "cos", "tanh", "rsqrt")
def float_step(ins: Instruction, env: Env) -> Step:
    """One float instruction; also those whose names whole numbers share."""
    kind, name, words = ins.words[-1], ins.words[0], ins.words
    if kind in ("f16", "bf16", "f16x2", "bf16x2"):
        return _half_step(ins, env, kind, name)
    if kind not in ("f32", "f64"):
        raise UnknownInstructionError(str(ins))
    mode = next((w for w in words if w in ROUNDINGS), "rn")
    function = SIMPLE.get(name) or APPROXIMATE[name]
    if name in ("min", "max") and "NaN" in words:
        function = np.minimum if name == "min" else np.maximum
    if "xorsign" in words or len(ins.operands) > 4:
        raise UnknownInstructionError(str(ins))
    if kind == "f64" and "approx" in words:
        exact = function
        function = lambda a: _upper(exact(_upper(a)))  # noqa: E731
    if mode != "rn":
        found = _directed(name, mode, kind)
        if found is None:
            raise UnknownInstructionError(str(ins), f"rounding {mode} of {kind}")
        function = found
    if "ftz" in words and kind == "f32":
        function = _flushing(function)
    if "sat" in words:
        inner = function
        function = lambda *x: saturated(inner(*x))  # noqa: E731
    return elementwise(ins, env, function, kind)


_HALF = ("add", "sub", "mul", "fma", "min", "max", "abs", "neg", "ex2", "tanh")


def _half_step(ins: Instruction, env: Env, kind: str, name: str) -> Step:
    if name not in _HALF or not set(ins.words) <= {
        name,
        kind,
        "rn",
        "ftz",
        "sat",
        "NaN",
        "approx",
        "relu",
    }:
        raise UnknownInstructionError(str(ins))
    brain = kind.startswith("b")
    bits = "b32" if kind.endswith("x2") else "b16"
    one = _of_halves(ins, name, brain)
    reads = [env.read(o, bits, ins) for o in ins.operands[1:]]

    def pairs(*x: Value) -> Value:
        parts = [halves(v) for v in x]
        return joined(one(*[p[0] for p in parts]), one(*[p[1] for p in parts]))

    return applied(env.target(ins.operands[0]), pairs if bits == "b32" else one, reads)


def _of_halves(ins: Instruction, name: str, brain: bool) -> Function:
    """A function of 16 bits, by way of float64, where sums and products of two halves are exact."""
    words = ins.words
    if name in ("abs", "neg"):
        mask = np.uint16(0x8000)
        return (lambda a: a & ~mask) if name == "abs" else (lambda a: a ^ mask)
    plain: Function = SIMPLE.get(name) or APPROXIMATE[name]
    if name in ("min", "max") and "NaN" in words:
        plain = np.minimum if name == "min" else np.maximum
    if name == "fma":
        plain = lambda a, b, c: a * b + c  # noqa: E731

    def run(*x: Value) -> Value:
        wide = [widened(v) if brain else as_dtype(v, np.dtype(np.float16)) for v in x]
        found: Any = plain(*[v.astype(np.float64) for v in wide])
        if "sat" in words:
            found = saturated(found)
        if "relu" in words:
            found = np.where(found > 0, found, np.where(np.isnan(found), found, 0.0))
        if brain:
            return to_bf16(directed(found, "odd"))
        return np.asarray(found).astype(np.float16).view(np.uint16)

    return run
