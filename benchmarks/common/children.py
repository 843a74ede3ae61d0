"""The parent's side of child processes: thread counts are fixed when a process starts, so every
(contender, number of threads) has one of its own, kept alive and asked in turn."""

from __future__ import annotations

import os
import pickle
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any

import gpubp
from gpubp.cli.bench import BenchmarkError

_THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
    "NUMBA_NUM_THREADS",
    "GPUBP_NUM_THREADS",
)
_XLA_ONE_THREAD = "--xla_cpu_multi_thread_eigen=false intra_op_parallelism_threads=1"


class LeftOutError(Exception):
    """A contender that does not take part; the message says why."""


_ON_CPU = {"JAX_PLATFORMS": "cpu", "CUDA_VISIBLE_DEVICES": ""}
_ON_GPU = {
    "GPUBP_BACKEND": "cupy",
    "GPUBP_BENCH_DEVICE": "cuda",
    # Contenders share the GPU's memory.
    "XLA_PYTHON_CLIENT_PREALLOCATE": "false",
}


def environment(threads: int | None, gpu: bool = False) -> dict[str, str]:
    """A child's environment.

    Args:
        threads: for every library that can be told; None leaves them their defaults.
        gpu: the networks run on the GPU everywhere, else on the processor.
    """
    benchmarks = Path(__file__).resolve().parents[1]
    package = Path(gpubp.__file__).resolve().parents[1]
    paths = [str(benchmarks), str(package), *os.environ.get("PYTHONPATH", "").split(os.pathsep)]
    found = dict(os.environ, PYTHONPATH=os.pathsep.join(filter(None, paths)))
    found |= _ON_GPU if gpu else _ON_CPU
    if threads is not None:
        found |= dict.fromkeys(_THREAD_VARIABLES, str(threads))
    if threads == 1:
        found["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {_XLA_ONE_THREAD}".strip()
    return found


class Child:
    """One child process; a context manager that ends it.

    Args:
        name: for messages.
        threads: how many threads and processors it gets; None: as many as there are.
        gpu: whether the networks run on the GPU.
    """

    def __init__(self, name: str, threads: int | None, gpu: bool = False) -> None:
        self.name = name
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "common.child"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            env=environment(threads, gpu),
        )
        if threads is not None:
            self.ask("bind", threads)

    def ask(self, command: str, *arguments: Any) -> Any:
        """Send a request and wait for its answer.

        Raises:
            LeftOutError: the contender is not installed or cannot do the task.
            BenchmarkError: anything else went wrong.
        """
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        try:
            pickle.dump((command, arguments), self._process.stdin)
            self._process.stdin.flush()
            status, answer = pickle.load(self._process.stdout)
        except (EOFError, BrokenPipeError) as error:
            code = self._process.wait()
            raise BenchmarkError(
                f"the process of {self.name} ended with code {code} at {command!r}; its own "
                "message is above."
            ) from error
        if status == "missing":
            raise LeftOutError(f"not installed ({answer})")
        if status == "left out":
            raise LeftOutError(answer)
        if status == "failed":
            raise BenchmarkError(f"{self.name} failed at {command!r}: {answer}")
        return answer

    def __enter__(self) -> Child:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if kind is not None:
            self._process.kill()
        self._process.communicate()
