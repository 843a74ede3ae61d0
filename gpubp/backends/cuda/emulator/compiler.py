"""CUDA C++ to PTX, with the lines of the source in it; kept on disk as the drivers' code is."""

from __future__ import annotations

from collections.abc import Sequence

from gpubp.backends.cuda.drivers.bare_nvrtc import built, missing, version
from gpubp.backends.cuda.drivers.nvrtc import kept
from gpubp.errors import BackendError

OPTIONS = ("-std=c++17", "-default-device", "-lineinfo")


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
