"""Resident memory of this process, in bytes: now, and its peak."""

from __future__ import annotations

import sys
from contextlib import suppress
from pathlib import Path

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")


def resident() -> int:
    """Now; where the system does not tell, the peak so far."""
    return _status("VmRSS") if _STATUS.exists() else peak()


def peak() -> int:
    """The most since the start of this program, or since `forget_peak`.

    Linux carries `ru_maxrss` over from the process that started this one, so its own count for
    this program's memory is asked instead; elsewhere it is `ru_maxrss`.
    """
    if _STATUS.exists():
        return _status("VmHWM")
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def forget_peak() -> None:
    """Begin the peak again from now, where the system can do that."""
    with suppress(OSError):
        _CLEAR.write_text("5")


def _status(key: str) -> int:
    for line in _STATUS.read_text().splitlines():
        if line.startswith(f"{key}:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} does not tell {key}")
