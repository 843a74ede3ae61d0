"""The object code of the CPU kernels: compiled once per machine, then loaded without Numba.

Comes in: kernel names. Goes out: their addresses in this process.

Object files live in a cache folder whose name is a digest of everything the code depends on: the
kernels' sources, the ops' formulas, the versions of Numba, llvmlite and Python, and the CPU with
its features. So a change in any of them compiles anew, and nothing stale can be loaded. Files are
written under a temporary name and renamed.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
import sys
import threading
from functools import cache
from importlib.metadata import version
from pathlib import Path
from typing import Any

from gpubp.backends.numba_cpu.opcodes import table_text
from gpubp.backends.numba_cpu.target import cpu
from gpubp.cache import cache_root, read_object
from gpubp.errors import BackendError

COMMON = ("loop", "lead", "serve", "load_batch", "gather", "concat", "unslice", "custom", "scalar")
FLOAT_FAMILY = (
    "ops",
    "chain",
    "tiles",
    "matmul",
    "reduce",
    "softmax",
    "cross_entropy",
    "scatter_add",
)
INTEGER_FAMILY = ("ops", "chain", "reduce", "scatter_add")

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
                _compile(folder, missing)
            _load(folder, wanted)
        return {name: _addresses[name] for name in names}


def symbol_of(name: str) -> str:
    """The exported symbol of a kernel."""
    return f"gpubp_{name}"


def sources() -> list[Path]:
    """Every file of the package that decides what object code comes out."""
    here = Path(__file__).parent
    beside = ("compiler.py", "objects.py", "opcodes.py", "target.py", "words.py")
    return sorted([*(here / "kernels").glob("*.py"), *[here / name for name in beside]])


@cache
def cache_folder() -> Path:
    """Where this machine's object code is, for these very sources."""
    digest = hashlib.sha256()
    for source in sources():
        digest.update(source.name.encode() + source.read_bytes())
    llvm = _llvm()
    for part in (
        table_text(),
        version("numba"),
        version("llvmlite"),
        sys.version,
        llvm.get_default_triple(),
        *cpu(),
    ):
        digest.update(part.encode())
    return cache_root() / f"cpu-{digest.hexdigest()[:20]}"


def _with_family(missing: list[str]) -> list[str]:
    """The kernels to compile now, so that the next model of this dtype finds all it needs."""
    names = set(missing)
    if names & set(COMMON):
        names.update(COMMON)
    for dtype, family in (
        ("float32", FLOAT_FAMILY),
        ("float64", FLOAT_FAMILY),
        ("int64", INTEGER_FAMILY),
    ):
        members = {f"{base}_{dtype}" for base in family}
        if names & members:
            names.update(members)
    return sorted(names)


def _compile(folder: Path, missing: list[str]) -> None:
    """Compile kernels in two processes, so that Numba never enters this one."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as err:
        raise BackendError(
            f"compiled CPU kernels cannot be kept in {folder} ({err.strerror}). Set "
            "GPUBP_CACHE_DIR to a folder that can be written."
        ) from err
    names = [n for n in _with_family(missing) if read_object(folder, n) is None]
    print(
        f"gpubp: compiling {len(names)} CPU kernels for this machine "
        f"(once; about 10-20 s; kept in {folder})",
        file=sys.stderr,
        flush=True,
    )
    largest = [n for n in names if n.startswith("ops_")]
    rest = [n for n in names if n not in largest]
    module = "gpubp.backends.numba_cpu.compiler"
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(p for p in sys.path if p))
    running = [
        subprocess.Popen(
            [sys.executable, "-m", module, str(folder), *group],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            env=environment,
            text=True,
        )
        for group in (largest, rest)
        if group
    ]
    problems = [process.communicate()[1] for process in running]
    if any(process.returncode for process in running):
        raise BackendError("compiling the CPU kernels failed:\n" + "\n".join(problems))


def _llvm() -> Any:
    """llvmlite's binding, ready to load code."""
    import llvmlite.binding as llvm

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    return llvm


def target_machine(jit: bool) -> Any:
    """LLVM's target for the CPU that kernels are compiled for."""
    llvm = _llvm()
    name, features = cpu()
    return llvm.Target.from_default_triple().create_target_machine(
        cpu=name,
        features=features,
        opt=3,
        reloc="default" if jit else "pic",
        codemodel="jitdefault" if jit else "default",
    )


@cache
def _engine() -> Any:
    llvm = _llvm()
    return llvm.create_mcjit_compiler(llvm.parse_assembly(""), target_machine(jit=True))


def _load(folder: Path, names: list[str]) -> None:
    llvm, engine = _llvm(), _engine()
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
