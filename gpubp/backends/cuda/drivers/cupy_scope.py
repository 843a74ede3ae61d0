"""CuPy's contexts and errors, for `scope.Scope`.

CuPy's own `with Device(1)` ends with `setDevice(0)`, which from CUDA 12 on makes a context on
GPU 0: so the context is set, not the device.
"""

from __future__ import annotations

from typing import Any

from gpubp.backends.cuda.drivers.base import DeviceMemoryError
from gpubp.backends.cuda.drivers.scope import failed
from gpubp.errors import BackendError


class CupyContexts:
    """See `scope.Contexts`.

    Args:
        cupy: the module.
    """

    def __init__(self, cupy: Any) -> None:
        self._cuda = cupy.cuda

    def current(self) -> int:
        return int(self._cuda.driver.ctxGetCurrent())

    def make_current(self, context: int) -> None:
        self._cuda.driver.ctxSetCurrent(context)

    def of(self, device: int) -> int:
        self._cuda.runtime.setDevice(device)
        self._cuda.runtime.memGetInfo()  # makes the context where there is none yet
        return self.current()

    def translated(self, error: BaseException, name: str) -> BackendError | None:
        cuda = self._cuda
        if isinstance(error, cuda.memory.OutOfMemoryError):
            return DeviceMemoryError(f"{name} has not enough memory: {error}.")
        if isinstance(error, (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError)):
            return failed(name, error)
        return None
