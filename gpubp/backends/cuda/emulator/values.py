"""Registers as arrays: one element a lane, or one number where all lanes have the same.

A register has no type, only a width: an instruction looks at its bits as what it works on. Arrays
are never changed in place after they were put into a register, so registers may share one.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp.backends.cuda.emulator.faults import UnknownInstructionError

Value = Any  # a NumPy array or scalar
Read = Callable[[list[Value]], Value]

BITS: dict[int, np.dtype[Any]] = {
    1: np.dtype(np.uint8),
    2: np.dtype(np.uint16),
    4: np.dtype(np.uint32),
    8: np.dtype(np.uint64),
}
DTYPES: dict[str, np.dtype[Any]] = {"pred": np.dtype(np.bool_)}
for _width, _bits in BITS.items():
    for _letter in "bu":
        DTYPES[f"{_letter}{8 * _width}"] = _bits
    DTYPES[f"s{8 * _width}"] = np.dtype(f"i{_width}")
DTYPES |= {"f16": np.dtype(np.float16), "f32": np.dtype(np.float32), "f64": np.dtype(np.float64)}
# Two halves, or a format that NumPy has not: as bits.
DTYPES |= {"f16x2": BITS[4], "bf16x2": BITS[4], "tf32": BITS[4], "bf16": BITS[2]}


def as_dtype(x: Value, dtype: np.dtype[Any]) -> Value:
    """The same bits as another type of the same width."""
    return x if x.dtype is dtype else x.view(dtype)


def fitted(x: Value, dtype: np.dtype[Any]) -> Value:
    """The low bits as a narrower type, or the bits as they are."""
    if x.dtype.itemsize > dtype.itemsize:
        x = as_dtype(x, BITS[x.dtype.itemsize]).astype(BITS[dtype.itemsize])
    return as_dtype(x, dtype)


def constant(text: str, kind: str) -> Value | None:
    """An operand that is a number, as a type; None if it is no number."""
    dtype = DTYPES[kind]
    if text[:2] in ("0f", "0F") and len(text) == 10:
        single = np.uint32(int(text[2:], 16)).view(np.float32)
        return single.astype(dtype) if dtype.kind == "f" else fitted(single, dtype)
    if text[:2] in ("0d", "0D") and len(text) == 18:
        double = np.uint64(int(text[2:], 16)).view(np.float64)
        return double.astype(dtype) if dtype.kind == "f" else fitted(double, dtype)
    number = integer(text)
    if number is not None:
        if dtype.kind == "f":
            return dtype.type(number)
        if dtype.kind == "b":
            return np.bool_(number)
        return _wrapped(number, dtype)
    if dtype.kind == "f":
        try:
            return dtype.type(float(text))
        except ValueError:
            return None
    return None


def integer(text: str) -> int | None:
    """A whole number as PTX writes it: decimal, 0x, octal, with an U behind it."""
    text = text.strip()
    if not text or text[0] not in "-+0123456789":
        return None
    text = text.rstrip("Uu")
    try:
        bare = text.lstrip("+-")
        if len(bare) > 1 and bare[0] == "0" and bare.isdigit():
            return int(text, 8)
        return int(text, 0)
    except ValueError:
        return None


def _wrapped(number: int, dtype: np.dtype[Any]) -> Value:
    width = dtype.itemsize
    raw = (number & ((1 << 8 * width) - 1)).to_bytes(width, "little")
    return np.frombuffer(raw, dtype)[0]


def unsigned(number: int) -> int:
    """A packed immediate's low 32 bits."""
    (found,) = struct.unpack("<I", struct.pack("<I", number & 0xFFFFFFFF))
    return int(found)


def known(kind: str, instruction: object) -> np.dtype[Any]:
    """NumPy's name of a type.

    Raises:
        UnknownInstructionError: it has none.
    """
    if kind not in DTYPES:
        raise UnknownInstructionError(str(instruction), f"the type {kind!r}")
    return DTYPES[kind]


def widened(bits: Value) -> Value:
    """bf16, as 16 bits, to float32."""
    return (as_dtype(bits, BITS[2]).astype(np.uint32) << np.uint32(16)).view(np.float32)


def to_bf16(x: Value) -> Value:
    """float32 to bf16, to the nearest, ties to even; NaN is 0x7fff."""
    bits = np.asarray(x, np.float32).view(np.uint32)
    up = ((bits >> np.uint32(16)) & np.uint32(1)) + np.uint32(0x7FFF)
    found = ((bits + up) >> np.uint32(16)).astype(np.uint16)
    return np.where(np.isnan(x), np.uint16(0x7FFF), found)


def halves(x: Value) -> tuple[Value, Value]:
    """The low and the high 16 bits of 32."""
    x = as_dtype(x, BITS[4])
    return (x & np.uint32(0xFFFF)).astype(np.uint16), (x >> np.uint32(16)).astype(np.uint16)


def joined(low: Value, high: Value) -> Value:
    """32 bits of two times 16."""
    low, high = as_dtype(low, BITS[2]), as_dtype(high, BITS[2])
    return low.astype(np.uint32) | (high.astype(np.uint32) << np.uint32(16))
