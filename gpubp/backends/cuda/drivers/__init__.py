"""What a CUDA backend asks of the library that talks to the device; and which libraries there are.

The backend of each is named in `gpubp/backends/__init__.py`.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from gpubp.backends.cuda.drivers.base import Driver


class _Kind(NamedTuple):
    """A driver's file and class here, and the file whose `probe` says whether it can be used."""

    file: str
    cls: str
    probe: str


# By the name of its backend.
DRIVERS = {
    "cupy": _Kind("cupy", "CupyDriver", "cupy_probe"),
    "numba_cuda": _Kind("numba_cuda", "NumbaCudaDriver", "numba_cuda_probe"),
}


def opened(name: str, device: int) -> Driver:
    """The driver of a backend on a device.

    Raises:
        BackendError: it cannot be used; says why, and what to install.
    """
    kind = DRIVERS[name]
    found: Driver = getattr(importlib.import_module(f"{__name__}.{kind.file}"), kind.cls)(device)
    return found


def probed(name: str) -> tuple[bool, str, dict[str, str]]:
    """(usable, why or why not, details) of the first device; never raises."""
    file = importlib.import_module(f"{__name__}.{DRIVERS[name].probe}")
    found: tuple[bool, str, dict[str, str]] = file.probe()
    return found
