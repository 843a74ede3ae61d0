"""Which CPU kernels are compiled, by how many processes, and what the user hears of it."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from gpubp.backends.numba_cpu import build
from gpubp.backends.numba_cpu.compiler import compile_kernel
from gpubp.backends.numba_cpu.kernels import registry
from gpubp.errors import BackendError

LAYERS = """
import sys
import numpy as np
import gpubp as gp
from gpubp import nn
model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 3))
gp.compile(model, backend="numba")(np.ones((8, 4), np.float32))
print("numba" in sys.modules)
"""
TANH = LAYERS.replace("nn.ReLU", "nn.Tanh")


def _run(code: str, folder: Path) -> tuple[str, list[str]]:
    """What it printed to stderr, and which kernels are kept now."""
    environment = dict(os.environ, GPUBP_CACHE_DIR=str(folder))
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True
    )
    assert done.stdout.strip() == "False", done.stderr
    return done.stderr, sorted(path.stem for path in folder.glob("cpu-*/*.o"))


def test_a_program_compiles_what_it_lacks_and_says_so(tmp_path: Path) -> None:
    told, kept = _run(LAYERS, tmp_path)
    found = re.search(r"compiling (\d+) CPU kernels for this machine \(once; about \d+ s", told)
    assert found is not None and int(found[1]) == len(kept), told
    assert str(tmp_path) in told
    assert {"loop", "matmul_float32", "tiles_bias_relu_float32", "tiles_bias_float32"} <= set(kept)
    assert not [n for n in kept if "float64" in n or "gelu" in n or "adam" in n]
    told, more = _run(TANH, tmp_path)
    assert set(more) - set(kept) == {"tiles_bias_tanh_float32"}
    assert "compiling 1 CPU kernel" in told
    assert _run(TANH, tmp_path) == ("", more)


@pytest.mark.parametrize("processes", [1, 2, 3, 8])
def test_each_kernel_is_compiled_once_by_no_more_processes_than_help(processes: int) -> None:
    names = ["loop", "ops_float32", "matmul_float32", "chain_float32", "lead", "serve", "gather"]
    shares = build.divided(names, processes)
    assert sorted(n for share in shares for n in share) == sorted(names)
    assert 1 <= len(shares) <= processes
    loads = [sum(map(build.seconds, share)) for share in shares]
    others = max([load + build.START for load in loads[1:]], default=0.0)
    assert max(loads[0], others) <= sum(map(build.seconds, names))


def test_a_few_small_kernels_start_no_process() -> None:
    assert build.divided(["gather", "custom", "lead"], 8) == [["custom", "gather", "lead"]]
    assert build.divided(["ops_int64"], 2) == [["ops_int64"]]


def test_a_process_that_fails_is_reported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(build, "divided", lambda names, _: [["custom"], ["no_such_float32"]])
    with pytest.raises(BackendError, match="compiling the CPU kernels failed"):
        build.compile_all(tmp_path, ["custom", "no_such_float32"])


def test_an_interrupt_ends_the_other_processes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    started: list[subprocess.Popen[str]] = []
    popen = subprocess.Popen

    def start(*args: object, **options: object) -> object:
        started.append(popen(*args, **options))  # type: ignore[call-overload]
        return started[-1]

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(build.subprocess, "Popen", start)
    monkeypatch.setattr(build, "compile_into", interrupted)
    monkeypatch.setattr(build, "divided", lambda names, _: [["custom"], ["ops_float32"]])
    with pytest.raises(KeyboardInterrupt):
        build.compile_all(tmp_path, ["custom", "ops_float32"])
    assert [process.poll() is not None for process in started] == [True]


@pytest.mark.parametrize("name", ["loop", "chain_int64", "tiles_plain_float64", "serve"])
def test_the_same_sources_give_the_same_object_code(name: str) -> None:
    assert str(registry.module(name, "a")) == str(registry.module(name, "a"))
    assert compile_kernel(name, "a") == compile_kernel(name, "a")
