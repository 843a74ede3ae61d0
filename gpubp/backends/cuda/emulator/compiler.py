"""NVRTC: CUDA C++ to PTX, on a machine with or without a GPU.

Comes in: a source. Goes out: PTX with the lines of the source in it, kept on disk as the drivers'
code is (`drivers/nvrtc.py`); or machine code with what ptxas says of it, for tests. NVRTC, its
Python bindings and CUDA's headers come from PyPI: `pip install "gpubp[emulator]"`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from gpubp.backends.cuda.drivers.nvrtc import kept
from gpubp.errors import BackendError

OPTIONS = ("-std=c++17", "-default-device", "-lineinfo")
INSTALL = 'pip install "gpubp[emulator]"'


@cache
def missing() -> str:
    """Why NVRTC cannot be used; empty if it can."""
    try:
        found = importlib.util.find_spec("cuda.bindings.nvrtc") is not None
    except ModuleNotFoundError:
        found = False
    if not found:
        return f"needs NVRTC and its Python bindings: {INSTALL}"
    try:
        version()
    except (ImportError, RuntimeError, OSError, BackendError) as error:
        return f"NVRTC cannot be loaded ({error}): {INSTALL}"
    return ""


@cache
def version() -> tuple[int, int]:
    """NVRTC's."""
    major, minor = _checked(_bindings().nvrtcVersion())
    return int(major), int(minor)


@cache
def include_folders() -> tuple[str, ...]:
    """Where pip put CUDA's headers: none, if they are not installed."""
    spec = importlib.util.find_spec("nvidia")
    for place in (spec and spec.submodule_search_locations) or ():
        for header in sorted(Path(place).glob("cu*/include/cuda_runtime.h"), reverse=True):
            return str(header.parent), str(header.parent / "cccl")
        single = Path(place) / "cuda_runtime" / "include"
        if (single / "cuda_runtime.h").exists():
            cccl = Path(place) / "cuda_cccl" / "include"
            return str(single), str(cccl)
    return ()


def compiled(source: str, architecture: str, options: Sequence[str] = ()) -> str:
    """PTX of a source: from the disk, or compiled.

    Args:
        source: CUDA C++.
        architecture: such as "sm_90".
        options: NVRTC's, beside OPTIONS; such as "-DN=4" or "--include-path=kernels".

    Raises:
        BackendError: the compiler's messages; or NVRTC is missing.
    """
    if missing():
        raise BackendError(f"CUDA sources cannot be compiled: {missing()}")
    target = architecture.replace("sm_", "compute_")
    given = (*OPTIONS, *options, f"--gpu-architecture={target}")
    if not _by_itself(source, options):
        return built(source, given).code.decode()
    parts = ("ptx", source, *given, str(version()))
    return kept(parts, lambda: built(source, given).code).decode()


def _by_itself(source: str, options: Sequence[str]) -> bool:
    """It includes no file that may change: only then what is kept can be used again."""
    return '#include "' not in source and not any(
        "include" in o or o.startswith("-I") for o in options
    )


class Built(NamedTuple):
    """What NVRTC made: the code, and what it said."""

    code: bytes
    log: str


def built(source: str, options: Sequence[str]) -> Built:
    """One run of NVRTC, with CUDA's headers.

    Args:
        source: CUDA C++.
        options: all of them; with `--gpu-architecture=sm_...` the code is machine code, with
            `compute_...` it is PTX.

    Raises:
        BackendError: the compiler's messages.
    """
    nvrtc = _bindings()
    paths = [f"--include-path={folder}" for folder in include_folders()]
    given = [option.encode() for option in (*options, *paths)]
    (program,) = _checked(nvrtc.nvrtcCreateProgram(source.encode(), b"source.cu", 0, [], []))
    try:
        result = nvrtc.nvrtcCompileProgram(program, len(given), given)
        log = _read(program, "ProgramLog").rstrip(b"\0").decode()
        if int(result[0]) != 0:
            raise BackendError(f"a CUDA source does not compile:\n{log}")
        if any(o.startswith("--gpu-architecture=sm_") for o in options):
            return Built(_read(program, "CUBIN"), log)
        return Built(_read(program, "PTX").rstrip(b"\0"), log)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _read(program: Any, what: str) -> bytes:
    nvrtc = _bindings()
    (size,) = _checked(getattr(nvrtc, f"nvrtcGet{what}Size")(program))
    text = b" " * int(size)  # the bindings write into it
    _checked(getattr(nvrtc, f"nvrtcGet{what}")(program, text))
    return text


@cache
def _bindings() -> Any:
    """The bindings look for the library beside the interpreter alone: where pip put it elsewhere
    (another folder of `sys.path`), it is loaded first, and they take what is loaded.
    """
    for name in ("nvrtc-builtins", "nvrtc"):
        for library in _libraries(name):
            with contextlib.suppress(OSError):
                ctypes.CDLL(str(library))
                break
    from cuda.bindings import nvrtc

    return nvrtc


def _libraries(name: str) -> list[Path]:
    spec = importlib.util.find_spec("nvidia")
    found: list[Path] = []
    for place in (spec and spec.submodule_search_locations) or ():
        windows = {"nvrtc": "nvrtc64_[0-9]*_0.dll"}.get(name, f"{name}64_*.dll")
        for pattern in (f"*/lib/lib{name}.so.[0-9]*", f"*/bin/**/{windows}"):
            found += sorted(Path(place).glob(pattern), reverse=True)
    return [p for p in found if ".alt." not in p.name]


def _checked(result: tuple[Any, ...]) -> tuple[Any, ...]:
    error, *values = result
    if int(error) != 0:
        raise BackendError(f"NVRTC: {error}")
    return tuple(values)
