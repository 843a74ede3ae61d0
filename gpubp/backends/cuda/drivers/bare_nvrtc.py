"""NVRTC through its own Python bindings alone: no driver, no GPU, and no library around it.

Comes in: a source and all options. Goes out: the code and what the compiler said. For the emulator,
for filling the kernel cache on a machine without a GPU, and for tests. NVRTC, its bindings and
CUDA's headers come from PyPI: `pip install "gpubp[emulator]"`.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib.util
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from gpubp.backends.cuda.drivers.nvrtc import OPTIONS, UnknownTargetError
from gpubp.errors import BackendError

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


class Built(NamedTuple):
    """What NVRTC made: machine code, or PTX where that was asked for; the PTX on the way; what it
    said.
    """

    code: bytes
    ptx: str
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
        ptx = _read(program, "PTX").rstrip(b"\0")
        real = any(o.startswith("--gpu-architecture=sm_") for o in options)
        return Built(_read(program, "CUBIN") if real else ptx, ptx.decode(), log)
    finally:
        nvrtc.nvrtcDestroyProgram(program)


def _read(program: Any, what: str) -> bytes:
    nvrtc = _bindings()
    (size,) = _checked(getattr(nvrtc, f"nvrtcGet{what}Size")(program))
    # Not `b" " * size`, which one sees in examples: what is written into one of a single byte (an
    # empty log) is written into Python's only b" ", and print separates by it from then on.
    text = bytearray(int(size))
    _checked(getattr(nvrtc, f"nvrtcGet{what}")(program, text))
    return bytes(text)


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


class BareNvrtc:
    """See `nvrtc.Compiler`."""

    pip = INSTALL

    def version(self) -> tuple[int, int]:
        if missing():
            raise BackendError(f"CUDA sources cannot be compiled: {missing()}")
        return version()

    def compile(self, source: str, target: str) -> bytes:
        if not knows(target):
            raise UnknownTargetError
        return built(source, (*OPTIONS, f"--gpu-architecture={target}")).code


@cache
def knows(target: str) -> bool:
    """This NVRTC compiles for "sm_90", or "compute_90"."""
    (known,) = _checked(_bindings().nvrtcGetSupportedArchs())
    return int(target.partition("_")[2].rstrip("af")) in {int(a) for a in known}
