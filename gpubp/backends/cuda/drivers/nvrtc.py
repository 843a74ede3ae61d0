"""From CUDA source to machine code, by CuPy's binding of NVRTC; kept on disk.

Comes in: a source with its headers written out, and an architecture. Goes out: the code that a
module is loaded from. CuPy's own `RawModule` is not used to compile: it adds `-ftz=true`, which
takes small float32 numbers for 0, as neither the CPU backends nor the tests do.

Files are kept under a digest of all that the code depends on: source, options, architecture and
NVRTC's version; they are written under a temporary name and renamed.
"""

from __future__ import annotations

import contextlib
import hashlib
from typing import Any

from gpubp.backends.cuda.products import PIP
from gpubp.cache import cache_root, read_object, write_object
from gpubp.errors import BackendError

OPTIONS = ("-std=c++17", "-default-device")
_INVALID_OPTION = 5  # NVRTC_ERROR_INVALID_OPTION: it is older than the GPU
_OLDER = ("compute_90", "compute_80")  # whose PTX the driver translates for newer GPUs


def version(binding: Any) -> tuple[int, int]:
    """NVRTC's version.

    Args:
        binding: `cupy.cuda.nvrtc`.

    Raises:
        BackendError: NVRTC is not there; says how to install it.
    """
    try:
        major, minor = binding.getVersion()
    except Exception as err:  # CuPy's loader raises errors of several kinds
        raise BackendError(f"CuPy does not find NVRTC: {PIP}. It said: {err}") from err
    return int(major), int(minor)


def compiled(binding: Any, source: str, architecture: str) -> bytes:
    """The code of a source: from the disk, or compiled.

    Args:
        binding: `cupy.cuda.nvrtc`.
        source: includes nothing.
        architecture: such as "sm_90".

    Raises:
        BackendError: the compiler's messages; or there is no NVRTC.
    """
    parts = (source, *OPTIONS, architecture, str(version(binding)))
    name = hashlib.sha256("\0".join(parts).encode()).hexdigest()
    folder = cache_root() / "cuda"
    code = read_object(folder, name)
    if code is None:
        code = _compile(binding, source, architecture)
        with contextlib.suppress(OSError):  # where nothing can be kept it works all the same
            write_object(folder, name, code)
    return code


def _compile(binding: Any, source: str, architecture: str) -> bytes:
    for target in (architecture, *_OLDER):
        program = binding.createProgram(source, "gpubp.cu", (), ())
        try:
            binding.compileProgram(program, (*OPTIONS, f"-arch={target}"))
            read = binding.getCUBIN if target == architecture else binding.getPTX
            code = read(program)
            return code if isinstance(code, bytes) else str(code).encode()
        except binding.NVRTCError as err:
            if getattr(err, "status", None) != _INVALID_OPTION:
                log = binding.getProgramLog(program)
                raise BackendError(f"a CUDA kernel did not compile: {err}\n{log}") from err
        finally:
            binding.destroyProgram(program)
    major, minor = version(binding)
    raise BackendError(f"NVRTC {major}.{minor} does not know {architecture}: {PIP}.")
