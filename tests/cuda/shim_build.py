"""Builds CUDA sources for the CPU with g++ and keeps what it built.

Comes in: a source. Goes out: a library with its kernels, or the shim's runtime. Everything lies in
a cache folder named by a digest of the shim, the compiler and its flags; libraries in it are named
by a digest of their source and of the headers in `kernels/`. Files are written under a temporary
name and renamed.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import sys
import tempfile
from functools import cache
from pathlib import Path
from typing import Any

from gpubp.cache import cache_root
from gpubp.errors import BackendError

HERE = Path(__file__).resolve().parent
SHIM = HERE / "shim"
KERNELS = HERE.parents[1] / "kernels"
MISSING = (
    "the CUDA shim runs on Linux only"
    if sys.platform != "linux"
    else None
    if shutil.which("g++")
    else "needs g++, to build CUDA sources for the CPU"
)

# -O1: the sum of building and running is least. Nothing is contracted to a fused multiply-add
# that the source does not ask for; variables that are not set hold a pattern; an index outside an
# array, a misaligned access and a division by zero stop the kernel.
FLAGS = (
    *("-std=c++17", "-fPIC", "-O1", "-ffp-contract=off", "-fno-exceptions", "-fno-strict-aliasing"),
    *("-ftrivial-auto-var-init=pattern", "-U_FORTIFY_SOURCE", "-Wno-unknown-pragmas"),
    "-fsanitize=bounds-strict,alignment,integer-divide-by-zero",
)


@cache
def _compiler() -> str:
    """What decides the machine code beside the sources: the compiler and the processor."""
    if MISSING:
        raise BackendError(MISSING)
    run = subprocess.run(["g++", "-v"], capture_output=True, text=True, check=True)
    return run.stderr + " ".join(_flags())


@cache
def _flags() -> tuple[str, ...]:
    """With fused multiply-add in hardware where there is one: through the C library it is slow."""
    try:
        features = Path("/proc/cpuinfo").read_text().split()
    except OSError:
        features = []
    extra = os.environ.get("GPUBP_SHIM_FLAGS", "").split()
    return (*FLAGS, *(["-mfma"] if "fma" in features else []), *extra)


@cache
def _folder() -> Path:
    """For everything that is built from this very shim, with a precompiled header of it."""
    digest = hashlib.sha256(_compiler().encode())
    for header in sorted(SHIM.iterdir()):
        digest.update(header.name.encode() + header.read_bytes())
    folder = cache_root() / f"shim-{digest.hexdigest()[:20]}"
    folder.mkdir(parents=True, exist_ok=True)
    prefix = folder / "prefix.h"
    if not (folder / "prefix.h.gch").exists():
        _write(prefix, f'#include "{SHIM / "gp_shim.h"}"\n')
        _gcc(folder / "prefix.h.gch", *_flags(), "-x", "c++-header", str(prefix))
    return folder


@cache
def runtime() -> Any:
    """The library that runs grids; see `shim/runtime.cpp` and `shim/gp_memory.h`."""
    path = _folder() / "runtime.so"
    if not path.exists():
        flags = [flag for flag in _flags() if not flag.startswith("-fsanitize")]
        _gcc(path, *flags, "-O2", "-shared", f"-I{SHIM}", str(SHIM / "runtime.cpp"))
    # Global: the kernels' libraries find the functions of the shim, and the C library's, in it.
    library = ctypes.CDLL(str(path), mode=ctypes.RTLD_GLOBAL)
    size, pointer, text = ctypes.c_size_t, ctypes.c_void_p, ctypes.c_char_p
    number = [ctypes.c_int]
    for name, result, arguments in (
        ("gp_allocate", pointer, [size, size]),
        ("gp_free", text, [pointer]),
        ("gp_holds", ctypes.c_int, [pointer, size]),
        ("gp_check", text, [size, pointer]),
        (
            "gp_run",
            ctypes.c_int,
            [*[pointer] * 3, size, text, *number * 2, ctypes.c_uint64, ctypes.c_double, pointer],
        ),
    ):
        function = getattr(library, name)
        function.restype, function.argtypes = result, arguments
    return library


def built(source: str) -> Path:
    """The library of a source: from the cache if source, shim, and kernel headers are the same."""
    folder = _folder()
    digest = hashlib.sha256(source.encode())
    if '#include "' in source:
        for header in sorted(KERNELS.glob("*.cuh")):
            digest.update(header.name.encode() + header.read_bytes())
    path = folder / f"{digest.hexdigest()[:20]}.so"
    if not path.exists():
        text = path.with_suffix(".cu")
        _write(text, source)
        include = ["-include", str(folder / "prefix.h"), f"-I{KERNELS}", f"-I{SHIM}"]
        _gcc(path, *_flags(), "-shared", "-nostdlib", *include, "-x", "c++", str(text))
    return path


def _write(path: Path, text: str) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    with os.fdopen(handle, "w") as file:
        file.write(text)
    os.replace(temporary, path)


def _gcc(result: Path, *arguments: str) -> None:
    """Build a file: all of it or nothing."""
    handle, temporary = tempfile.mkstemp(dir=result.parent, suffix=".tmp")
    os.close(handle)
    try:
        command = ["g++", "-o", temporary, *arguments]
        run = subprocess.run(command, capture_output=True, text=True)
        if run.returncode:
            raise BackendError(f"g++ refuses the source:\n{run.stderr}")
        os.replace(temporary, result)
    except BaseException:
        Path(temporary).unlink(missing_ok=True)  # g++ removes it when it fails
        raise
