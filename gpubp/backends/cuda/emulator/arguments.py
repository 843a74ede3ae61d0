"""A kernel's arguments as the bytes of its parameters.

Comes in: arrays, numbers, bytes, tuples of these for structs. Goes out: the parameters, and which
array lies where.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.cuda.emulator.memory import ALLOCATED, WRITTEN, DeviceSpace, Piece
from gpubp.backends.cuda.emulator.ptx import Variable
from gpubp.backends.cuda.emulator.values import DTYPES
from gpubp.errors import ArgumentError


@dataclass(frozen=True)
class Output:
    """An array that a kernel must write: what it reads of it before is a fault.

    Attributes:
        shape: of the array.
        dtype: of its elements.
        partial: the kernel may leave elements as they are (0).
    """

    shape: int | tuple[int, ...]
    dtype: Any = np.float32
    partial: bool = False


@dataclass
class Placed:
    """An array in the device's memory."""

    piece: Piece
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    output: Output | None

    def value(self, memory: DeviceSpace) -> NDArray[Any]:
        """A copy of what is there now."""
        nbytes = int(np.prod(self.shape)) * self.dtype.itemsize
        raw = memory.read(self.piece.address, nbytes)
        return raw.view(self.dtype).reshape(self.shape)


@dataclass
class Arguments:
    """Of one launch.

    Attributes:
        params: bytes.
        arrays: in order.
    """

    params: bytes = b""
    arrays: list[Placed] = field(default_factory=list)


def packed(
    kernel: str, params: Sequence[Variable], given: Sequence[Any], memory: DeviceSpace
) -> Arguments:
    """Bytes for a kernel's parameters.

    Args:
        kernel: its name, for errors.
        params: as it declares them.
        given: one for each.
        memory: where arrays are copied to.

    Raises:
        ArgumentError: another number of arguments, or one that does not fit.
    """
    if len(params) != len(given):
        raise ArgumentError(f"{kernel} takes {len(params)} arguments, {len(given)} were given.")
    found, out = Arguments(), bytearray()
    for i, (param, value) in enumerate(zip(params, given)):
        out += bytes(-len(out) % param.align)
        raw = _bytes_of(value, param, found, memory, f"argument {i} of {kernel}")
        if len(raw) != param.nbytes:
            raise ArgumentError(
                f"argument {i} of {kernel} takes {param.nbytes} bytes, {len(raw)} were given: "
                "an array is a pointer (8), a tuple a struct of arrays and NumPy numbers."
            )
        out += raw
    found.params = bytes(out)
    return found


def _bytes_of(
    value: Any, param: Variable, found: Arguments, memory: DeviceSpace, what: str
) -> bytes:
    if isinstance(value, (bytes, bytearray)):
        return bytes(value)
    if isinstance(value, (np.ndarray, Output)):
        return _pointer(value, found, memory)
    if isinstance(value, tuple):
        return _struct(value, found, memory, what)
    if isinstance(value, np.generic):
        return bytes(value.tobytes())
    if isinstance(value, (bool, int, float)):
        if param.kind == "b8" and param.nbytes > 1:
            raise ArgumentError(f"{what} is a struct of {param.nbytes} bytes, not {value!r}.")
        return _number(value, param, what)
    raise ArgumentError(f"{what} is a {type(value).__name__}: give an array, a number or a tuple.")


def _number(value: float, param: Variable, what: str) -> bytes:
    dtype = DTYPES[param.kind]
    if dtype.kind == "f":
        return bytes(dtype.type(value).tobytes())
    if isinstance(value, float):
        raise ArgumentError(f"{what} is a whole number of {param.nbytes} bytes, not {value!r}.")
    bits = 8 * param.nbytes
    if not -(1 << bits - 1) <= value < 1 << bits:
        raise ArgumentError(f"{what} has {bits} bits, and {value} does not fit.")
    return (int(value) & ((1 << bits) - 1)).to_bytes(param.nbytes, "little")


def _pointer(value: NDArray[Any] | Output, found: Arguments, memory: DeviceSpace) -> bytes:
    if isinstance(value, Output):
        shape = (value.shape,) if isinstance(value.shape, int) else tuple(value.shape)
        dtype, output = np.dtype(value.dtype), value
        piece = memory.allocate(int(np.prod(shape)) * dtype.itemsize, ALLOCATED)
    else:
        shape, dtype, output = value.shape, value.dtype, None
        piece = memory.allocate(value.nbytes, WRITTEN)
        memory.write(piece.address, np.ascontiguousarray(value))
    found.arrays.append(Placed(piece, shape, dtype, output))
    return np.uint64(piece.address).tobytes()


def _struct(value: tuple[Any, ...], found: Arguments, memory: DeviceSpace, what: str) -> bytes:
    """Members one behind the other, each aligned by its size, as C does."""
    out, widest = bytearray(), 1
    for member in value:
        if isinstance(member, (np.ndarray, Output)):
            raw = _pointer(member, found, memory)
        elif isinstance(member, np.generic):
            raw = member.tobytes()
        elif isinstance(member, (bytes, bytearray)):
            raw = bytes(member)
        else:
            raise ArgumentError(
                f"{what}: {member!r} in a struct has no size; write np.int32({member!r}), say."
            )
        align = 1 if isinstance(member, (bytes, bytearray)) else len(raw)
        widest = max(widest, align)
        out += bytes(-len(out) % align) + raw
    return bytes(out + bytes(-len(out) % widest))
