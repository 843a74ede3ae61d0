"""Arrays that are on a GPU already, as programs read and write them.

Comes in: an object with `__cuda_array_interface__` (numba.readthedocs.io, "CUDA Array Interface",
version 3). Goes out: its place, shape and dtype. Nothing is copied, and nothing is looked at: such
data are not checked for NaN, and labels out of range are found when the kernel meets them.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from gpubp.core import DTYPES
from gpubp.core.strided import c_strides
from gpubp.errors import DataError, DTypeError


@dataclass(frozen=True)
class DeviceArray:
    """A C-contiguous array in device memory.

    Attributes:
        address: of its first element.
        shape, dtype: as NumPy's.
        stream: the stream on which its owner works; None if that is not known.
        owner: keeps the memory alive.
    """

    address: int
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    stream: int | None
    owner: Any

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __len__(self) -> int:
        return self.shape[0]

    def rows(self, start: int, stop: int) -> DeviceArray:
        """A part along the first axis, in the same memory."""
        width = math.prod(self.shape[1:]) * self.dtype.itemsize
        return replace(
            self, address=self.address + start * width, shape=(stop - start, *self.shape[1:])
        )

    def as_shape(self, shape: tuple[int, ...]) -> DeviceArray:
        """The same elements under another shape."""
        return replace(self, shape=shape)


def as_device_array(value: Any, name: str, floating: np.dtype[Any] | None = None) -> DeviceArray:
    """The place of an array in device memory.

    Args:
        value: with the CUDA array interface.
        name: for errors.
        floating: what float arrays must be.

    Raises:
        DTypeError: a dtype that would have to be converted.
        DataError: its elements do not lie back to back.
    """
    found = value.__cuda_array_interface__
    dtype, shape = np.dtype(found["typestr"]), tuple(found["shape"])
    wanted = floating if dtype.kind == "f" and floating is not None else dtype
    if dtype not in DTYPES or dtype != wanted:
        expected = wanted if dtype in DTYPES else ", ".join(map(str, DTYPES))
        raise DTypeError(
            f"{name} is on the GPU with dtype {dtype}, expected {expected}. Convert it there with "
            ".astype()."
        )
    strides = found.get("strides")
    wide = tuple(s * dtype.itemsize for s in c_strides(shape))
    sizes = [(s, w) for n, s, w in zip(shape, strides or wide, wide) if n > 1]
    if math.prod(shape) > 0 and any(s != w for s, w in sizes):
        raise DataError(
            f"{name} is on the GPU and not C-contiguous: pass cupy.ascontiguousarray(array)."
        )
    return DeviceArray(int(found["data"][0]), shape, dtype, found.get("stream"), value)
