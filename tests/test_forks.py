"""Children that are forked while other threads are busy: nothing there waits for ever."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from registered import BACKENDS
from tolerances import assert_same

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.data.ahead import prefetch
from gpubp.errors import DataError
from gpubp.runtime import eager
from gpubp.runtime.nesting import nesting

pytestmark = [
    pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork"),
    pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning"),
]
SOURCES = Path(gp.__file__).parent
X = np.random.default_rng(0).normal(size=(64, 64)).astype(np.float32)


def in_child(work: Callable[[], bool]) -> None:
    """Do it in a forked child, which has a minute."""
    pid = os.fork()
    if pid == 0:
        signal.alarm(60)
        right = False
        try:
            right = work()
        finally:
            os._exit(0 if right else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0  # -14: it waited for ever


@contextmanager
def in_the_middle(call: Callable[[Any], Any]) -> Iterator[None]:
    """Another thread is inside of a call: its custom op waits until the block is over."""
    entered, leave = threading.Event(), threading.Event()

    def waiting(x: Any) -> Any:
        entered.set()
        leave.wait(60)
        return x

    thread = threading.Thread(target=call, args=(waiting,))
    thread.start()
    entered.wait(60)
    try:
        yield
    finally:
        leave.set()
        thread.join(60)


class _Calling:
    """A custom op that does what it is told by the thread that calls it."""

    def __init__(self) -> None:
        self.here = threading.local()
        self.op = gp.custom_op("told", lambda x: self._do(x), vjp=lambda g, y, x: g)

    def _do(self, x: Any) -> Any:
        return getattr(self.here, "does", lambda v: v)(x)

    def told(self, call: Callable[[], Any]) -> Callable[[Any], Any]:
        def run(does: Any) -> None:
            self.here.does = does
            call()

        return run


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_function_and_another(backend: str) -> None:
    calling = _Calling()
    fn = gp.compile(lambda x: calling.op(x) @ x, backend=backend)
    other = gp.compile(lambda x: x @ x + 1.0, backend=backend)
    new = gp.compile(lambda x: x @ x + 2.0, backend=backend)
    wanted = [fn(X), other(X)]
    with in_the_middle(calling.told(lambda: fn(X))):
        in_child(lambda: all(np.array_equal(f(X), w) for f, w in zip((fn, other), wanted)))
        in_child(lambda: np.allclose(new(X), wanted[1] + 1.0))
        in_child(lambda: not nesting.holders and not nesting.waits)
    assert_same(fn(X), wanted[0])


@pytest.mark.parametrize("run", [False, True], ids=["call", "run"])
@pytest.mark.parametrize("workers", [1, 2])
def test_a_step_in_the_middle(workers: int, run: bool) -> None:
    """Parameters may be those of half a step in the child, so it begins from known ones."""

    def made() -> tuple[Any, Any, Any]:
        gp.manual_seed(0)
        calling, model = _Calling(), nn.Linear(64, 64)
        step = gp.compile_step(
            lambda x: ops.mean(ops.square(model(calling.op(x)))),
            optim.SGD(model.parameters(), lr=0.1),
            backend=NumbaBackend(workers=workers),
        )
        return calling, model, step

    calling, model, step = made()
    _, twin, other = made()
    for one in (step, other):
        one(X)
    start = model.state_dict()
    wanted = [other(X), *other.run(X, batch_size=16, shuffle=False)]

    def child() -> bool:
        model.load_state_dict(start)
        losses = [step(X), *step.run(X, batch_size=16, shuffle=False)]
        same = [np.array_equal(a, b) for a, b in zip(losses, wanted, strict=True)]
        return all(same) and np.array_equal(model.weight.value, twin.weight.value)

    busy = (lambda: step.run(X, batch_size=32)) if run else (lambda: step(X))
    with in_the_middle(calling.told(busy)):
        in_child(child)
    in_child(lambda: bool(np.isfinite(step(X))))


def test_locks_that_are_held_at_the_moment_of_the_fork() -> None:
    """Each lock of the package in turn, held by another thread."""
    fn = gp.compile(lambda x: x + 1.0, backend="numba")
    fn(X)
    locks = {
        "function": lambda: fn._runner.lock,
        "eager": lambda: eager._lock,
        "peak": lambda: NumbaBackend._peak_lock,
    }
    for name, lock in locks.items():
        held, leave = threading.Event(), threading.Event()

        def hold(lock: Any = lock, held: Any = held, leave: Any = leave) -> None:
            with lock():
                held.set()
                leave.wait(60)

        thread = threading.Thread(target=hold)
        thread.start()
        held.wait(60)

        def child(name: str = name, lock: Any = lock) -> bool:
            with lock():
                return np.array_equal(fn(X), X + 1.0)

        in_child(child)
        leave.set()
        thread.join(60)


def test_items_made_ready_by_a_thread_of_the_parent() -> None:
    items = prefetch(iter(range(100)))
    assert next(items) == 0

    def child() -> bool:
        try:
            list(items)
        except DataError as error:
            return "iterate anew in the child" in str(error)
        return False

    in_child(child)
    assert list(items) == list(range(1, 100))


def test_every_lock_of_the_package_is_made_anew() -> None:
    """Whoever adds one says here what happens to it in a forked child."""
    handled = {
        "backends/apart.py": "start_anew",
        "backends/numba_cpu/members.py": "of one run, which a child does not go on with",
        "distributed/threads.py": "ranks as threads: a child is none of them",
        "backends/cuda/__init__.py": "start_anew",
        "backends/cuda/emulator/backend.py": "start_anew",
        "backends/cuda/emulator/driver.py": "start_anew",
        "backends/numba_cpu/__init__.py": "_unlock",
        "backends/numba_cpu/object_code.py": "held by the forking thread",
        "backends/numba_cpu/pool.py": "a child makes a team of its own",
        "dashboard/views.py": "of a server, which a child does not go on with",
        "data/ahead.py": "refused in a child",
        "runtime/eager.py": "_unlock",
        "runtime/program_cache.py": "start_anew",
        "sklearn/engine.py": "start_anew",
        "sklearn/log.py": "_unlock",
        "sklearn/together.py": "of one search, which a child does not go on with",
    }
    made = re.compile(r"\b(Lock|RLock|Condition|Semaphore|Barrier|Event|Queue)\(")
    found = set()
    for path in SOURCES.rglob("*.py"):
        text = re.sub(r"cuda\.Event\(|class \w+\(", "", path.read_text())
        if made.search(text):
            found.add(path.relative_to(SOURCES).as_posix())
    assert found == handled.keys()
