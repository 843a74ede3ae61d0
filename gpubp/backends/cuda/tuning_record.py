"""Which algorithm won for a product, kept in the cache folder: one small file a problem."""

from __future__ import annotations

import hashlib
import json
from contextlib import suppress
from pathlib import Path

from gpubp.atomic import replacing
from gpubp.backends.cuda.products import Plan
from gpubp.cache import cache_root


def _path(key: str) -> Path:
    return cache_root() / "products" / f"{hashlib.sha256(key.encode()).hexdigest()[:40]}.json"


def read(key: str) -> bytes | None:
    """A kept choice: an algorithm, b"" for our own kernels; None if there is none to read."""
    try:
        found = json.loads(_path(key).read_text())
        return bytes.fromhex(found["algorithm"]) if found["key"] == key else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def write(key: str, plan: Plan | None) -> None:
    """Keep a choice; where the folder cannot be written, it is measured again next time."""
    path = _path(key)
    text = json.dumps({"key": key, "algorithm": plan.algorithm.hex() if plan else ""}, indent=1)
    with suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path, "w") as file:
            file.write(text + "\n")
