"""Results as JSON, with what is needed to read them later: machine, versions, date."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np

import gpubp


def machine() -> dict[str, Any]:
    """The processor, how many of its cores this process may use, and the system."""
    system = f"{platform.system()} {platform.machine()}"
    return {"cpu": _cpu_name(), "cores": _cores(), "system": system}


def versions() -> dict[str, str]:
    """Python, NumPy and gpubp (with the commit, if its source is a git checkout)."""
    found = {
        "python": platform.python_version(),
        "numpy": np.__version__,
        "gpubp": gpubp.__version__,
    }
    commit = _commit()
    return found | ({"gpubp commit": commit} if commit else {})


def write(path: Path, benchmark: str, rows: Sequence[Mapping[str, Any]], **extra: Any) -> None:
    """Write a result file: all of it, or nothing.

    Args:
        path: replaced if it exists.
        benchmark: which one.
        rows: one for each measured number.
        **extra: more top-level entries; `versions` are added to the ones found here.
    """
    content = {
        "benchmark": benchmark,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "machine": machine(),
        **extra,
        "versions": versions() | extra.get("versions", {}),
        "rows": list(rows),
    }
    text = json.dumps(content, indent=1)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=path.name, suffix=".tmp")
    try:
        with os.fdopen(handle, "w") as file:
            file.write(text + "\n")
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def _cpu_name() -> str:
    if sys.platform == "linux":
        for line in Path("/proc/cpuinfo").read_text().splitlines():
            if line.startswith("model name"):
                return line.split(":", 1)[1].strip()
    return platform.processor() or platform.machine()


def _cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _commit() -> str | None:
    """The commit of the checkout that gpubp was imported from, with a + if files differ."""
    folder = Path(gpubp.__file__).resolve().parents[1]
    if not (folder / ".git").exists():
        return None
    command = ["git", "-C", str(folder), "describe", "--always", "--dirty=+", "--exclude=*"]
    try:
        run = subprocess.run(command, capture_output=True, text=True, check=True)
    except (OSError, subprocess.CalledProcessError):
        return None  # no git here, or not a repository it trusts: the version number remains
    return run.stdout.strip()
