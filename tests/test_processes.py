"""Training in forked, spawned and borrowed processes, in threads, and under the system's limits."""

from __future__ import annotations

import gc
import importlib.util
import multiprocessing
import os
import subprocess
import sys
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import llvmlite.binding as llvm
import pytest
from tolerances import assert_same
from training import Result, send, trained

pytestmark = pytest.mark.full

HAS_FORK = "fork" in multiprocessing.get_all_start_methods()
COUNT = "from gpubp.backends.numba_cpu.pool import max_workers; print(max_workers())"
USED = """
import threading
import training
training.trained(workers=None)
import numpy as np, gpubp as gp
gp.compile(lambda a: a @ a, backend="numba")(np.ones((640, 640)))
print(threading.active_count())
"""
BLOCK = 1 << 20


def _python(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    path = os.pathsep.join(p for p in (str(Path(__file__).parent), *sys.path) if p)
    return subprocess.run(
        [sys.executable, "-c", code],
        env=dict(os.environ, PYTHONPATH=path, **environment),
        capture_output=True,
        text=True,
    )


def _output(code: str, **environment: str) -> str:
    done = _python(code, **environment)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def _assert_equal(found: Result, wanted: Result) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert_same(found[name], wanted[name], name)


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.parametrize("workers", [1, 2])
def test_children_train_as_their_parent(method: str, workers: int) -> None:
    if method == "fork" and not HAS_FORK:
        pytest.skip("this platform has no fork")
    wanted = [trained(seed, 2) for seed in range(2)]  # so that the parent has threads
    context = multiprocessing.get_context(method)
    queues = [context.Queue() for _ in wanted]
    children = [
        context.Process(target=send, args=(queue, seed, workers))
        for seed, queue in enumerate(queues)
    ]
    for child in children:
        child.start()
    for queue, child, result in zip(queues, children, wanted, strict=True):
        process, found = queue.get(timeout=240)
        child.join(timeout=60)
        assert child.exitcode == 0
        assert process == child.pid != os.getpid()
        _assert_equal(found, result)
    _assert_equal(trained(1, 2), wanted[1])


@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
@pytest.mark.skipif(not HAS_FORK, reason="this platform has no fork")
def test_a_child_that_is_forked_while_others_train() -> None:
    """The pool may be in use at the moment of the fork; the child's is its own."""
    context = multiprocessing.get_context("fork")
    wanted = trained(3, 2)
    with ThreadPoolExecutor(1) as threads:
        busy = threads.submit(lambda: [trained(3, 2) for _ in range(5)])
        queue = context.Queue()
        child = context.Process(target=send, args=(queue, 3, 2))
        child.start()
        _, found = queue.get(timeout=240)
        child.join(timeout=60)
        _assert_equal(found, wanted)
        for result in busy.result(timeout=240):
            _assert_equal(result, wanted)


def test_known_kernels_need_nothing_of_llvm() -> None:
    """llvmlite calls under a lock: a child forked while a thread holds it would wait for ever."""
    wanted = trained(4)
    gc.collect()  # or what others left behind is released, under the lock, while it is watched
    calls: list[str] = []
    watch = (lambda: calls.append("".join(traceback.format_stack(limit=6))), lambda: None)
    llvm.ffi.register_lock_callback(*watch)
    try:
        found = trained(4)
    finally:
        llvm.ffi.unregister_lock_callback(*watch)
    assert not calls, f"{len(calls)} calls, the first from\n{calls[0]}"
    _assert_equal(found, wanted)


def test_threads_train_different_models_at_once() -> None:
    jobs = [(0, 2, "adam"), (1, 2, "momentum"), (2, 1, "adam"), (3, None, "momentum")]
    wanted = [trained(*job) for job in jobs]
    with ThreadPoolExecutor(len(jobs)) as threads:
        futures = [threads.submit(trained, *job) for job in jobs * 3]
        for future, result in zip(futures, wanted * 3, strict=True):
            _assert_equal(future.result(timeout=240), result)


def test_joblib_workers_train_as_their_parent() -> None:
    if importlib.util.find_spec("joblib") is None:
        pytest.skip("joblib is not installed")
    from joblib import Parallel, delayed

    wanted = [trained(seed) for seed in range(3)]
    found = Parallel(n_jobs=2, backend="loky")(delayed(trained)(seed) for seed in range(3))
    for result, alone in zip(found, wanted, strict=True):
        _assert_equal(result, alone)


@pytest.mark.parametrize(("value", "threads"), [("1", "1"), ("2", "2"), ("3", "3")])
def test_num_threads_is_respected(value: str, threads: str) -> None:
    assert _output(COUNT, GPUBP_NUM_THREADS=value) == value
    assert _output(USED, GPUBP_NUM_THREADS=value) == threads


@pytest.mark.parametrize("value", ["0", "-2", "many", "1.5", " "])
def test_bad_num_threads_are_refused(value: str) -> None:
    done = _python(USED, GPUBP_NUM_THREADS=value)
    assert done.returncode != 0
    assert f"GPUBP_NUM_THREADS is {value!r}; expected a positive integer." in done.stderr


@pytest.mark.skipif(
    not hasattr(os, "sched_setaffinity"), reason="this platform cannot bind processes to CPUs"
)
def test_affinity_is_respected() -> None:
    bind = "import os; os.sched_setaffinity(0, [min(os.sched_getaffinity(0))])\n"
    assert _output(bind + COUNT, GPUBP_NUM_THREADS="") == "1"
    assert _output(bind + USED, GPUBP_NUM_THREADS="") == "1"


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="this platform has no /proc")
@pytest.mark.parametrize("single", [False, True])
def test_training_does_not_gain_memory(single: bool) -> None:
    """200,000 steps in 200 runs, or one by one."""
    code = f"import training; print(training.growth(1000, 200 if not {single} else 20, {single}))"
    assert int(_output(code)) < BLOCK
