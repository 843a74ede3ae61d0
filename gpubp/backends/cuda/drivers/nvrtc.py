"""From CUDA source to machine code; kept on disk.

Comes in: a source with its headers written out, and an architecture. Goes out: the code that a
module is loaded from. NVRTC is called by what a driver's library binds it with (`Compiler`).

Files are kept under a digest of all that the code depends on: source, options, architecture and
NVRTC's version; they are written under a temporary name and renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Callable, Sequence
from typing import Any, Protocol

from gpubp.backends.cuda.products import PIP
from gpubp.cache import cache_root, read_object, write_object
from gpubp.errors import BackendError

OPTIONS = ("-std=c++17", "-default-device")
_INVALID_OPTION = 5  # NVRTC_ERROR_INVALID_OPTION: it is older than the GPU
_OLDER = ("compute_90", "compute_80")  # whose PTX the driver translates for newer GPUs


class UnknownTargetError(Exception):
    """NVRTC does not know an architecture."""


class Compiler(Protocol):
    """NVRTC, as a library binds it.

    Attributes:
        pip: the line that installs it.
    """

    pip: str

    def version(self) -> tuple[int, int]:
        """Of NVRTC.

        Raises:
            BackendError: NVRTC is not there; says how to install it.
        """
        ...

    def compile(self, source: str, target: str) -> bytes:
        """Machine code for an architecture such as "sm_90", PTX for one such as "compute_90".
        With `OPTIONS`.

        Raises:
            UnknownTargetError: NVRTC does not know the architecture.
            BackendError: the source does not compile; with the compiler's messages.
        """
        ...


class CupyNvrtc:
    """See `Compiler`. CuPy's own `RawModule` is not used: it adds `-ftz=true`, which takes small
    float32 numbers for 0, as neither the CPU backends nor the tests do.

    Args:
        binding: `cupy.cuda.nvrtc`.
    """

    pip = PIP

    def __init__(self, binding: Any) -> None:
        self._binding = binding

    def version(self) -> tuple[int, int]:
        try:
            major, minor = self._binding.getVersion()
        except Exception as err:  # CuPy's loader raises errors of several kinds
            raise BackendError(f"CuPy does not find NVRTC: {PIP}. It said: {err}") from err
        return int(major), int(minor)

    def compile(self, source: str, target: str) -> bytes:
        binding = self._binding
        program = binding.createProgram(source, "gpubp.cu", (), ())
        try:
            binding.compileProgram(program, (*OPTIONS, f"-arch={target}"))
            read = binding.getCUBIN if target.startswith("sm_") else binding.getPTX
            code = read(program)
            return code if isinstance(code, bytes) else str(code).encode()
        except binding.NVRTCError as err:
            if getattr(err, "status", None) == _INVALID_OPTION:
                raise UnknownTargetError from err
            raise not_compiled(f"{err}\n{binding.getProgramLog(program)}") from err
        finally:
            binding.destroyProgram(program)


def not_compiled(message: str) -> BackendError:
    """The error for a source that does not compile."""
    return BackendError(f"a CUDA kernel did not compile: {message}")


def compiled(compiler: Compiler, source: str, architecture: str) -> bytes:
    """The code of a source: from the disk, or compiled.

    Args:
        compiler: NVRTC.
        source: includes nothing.
        architecture: such as "sm_90".

    Raises:
        BackendError: the compiler's messages; or there is no NVRTC.
    """
    parts = (source, *OPTIONS, architecture, str(compiler.version()))
    return kept(parts, lambda: _compile(compiler, source, architecture))


def kept(parts: Sequence[str], make: Callable[[], bytes]) -> bytes:
    """Code from the disk, or made and put there.

    Args:
        parts: all that the code depends on.
        make: the compiler's work.
    """
    name = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    folder = cache_root() / "cuda"
    code = read_object(folder, name)
    if code is None:
        code = make()
        with contextlib.suppress(OSError):  # where nothing can be kept it works all the same
            write_object(folder, name, code)
    return code


def _compile(compiler: Compiler, source: str, architecture: str) -> bytes:
    for target in (architecture, *_OLDER):
        try:
            return compiler.compile(source, target)
        except UnknownTargetError:
            continue
    major, minor = compiler.version()
    raise BackendError(f"NVRTC {major}.{minor} does not know {architecture}: {compiler.pip}.")
