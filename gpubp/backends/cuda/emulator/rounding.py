"""Rounding other than to the nearest number of a type: with float64 in between.

float64 keeps more than twice float32's bits. A result that is rounded to float64 *to odd* (the last
bit is set where anything was cut off) can be rounded to float32 in any direction and gives what one
rounding would (Boldo and Melquiond, "Emulation of a FMA and correctly rounded sums", 2008).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.backends.cuda.emulator.native import fma

Value = Any


def _odd(found: Value, rest: Value) -> Value:
    """`found` with its last bit set where `rest`, what is missing of the exact result, is not 0."""
    bits = np.asarray(found).view(np.int64)
    inexact = (rest != 0) & np.isfinite(found) & np.isfinite(rest)
    even = (bits & 1) == 0
    # Towards the exact result: up in size where the rest has found's sign.
    away = np.signbit(rest) == np.signbit(found)
    step = np.where(away, 1, -1)
    return np.where(inexact & even, bits + step, bits).view(np.float64)


def to_odd(name: str, a: Value, b: Value = None, c: Value = None) -> Value:
    """add, sub, mul, fma, div, rcp or sqrt of float64 that hold float32 numbers, rounded to odd."""
    if name in ("add", "sub"):
        b = b if name == "add" else -b
        return _sum(a, b)
    if name == "mul":
        return a * b  # 48 bits
    if name == "fma":
        return _sum(a * b, c)
    one = np.float64(1)
    if name == "sqrt":
        found = np.sqrt(a)
        return _odd(found, -fma(found, found, -a))
    a, b = (a, b) if name == "div" else (one, a)
    found = a / b
    rest = -fma(found, b, -a)
    return _odd(found, np.where(np.isfinite(found), rest * np.sign(b), 0.0))


def _sum(a: Value, b: Value) -> Value:
    """Knuth's TwoSum gives what rounding took away."""
    found = a + b
    back = found - a
    rest = (a - (found - back)) + (b - back)
    return _odd(found, np.where(np.isnan(rest), 0.0, rest))


def directed(x: Value, mode: str) -> Value:
    """float64, exact or rounded to odd, to float32: "rz", "rm", "rp", "rn" or "odd"."""
    near = np.asarray(x).astype(np.float32)
    if mode == "rn":
        return near
    back = near.astype(np.float64)
    up, down = np.float32(np.inf), np.float32(-np.inf)
    if mode == "rm":
        return np.where(back > x, np.nextafter(near, down), near)
    if mode == "rp":
        return np.where(back < x, np.nextafter(near, up), near)
    toward = np.where(np.abs(back) > np.abs(x), np.nextafter(near, np.float32(0)), near)
    if mode == "rz":
        return toward
    bits = np.asarray(toward).view(np.uint32)
    cut = (toward.astype(np.float64) != x) & ~np.isnan(x)
    return np.where(cut, bits | np.uint32(1), bits).view(np.float32)
