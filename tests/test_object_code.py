"""The object code of the CPU kernels: kept whole or not at all, and loaded without Numba."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import gpubp as gp
from gpubp import cache
from gpubp.backends.numba_cpu import object_code
from gpubp.errors import BackendError

TRAIN = """
import sys
import numpy as np
import gpubp as gp
from gpubp import nn, optim
model = nn.Linear(4, 3)
step = gp.compile_step(
    lambda x, y: nn.CrossEntropyLoss()(model(x), y), optim.Adam(model.parameters()), backend="numba"
)
step.run(np.ones((8, 4), np.float32), np.zeros(8, int), batch_size=4)
print("numba" in sys.modules)
"""


def test_object_code_round_trip(tmp_path: Path) -> None:
    cache.write_object(tmp_path / "new", "matmul_float32", b"code")
    assert cache.read_object(tmp_path / "new", "matmul_float32") == b"code"
    assert [p.name for p in (tmp_path / "new").iterdir()] == ["matmul_float32.o"]


@pytest.mark.parametrize("cut", [slice(0, 40), slice(0, 10), slice(0, 0), slice(1, None)])
def test_damaged_object_code_counts_as_missing(tmp_path: Path, cut: slice) -> None:
    cache.write_object(tmp_path, "loop", bytes(range(100)))
    path = tmp_path / "loop.o"
    path.write_bytes(path.read_bytes()[cut])
    assert cache.read_object(tmp_path, "loop") is None


def test_missing_object_code_is_none(tmp_path: Path) -> None:
    assert cache.read_object(tmp_path, "loop") is None


def test_cache_that_cannot_be_written_is_a_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocked = tmp_path / "a file"
    blocked.write_text("")
    monkeypatch.setenv("GPUBP_CACHE_DIR", str(blocked))
    object_code.cache_folder.cache_clear()
    try:
        monkeypatch.setattr(object_code, "_addresses", {})
        with pytest.raises(BackendError, match="GPUBP_CACHE_DIR"):
            object_code.addresses({"loop"})
    finally:
        object_code.cache_folder.cache_clear()


def test_a_process_that_finds_the_kernels_never_imports_numba() -> None:
    gp.compile(lambda x: x + 1, backend="numba")(np.ones(3, np.float32))
    for _ in range(2):  # the first may still have to compile, in processes of its own
        done = subprocess.run([sys.executable, "-c", TRAIN], capture_output=True, text=True)
        assert done.stdout.strip() == "False", done.stderr


def test_an_empty_instruction_keeps_its_barrier() -> None:
    """A part with nothing to do is dropped; the barrier before it still guards what follows."""

    def fn(x: gp.Array, e: gp.Array) -> tuple[gp.Array, gp.Array]:
        return e.T @ (e @ x), x.T @ x

    loaded = gp.compile(fn, backend="numba")
    x, e = np.ones((3, 3), np.float32), np.ones((0, 3), np.float32)
    empty, full = loaded(x, e)
    np.testing.assert_array_equal(empty, np.zeros((3, 3)))
    np.testing.assert_array_equal(full, np.full((3, 3), 3.0))
    ready = loaded._runner.last
    assert ready is not None
    wanted = sum(i.sync for i in ready.program.instructions)
    assert int(ready.loaded.records[:, 3].sum()) == wanted


CROWDED = """
import ctypes
from gpubp.backends.numba_cpu.object_code import addresses

mmap = ctypes.CDLL(None).mmap
mmap.restype = ctypes.c_void_p
mmap.argtypes = [ctypes.c_void_p, ctypes.c_size_t, *[ctypes.c_int] * 3, ctypes.c_long]
AROUND, NOWHERE_ELSE = 4 << 30, 0x104022  # a fixed place where nothing is, private, of no memory


def crowd(at):
    spans = [line.split()[0].split("-") for line in open("/proc/self/maps")]
    end = at - AROUND
    for first, last in sorted((int(a, 16), int(b, 16)) for a, b in spans):
        start, stop = max(end, 65536), min(first, at + AROUND)
        if stop - start >= 4096:
            mmap(start, stop - start, 0, NOWHERE_ELSE, -1, 0)
        end = max(end, last)


for name in KERNELS:
    crowd(addresses({name})[name])
print("loaded")
"""


@pytest.mark.skipif(sys.platform != "linux", reason="reads Linux's list of mappings")
def test_kernels_are_loaded_where_memory_beside_the_first_ones_is_taken() -> None:
    """LLVM's own manager of memory ends the process there: sections too far apart."""
    names = ["chain_float32", "loop", "reduce_float32", "scalar", "tiles_bias_float32", "lead"]
    names += ["ops_float32", "matmul_float32", "cross_entropy_float32", "load_batch", "serve"]
    program = f"KERNELS = {names}\n{CROWDED}"
    found = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert found.stdout == "loaded\n", found.stderr[-500:]
