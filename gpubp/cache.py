"""The folder of what is worth keeping between processes: compiled kernels, measured choices.

A kept file holds the digest of its content before it, so a damaged one counts as missing.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

from gpubp.atomic import replacing


def cache_root() -> Path:
    """GPUBP_CACHE_DIR, else the platform's cache folder."""
    asked = os.environ.get("GPUBP_CACHE_DIR")
    if asked:
        return Path(asked)
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "gpubp"
    if sys.platform == "win32":
        return Path(os.environ.get("LOCALAPPDATA", str(Path.home()))) / "gpubp" / "Cache"
    return Path(os.environ.get("XDG_CACHE_HOME", str(Path.home() / ".cache"))) / "gpubp"


def write_object(folder: Path, name: str, code: bytes) -> None:
    """Store a kernel's object code: all of it or nothing."""
    folder.mkdir(parents=True, exist_ok=True)
    with replacing(_path(folder, name)) as file:
        file.write(hashlib.sha256(code).digest() + code)


def read_object(folder: Path, name: str) -> bytes | None:
    """A kernel's object code; None if it is not there or damaged."""
    try:
        content = _path(folder, name).read_bytes()
    except OSError:
        return None
    return content[32:] if hashlib.sha256(content[32:]).digest() == content[:32] else None


def _path(folder: Path, name: str) -> Path:
    return folder / f"{name}.o"
