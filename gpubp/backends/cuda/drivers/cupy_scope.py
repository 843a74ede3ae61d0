"""One GPU's context, as the place in which a thread calls CuPy; the one place that translates
CuPy's errors.
"""

from __future__ import annotations

import threading
from types import TracebackType
from typing import Any

from gpubp.backends.cuda.drivers.base import DeviceMemoryError
from gpubp.errors import BackendError


class _Thread(threading.local):
    """How deep a thread is inside, and the context that it came with."""

    depth, before = 0, 0


class Scope:
    """While it is entered, the calling thread works on this GPU; it may be entered again inside.

    A thread that works there anyway costs one question. On leaving, the thread has the context that
    it came with, also if that was none: CuPy's own `with Device(1)` ends with `setDevice(0)`, which
    from CUDA 12 on makes a context on GPU 0.

    Args:
        cupy: the module.
        device: number of the GPU.
        name: of the GPU, for errors.

    Raises, on leaving:
        DeviceMemoryError: where CuPy found no memory.
        BackendError: where CUDA returned an error, perhaps of a kernel that was launched before.
    """

    def __init__(self, cupy: Any, device: int, name: str) -> None:
        self._cuda, self._name = cupy.cuda, name
        self._context = _context_of(cupy.cuda, device)
        self._thread = _Thread()

    def __enter__(self) -> Scope:
        mine = self._thread
        if mine.depth == 0:
            mine.before = self._cuda.driver.ctxGetCurrent()
            if mine.before != self._context:
                self._cuda.driver.ctxSetCurrent(self._context)
        mine.depth += 1
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        mine, cuda = self._thread, self._cuda
        mine.depth -= 1
        if mine.depth == 0 and mine.before != self._context:
            cuda.driver.ctxSetCurrent(mine.before)
        if isinstance(error, cuda.memory.OutOfMemoryError):
            raise DeviceMemoryError(f"{self._name} has not enough memory: {error}.") from error
        if isinstance(error, (cuda.runtime.CUDARuntimeError, cuda.driver.CUDADriverError)):
            raise BackendError(
                f"CUDA failed on {self._name}, in this call or in a kernel before it: {error}."
            ) from error


def _context_of(cuda: Any, device: int) -> int:
    """The context that CUDA's runtime has for a GPU; found in a thread of its own, so that the
    caller's stays on the GPU that it is on.
    """
    found: list[int] = []
    failed: list[Exception] = []

    def find() -> None:
        try:
            cuda.runtime.setDevice(device)
            cuda.runtime.memGetInfo()  # makes the context where there is none yet
            found.append(int(cuda.driver.ctxGetCurrent()))
        except Exception as err:
            failed.append(err)

    thread = threading.Thread(target=find, name="gpubp-context")
    thread.start()
    thread.join()
    if failed:
        raise BackendError(f"cuda:{device} cannot be used: {failed[0]}.") from failed[0]
    return found[0]
