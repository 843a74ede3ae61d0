"""Arrays of the tests' device, as users see them: what CuPy's are on a GPU."""

from __future__ import annotations

import ctypes
import math
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpubp.core.interop import on_device
from gpubp.core.operators import Operators

if TYPE_CHECKING:
    from shim_driver import ShimDriver


class ShimArray(Operators):
    """An array in the device's memory, with both protocols.

    Args:
        driver: of the device.
        address: of the first element.
        shape, dtype: as NumPy's.
        owner: keeps the memory alive.
        borrowed: the memory is another library's.
    """

    def __init__(
        self,
        driver: ShimDriver,
        address: int,
        shape: tuple[int, ...],
        dtype: Any,
        owner: Any,
        borrowed: bool = False,
    ) -> None:
        self.driver, self.address, self.owner = driver, address, owner
        self.borrowed = borrowed
        self.shape, self.dtype = tuple(shape), np.dtype(dtype)

    @property
    def data(self) -> Any:
        """As CuPy's: the class of its memory says whose it is."""
        kind = "UnownedMemory" if self.borrowed else "PooledMemory"
        return SimpleNamespace(mem=type(kind, (), {})())

    @property
    def ndim(self) -> int:
        return len(self.shape)

    @property
    def size(self) -> int:
        return math.prod(self.shape)

    @property
    def nbytes(self) -> int:
        return self.size * self.dtype.itemsize

    def __bool__(self) -> bool:
        return bool(self.get())

    def __len__(self) -> int:
        return self.shape[0]

    def __array__(self, *_: Any, **__: Any) -> Any:
        raise TypeError("an array on the device is not converted by itself: use .get()")

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.address, False),
            "stream": self.driver.stream,
            "version": 3,
        }

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.driver.number

    def __dlpack__(self, *, stream: int | None = None, **_: Any) -> Any:
        self.driver.log.append(("dlpack", stream))
        return self._view().__dlpack__()

    def _view(self) -> NDArray[Any]:
        """The device's memory is the host's here."""
        raw = (ctypes.c_char * max(self.nbytes, 1)).from_address(self.address)
        flat = np.frombuffer(raw, np.uint8, self.nbytes).view(self.dtype)
        return flat.reshape(self.shape)

    def get(self) -> NDArray[Any]:
        """A copy on the host."""
        self.driver.synchronize()
        return self._view().copy()


class Capsule:
    """Another library's array, told to NumPy as one in the host's memory."""

    def __init__(self, capsule: Any) -> None:
        self._capsule = capsule

    def __dlpack__(self, **_: Any) -> Any:
        return self._capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0


def to_user_array(driver: ShimDriver, value: Any) -> ShimArray:
    """See `Driver.to_user_array`."""
    if isinstance(value, ShimArray):
        return value
    if not on_device(value):
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        found = driver.empty(array.shape, array.dtype)
        driver.upload(found.address, array)
        return found
    if hasattr(value, "__dlpack__"):
        view = np.from_dlpack(Capsule(value.__dlpack__(stream=driver.stream)))
        if not view.flags.c_contiguous:
            raise BufferError("not contiguous")
        return ShimArray(driver, view.ctypes.data, view.shape, view.dtype, (view, value), True)
    found = value.__cuda_array_interface__
    return ShimArray(driver, found["data"][0], found["shape"], found["typestr"], value, True)
