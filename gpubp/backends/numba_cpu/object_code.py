"""The object code of the CPU kernels: compiled once per machine, as programs need it, then loaded.

Comes in: kernel names. Goes out: their addresses in this process.

Object files live in a cache folder whose name is a digest of everything the code depends on: the
kernels' sources, the ops' formulas, the versions of llvmlite and Python, and the CPU with its
features. So a change in any of them compiles anew, and nothing stale can be loaded. Files are
written under a temporary name and renamed.
"""

from __future__ import annotations

import hashlib
import os
import sys
import threading
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gpubp.backends.numba_cpu.opcodes import table_text
from gpubp.backends.numba_cpu.target import binding, cpu, symbol_of, target_machine
from gpubp.cache import cache_root, read_object
from gpubp.errors import BackendError

_lock = threading.RLock()
if hasattr(os, "register_at_fork"):  # a child must not find the lock held by a thread it lacks
    os.register_at_fork(
        before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release
    )
_addresses: dict[str, int] = {}


def addresses(names: set[str]) -> dict[str, int]:
    """Where kernels are in memory; compiles and loads what is missing.

    Args:
        names: as in `kernels.registry`: "loop", "matmul_float32", ...
    """
    with _lock:
        wanted = sorted(names - _addresses.keys())
        if wanted:
            folder = cache_folder()
            missing = [n for n in wanted if read_object(folder, n) is None]
            if missing:
                from gpubp.backends.numba_cpu import build  # and with it all of the kernels

                build.compile_all(folder, missing)
            _load(folder, wanted)
        return {name: _addresses[name] for name in names}


def sources() -> list[Path]:
    """Every file of the package that decides what object code comes out."""
    here = Path(__file__).parent
    beside = ("compiler.py", "opcodes.py", "target.py", "words.py")
    return sorted([*(here / "kernels").glob("*.py"), *[here / name for name in beside]])


@cache
def cache_folder() -> Path:
    """Where this machine's object code is, for these very sources."""
    digest = hashlib.sha256()
    for source in sources():
        digest.update(source.name.encode() + source.read_bytes())
    llvm = binding()
    for part in (
        table_text(),
        version("llvmlite"),
        sys.version,
        llvm.get_default_triple(),
        *cpu(),
    ):
        digest.update(part.encode())
    return cache_root() / f"cpu-{digest.hexdigest()[:20]}"


@cache
def _engine() -> Any:
    # llvmlite's memory manager keeps what belongs to an object side by side. LLVM's takes any place
    # for each section, and ends the process where two of them are more than 2 GB apart, as they may
    # be in one that has large arrays and libraries.
    llvm = binding()
    machine = target_machine(jit=True)
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine, use_lmm=True)


def _load(folder: Path, names: list[str]) -> None:
    llvm, engine = binding(), _engine()
    for name in names:
        code = read_object(folder, name)
        if code is None:
            raise BackendError(f"the object code of {name} is missing from {folder}.")
        engine.add_object_file(llvm.ObjectFileRef.from_data(code))
    engine.finalize_object()
    for name in names:
        address = engine.get_global_value_address(symbol_of(name))
        if not address:
            raise BackendError(f"the object code of {name} has no symbol {symbol_of(name)}.")
        _addresses[name] = address
