"""`numba.cuda` of numba-cuda as far as `gpubp.backends.cuda.drivers.numba_arrays` uses it, over the
tests' device.

Kernels are Python functions here, called once with NumPy's views of the device's memory in the
place of `DeviceNDArray`s: their threads are theirs to make up.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from shim_array import ShimArray
from shim_driver import ShimDriver

from gpubp.core.strided import c_strides


def _is_not_numbas(self: Any) -> Any:
    raise AttributeError("Numba's arrays have none")


class DeviceNDArray(ShimArray):
    """What Numba's has of the methods that gpubp and the tests may call."""

    __cuda_ndarray__ = True
    __dlpack__: Any = property(_is_not_numbas)
    __dlpack_device__: Any = property(_is_not_numbas)

    def __init__(
        self,
        driver: ShimDriver,
        place: tuple[int, tuple[int, ...], Any],
        strides: Sequence[int] | None,
        stream: int,
        owner: Any,
    ) -> None:
        super().__init__(driver, *place, owner)
        self.strides, self.stream = strides, stream

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "strides": self.strides,
            "data": (self.address, False),
            "typestr": self.dtype.str,
            "stream": self.stream or None,
            "version": 3,
        }

    def __getitem__(self, key: Any) -> Any:
        if not isinstance(key, slice) or self.ndim == 0:
            return super().__getitem__(key)  # gpubp's own op, as of the tests' arrays
        start, stop, step = key.indices(self.shape[0])
        assert step == 1
        width = self.nbytes // max(self.shape[0], 1)
        place = (self.address + start * width, (stop - start, *self.shape[1:]), self.dtype)
        return DeviceNDArray(self.driver, place, None, self.stream, self)

    def copy_to_host(self) -> NDArray[Any]:
        return ShimArray.get(self)


class Strict(DeviceNDArray):
    """Without what the tests' own arrays have besides."""

    get: Any = property(_is_not_numbas)

    def __getitem__(self, key: slice) -> Any:
        assert isinstance(key, slice)
        return super().__getitem__(key)


class Kernel:
    """What `numba.cuda.jit` makes of a function.

    Attributes:
        launches: (blocks, threads, stream) of each.
    """

    def __init__(self, function: Callable[..., None]) -> None:
        self.py_func = function
        self.launches: list[tuple[int, int, int]] = []

    def __call__(self, *_: Any) -> None:
        raise ValueError("a kernel is launched with kernel[blocks, threads](...)")

    def configure(self, griddim: int, blockdim: int, stream: Any = 0, sharedmem: int = 0) -> Any:
        def launch(*args: Any) -> None:
            views = [a._view() if isinstance(a, ShimArray) else a for a in args]
            self.launches.append((griddim, blockdim, int(stream.handle)))
            stream.do(lambda: self.py_func(*views))

        return launch

    def __getitem__(self, given: tuple[Any, ...]) -> Any:
        return self.configure(*given)


def fake_numba(
    device: ShimDriver, count: int, strict: bool, stream_of: Callable[[int], Any]
) -> dict[str, ModuleType]:
    """For `sys.modules`.

    Args:
        device: does the work.
        count: of GPUs.
        strict: arrays have nothing that Numba's have not.
        stream_of: the stream of a handle, with `do`.
    """
    cls = Strict if strict else DeviceNDArray

    def from_interface(desc: dict[str, Any], owner: Any = None, sync: bool = True) -> Any:
        assert not sync, "the host would wait"
        shape, dtype = tuple(desc["shape"]), np.dtype(desc["typestr"])
        strides = desc.get("strides")
        packed = tuple(s * dtype.itemsize for s in c_strides(shape))
        kept = None if strides is None or tuple(strides) == packed else tuple(strides)
        place = (desc["data"][0] if 0 not in shape else 0, shape, dtype)
        return cls(device, place, kept, desc.get("stream") or 0, owner)

    def pinned_array(shape: int, dtype: Any) -> NDArray[Any]:
        return device.pinned(shape).view(dtype)

    cuda = ModuleType("numba.cuda")
    cuda.__dict__.update(
        cuda_error=lambda: None,
        is_available=lambda: count > 0,
        gpus=range(count),
        from_cuda_array_interface=from_interface,
        as_cuda_array=lambda obj, sync=True: from_interface(
            obj.__cuda_array_interface__, owner=obj, sync=sync
        ),
        pinned_array=pinned_array,
        external_stream=stream_of,
        jit=Kernel,
    )
    package = ModuleType("numba_cuda")
    package.__spec__ = ModuleSpec("numba_cuda", None)
    package.__dict__["__version__"] = "0 (fake)"
    return {"numba.cuda": cuda, "numba_cuda": package}
