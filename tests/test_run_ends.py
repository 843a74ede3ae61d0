"""What runs of backends let go of, and look at, when they end or are entered again."""

from __future__ import annotations

import numpy as np
import pytest

import gpubp as gp
from gpubp import ops
from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.job import Job
from gpubp.backends.numpy import NumpyBackend
from gpubp.errors import NonFiniteError


def test_a_job_that_begins_anew_looks_at_its_inputs_again() -> None:
    row = np.zeros((1, 9), np.int64)
    checks = np.ones((2, words.CHECK_WORDS), np.int64)
    job = Job(row, np.zeros((5, 2), np.int64), checks, 1)
    seen = []
    for first, stop in ((0, 2), (2, 5), (0, 5), (4, 5)):
        job.cut(first, stop, 1, 0)
        seen.append(int(job.context[words.CONTEXT_CHECKS]))
    assert seen == [2, 0, 2, 0]


def test_a_run_that_raises_lets_go_of_its_arrays() -> None:
    backend = NumpyBackend(debug_nans=True)
    loaded = []
    inner = backend.load
    backend.load = lambda program: loaded.append(inner(program)) or loaded[-1]  # type: ignore
    root = gp.compile(lambda x: ops.sqrt(x), backend=backend)
    with pytest.raises(NonFiniteError):
        root(np.full(3, -1.0, np.float32))
    (made,) = loaded
    kinds = [buffer.kind for buffer in made.program.buffers]
    held = [m for m, kind in zip(made.memory, kinds, strict=True) if kind in ("input", "output")]
    assert held
    assert all(memory is None for memory in held)
