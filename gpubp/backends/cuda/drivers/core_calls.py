"""cuda.core and the bindings below it: imported, called, and their errors told.

cuda.core is asked where it can do a thing. Through the bindings go what it cannot do (a kernel's
struct by value, which `cuda.core.launch` refuses as of 1.2; whichever context a thread had) and
what would cost an object a call (copies).
"""

from __future__ import annotations

import importlib
from typing import Any, NamedTuple

from gpubp.backends.cuda.drivers.base import DeviceMemoryError
from gpubp.backends.cuda.drivers.nvrtc import UnknownTargetError, not_compiled
from gpubp.backends.cuda.drivers.scope import failed
from gpubp.errors import BackendError

PIP = "pip install 'gpubp[numba-cuda13]' (or 'gpubp[numba-cuda12]' where the driver is older)"
_INVALID_OPTION = "NVRTC_ERROR_INVALID_OPTION"  # it is older than the GPU
# Of cuda.core, and of numba-cuda, by name: neither exports them where they will stay.
_ERRORS = frozenset({"CUDAError", "CudaAPIError", "CallError"})


class CallError(Exception):
    """A function of CUDA's driver returned an error."""


class Modules(NamedTuple):
    """`cuda.core`, `cuda.core.utils`, and the bindings of the driver and of NVRTC."""

    core: Any
    utils: Any
    driver: Any
    nvrtc: Any


def modules() -> Modules:
    """The modules, imported.

    Raises:
        BackendError: one is missing; says which, and the pip line.
    """
    names = ("cuda.core", "cuda.core.utils", "cuda.bindings.driver", "cuda.bindings.nvrtc")
    try:
        return Modules(*map(importlib.import_module, names))
    except ImportError as err:
        raise BackendError(f"cuda.core is not installed ({err}): {PIP}") from err


def called(result: tuple[Any, ...]) -> Any:
    """What a function of the bindings returned, behind its status: nothing, a value, or several.

    Raises:
        CallError: the status is an error.
    """
    status, *values = result
    if int(status):
        raise CallError(status.name)
    return values[0] if len(values) == 1 else tuple(values) or None


class CoreContexts:
    """See `scope.Contexts`.

    Args:
        found: the modules.
    """

    def __init__(self, found: Modules) -> None:
        self._core, self._cuda = found.core, found.driver

    def current(self) -> int:
        return int(called(self._cuda.cuCtxGetCurrent()))

    def make_current(self, context: int) -> None:
        called(self._cuda.cuCtxSetCurrent(context))

    def of(self, device: int) -> int:
        """The primary one, which Numba, CUDA's runtime and most libraries share."""
        self._core.Device(device).set_current()
        return self.current()

    def translated(self, error: BaseException, name: str) -> BackendError | None:
        if _ERRORS.isdisjoint(cls.__name__ for cls in type(error).__mro__):
            return None
        if "OUT_OF_MEMORY" in str(error):
            return DeviceMemoryError(f"{name} has not enough memory: {error}.")
        return failed(name, error)


class CoreNvrtc:
    """See `nvrtc.Compiler`: through `cuda.core.Program`, from a source to a cubin at once; through
    LTO-IR the flags of floating-point arithmetic would get lost.

    Args:
        found: the modules.
    """

    pip = PIP

    def __init__(self, found: Modules) -> None:
        self._core, self._nvrtc = found.core, found.nvrtc

    def version(self) -> tuple[int, int]:
        try:
            major, minor = called(self._nvrtc.nvrtcVersion())
        except Exception as err:  # the bindings' loader raises errors of several kinds
            raise BackendError(f"cuda.bindings does not find NVRTC: {PIP}. It said: {err}") from err
        return int(major), int(minor)

    def compile(self, source: str, target: str) -> bytes:
        options = self._core.ProgramOptions(
            name="gpubp.cu",
            arch=target,
            std="c++17",
            device_as_default_execution_space=True,
        )
        form = "cubin" if target.startswith("sm_") else "ptx"
        try:
            code = self._core.Program(source, "c++", options).compile(form).code
        except Exception as err:
            if _INVALID_OPTION in str(err):
                raise UnknownTargetError from err
            if _ERRORS.isdisjoint(cls.__name__ for cls in type(err).__mro__):
                raise
            raise not_compiled(str(err).rstrip("\0\n")) from err
        return code if isinstance(code, bytes) else str(code).encode()
