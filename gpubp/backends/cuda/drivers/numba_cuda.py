"""Numba's arrays, and users' own kernels, over cuda.core's device: the driver of `numba_cuda`.

User arrays are Numba's, bound to the default stream: Numba knows no current one. Their interface
names it, so that other libraries order themselves after what was queued there.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from gpubp.backends.cuda.drivers import numba_arrays
from gpubp.backends.cuda.drivers.core_calls import called
from gpubp.backends.cuda.drivers.core_device import CoreDevice
from gpubp.backends.cuda.products import Work
from gpubp.core.interop import on_device


class NumbaCudaDriver(CoreDevice):
    """See `base.Driver`.

    Args:
        device: number of the GPU.

    Raises:
        BackendError: there is no such GPU, or a piece of software is missing.
    """

    def bind_kernel(
        self, kernel: Any, places: Sequence[numba_arrays.Place], numbers: Sequence[float]
    ) -> Work:
        """See `base.KernelDriver`."""
        with self._device:
            start = self._numba.bound(kernel, places, numbers, self._stream.handle)
        return self._device.around(start)

    def current_stream(self) -> int:
        return int(self._default.handle)

    def _named(self, stream: int) -> Any:
        return self._core.Stream.from_handle(stream)

    def wait_for(self, stream: int) -> None:
        with self._device:
            self._stream.own.wait(self._named(stream).record())

    def make_wait(self, stream: int) -> None:
        with self._device:
            self._named(stream).wait(self._stream.own.record())

    def empty(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Any:
        nbytes = math.prod(shape) * dtype.itemsize
        with self._room(nbytes):
            buffer = self._here.allocate(max(nbytes, 1), stream=self._default)
            place = (int(buffer.handle), tuple(shape), dtype)
            return self._numba.array(place, self.current_stream(), buffer)

    def to_user_array(self, value: Any) -> Any:
        if numba_arrays.is_array(value):
            return value
        if not on_device(value):
            return self._from_host(value)
        with self._device:
            found = getattr(value, "__cuda_array_interface__", None)
            if found is not None and (found.get("stream") or not hasattr(value, "__dlpack__")):
                if found.get("stream"):
                    self._default.wait(self._named(int(found["stream"])).record())
                return self._numba.shared(value)
            return self._from_dlpack(value)

    def _from_host(self, value: Any) -> Any:
        array = np.ascontiguousarray(value).reshape(np.shape(value))
        made = self.empty(array.shape, array.dtype)
        address = int(made.__cuda_array_interface__["data"][0])
        with self._device:  # from pageable memory: it has been read when this returns
            self._to_device(address, array, self.current_stream())
        return made

    def _from_dlpack(self, value: Any) -> Any:
        """Ordered on the default stream by its owner, whose later work names no stream."""
        view = self._utils.StridedMemoryView.from_dlpack(value, stream_ptr=self.current_stream())
        dtype = np.dtype(view.dtype)
        strides = None if view.strides is None else [n * dtype.itemsize for n in view.strides]
        place = (int(view.ptr), tuple(view.shape), dtype)
        return self._numba.array(place, None, view, strides)

    def borrowed(self, array: Any) -> bool:
        """Never: what does not name a stream is not known to be Numba's own either."""
        return False

    def device_of(self, address: int) -> int:
        what = self._cuda.CUpointer_attribute.CU_POINTER_ATTRIBUTE_DEVICE_ORDINAL
        with self._device:
            return int(called(self._cuda.cuPointerGetAttribute(what, address)))
