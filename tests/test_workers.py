"""The number of workers changes no bit; threads, forks and environment variables are safe."""

from __future__ import annotations

import gc
import itertools
import os
import subprocess
import sys
import threading
import time
from typing import Any, ClassVar

import numpy as np
import pytest
from tolerances import assert_same

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends.numba_cpu import NumbaBackend, pool
from gpubp.backends.numba_cpu.pool import Pool, max_workers
from gpubp.errors import DataError

WORKERS = [2, 3, 5]
SAMPLES, BATCH = 205, 77  # two whole batches and one of 51


def _model(dtype: str, dropout: float = 0.0) -> Any:
    gp.manual_seed(2)
    sizes = (37, 53, 29, 7)
    layers: list[Any] = []
    for a, b in itertools.pairwise(sizes):
        layers += [nn.Linear(a, b, dtype=dtype), nn.Tanh() if b == 29 else nn.ReLU()]
        layers += [nn.Dropout(dropout)] if dropout else []
    return nn.Sequential(*layers[: -2 if dropout else -1])


def _data(dtype: str, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(SAMPLES, 37)).astype(dtype), rng.integers(0, 7, SAMPLES)


def _optimizer(name: str, params: Any) -> Any:
    if name == "adam":
        return optim.Adam(params, lr=0.01)
    return optim.SGD(params, lr=0.05, momentum=0.9 if name == "momentum" else 0.0)


def _trained(
    backend: Any, dtype: str = "float32", rule: str = "adam", dropout: float = 0.0, seed: int = 0
) -> dict[str, Any]:
    """Everything that training leaves behind, by name."""
    model = _model(dtype, dropout)
    loss_fn = nn.CrossEntropyLoss()
    optimizer = _optimizer(rule, model.parameters())
    step = gp.compile_step(lambda x, y: loss_fn(model(x), y), optimizer, backend=backend)
    x, y = _data(dtype, seed)
    losses = step.run(x, y, batch_size=BATCH, epochs=3, seed=1)
    assert len(losses) == 9
    model.eval()
    predicted = gp.compile(model, backend=backend)(x[:65])
    state = [a for s in optimizer.state_dict()["state"].values() for a in s.values()]
    moments = {f"moment{i}": np.asarray(a) for i, a in enumerate(state)}
    return {"losses": losses, "predicted": predicted, **moments, **model.state_dict()}


def _assert_equal(found: dict[str, Any], wanted: dict[str, Any]) -> None:
    assert found.keys() == wanted.keys()
    for name in wanted:
        assert_same(found[name], wanted[name], name)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("rule", "dropout"), [("sgd", 0.0), ("momentum", 0.0), ("adam", 0.25)])
def test_bits_do_not_depend_on_workers(dtype: str, rule: str, dropout: float) -> None:
    wanted = _trained(NumbaBackend(workers=1), dtype, rule, dropout)
    assert wanted["losses"][-1] < wanted["losses"][0]
    for workers in WORKERS:
        _assert_equal(_trained(NumbaBackend(workers=workers), dtype, rule, dropout), wanted)


@pytest.mark.parametrize("workers", [1, 3])
def test_one_step_is_a_run_of_one_batch(workers: int) -> None:
    x, y = _data("float32")
    results = []
    for single in (True, False):
        model = _model("float32")
        step = gp.compile_step(
            lambda x, y, model=model: nn.CrossEntropyLoss()(model(x), y),
            _optimizer("adam", model.parameters()),
            backend=NumbaBackend(workers=workers),
        )
        if single:
            losses = np.array([step(x[i : i + BATCH], y[i : i + BATCH]) for i in (0, 77, 154)])
        else:
            losses = step.run(x, y, batch_size=BATCH, shuffle=False)
        results.append({"losses": losses, **model.state_dict()})
    _assert_equal(*results)


@pytest.mark.parametrize("workers", [1, 2])
def test_an_order_is_followed(workers: int) -> None:
    x, y = _data("float32")
    order = np.random.default_rng(9).permutation(SAMPLES)[:100]
    results = []
    for given in (True, False):
        model = _model("float32")
        step = gp.compile_step(
            lambda x, y, model=model: nn.CrossEntropyLoss()(model(x), y),
            _optimizer("sgd", model.parameters()),
            backend=NumbaBackend(workers=workers),
        )
        if given:
            losses = step.run(x, y, batch_size=30, order=order, epochs=2)
        else:
            losses = step.run(x[order], y[order], batch_size=30, shuffle=False, epochs=2)
        results.append({"losses": losses, **model.state_dict()})
    _assert_equal(*results)


def test_two_threads_train_two_models_at_once() -> None:
    backend = NumbaBackend(workers=2)
    wanted = [_trained(backend, rule=rule, seed=i) for i, rule in enumerate(("adam", "momentum"))]
    found: list[Any] = [None, None]
    lock = threading.Lock()

    def make(i: int, rule: str) -> Any:
        with lock:  # the default generator that seeds the weights is shared
            model = _model("float32")
        loss_fn = nn.CrossEntropyLoss()
        optimizer = _optimizer(rule, model.parameters())
        step = gp.compile_step(lambda x, y: loss_fn(model(x), y), optimizer, backend=backend)
        return model, step

    def train(i: int, rule: str) -> None:
        x, y = _data("float32", i)
        for _ in range(5):
            model, step = make(i, rule)
            losses = step.run(x, y, batch_size=BATCH, epochs=3, seed=1)
        found[i] = {"losses": losses, **model.state_dict()}

    threads = [threading.Thread(target=train, args=a) for a in enumerate(("adam", "momentum"))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=120)
        assert not thread.is_alive()
    for result, alone in zip(found, wanted, strict=True):
        _assert_equal(result, {name: alone[name] for name in result})


class Team:
    """Stands in for a team of threads: counts the runs that are inside at once."""

    workers = 2
    busy = False  # as told by a leader's own flag: here the counts say it
    inside: ClassVar[list[int]] = []
    counts: ClassVar[list[int]] = []

    def __init__(self, workers: int) -> None:
        pass

    def run(self, context: int, workers: int) -> None:
        self.inside.append(context)
        self.counts.append(len(self.inside))
        threading.Event().wait(0.002)
        self.inside.pop()


def test_a_pool_is_entered_by_one_run_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """Workers meet at barriers, so two first runs at once must not both get the threads."""
    process = os.getpid()
    monkeypatch.setattr(os, "getpid", lambda: threading.Event().wait(0.001) or process)
    monkeypatch.setattr(pool, "_Team", Team)
    for _ in range(5):
        _enter_from_four_threads(Pool())
    assert max(Team.counts) == 1


def _enter_from_four_threads(target: Pool) -> None:
    gate = threading.Barrier(4)
    errors: list[AttributeError] = []

    def enter() -> None:
        gate.wait()
        try:
            target.run(0, 2)
        except AttributeError as err:  # of a stand-in that has fallen behind
            errors.append(err)

    threads = [threading.Thread(target=enter) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors


def _helpers() -> set[threading.Thread]:
    return {t for t in threading.enumerate() if t.name.startswith("gpubp_")}


def test_helpers_sleep_and_wake_and_end_with_their_backend() -> None:
    before = _helpers()
    backend = NumbaBackend(workers=3)
    x = np.ones((64, 64), np.float32)
    double = gp.compile(lambda x: x + x, backend=backend)
    for pause in (0.0, 0.0, 1e-5, 1e-4, 3e-4, 1e-3, 0.02) * 30:
        threading.Event().wait(pause)
        assert (double(x) == 2.0).all()
    mine = _helpers() - before
    assert len(mine) == 2
    del backend, double
    gc.collect()
    for thread in mine:
        thread.join(timeout=120)
        assert not thread.is_alive()


def until_asleep(backend: NumbaBackend) -> None:
    """Wait until the helper of a team of two sleeps: on a busy machine that takes long."""
    team = backend._pool._team
    assert team is not None
    ends = time.monotonic() + 60
    while not team._lines[1, 0]:
        assert time.monotonic() < ends
        time.sleep(0.001)


def test_an_interrupted_call_leaves_the_team_in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Ctrl-C between the moment when sleepers are marked and the one when they are woken."""
    backend = NumbaBackend(workers=2)
    x = np.ones((64, 64), np.float32)
    double = gp.compile(lambda x: x + x, backend=backend)
    double(x)
    wake = pool._wake

    def interrupted(waker: Any) -> None:
        raise KeyboardInterrupt

    for late in (False, True):
        until_asleep(backend)
        with monkeypatch.context() as patched:
            patched.setattr(
                pool, "_wake", (lambda w: (wake(w), interrupted(w))) if late else interrupted
            )
            with pytest.raises(KeyboardInterrupt):
                double(x)
        for _ in range(3):
            assert (double(x) == 2.0).all()


def test_an_interrupted_call_does_not_keep_the_team(monkeypatch: pytest.MonkeyPatch) -> None:
    backend = NumbaBackend(workers=2)
    x = np.ones((64, 64), np.float32)
    double = gp.compile(lambda x: x + x, backend=backend)
    double(x)
    used: list[bool] = []
    run = backend._pool.run
    monkeypatch.setattr(backend._pool, "run", lambda *a: used.append(run(*a)) or used[-1])
    double = gp.compile(lambda x: x + x, backend=backend)
    backend._pool._user["thread"] = threading.get_ident()  # Ctrl-C: right after it was taken
    assert (double(x) == 2.0).all()
    backend._pool._user["thread"] = -1  # another thread's run
    assert (double(x) == 2.0).all()
    assert used == [True, False]


def test_a_run_inside_of_a_run_is_done_by_one_worker() -> None:
    backend = NumbaBackend(workers=2)
    inner = gp.compile(lambda x: x + x, backend=backend)
    outer = ops.custom_op("inner", lambda x: inner(x))
    fn = gp.compile(lambda x: outer(x) + 1.0, backend=backend)
    x = np.arange(64, dtype=np.float32)
    for _ in range(3):
        assert_same(fn(x), 2 * x + 1)


def test_one_worker_does_it_where_no_thread_can_start(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.ones((64, 64), np.float32)
    double = gp.compile(lambda x: x + x, backend=NumbaBackend(workers=3))
    start, started = threading.Thread.start, []

    def limited(thread: threading.Thread) -> None:
        if started:
            raise RuntimeError("can't start new thread")
        started.append(thread)
        start(thread)

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", limited)
        assert (double(x) == 2.0).all()
    started[0].join(timeout=120)
    assert not started[0].is_alive(), "a helper of half a team"
    assert (double(x) == 2.0).all()


_AT_EXIT = """
import atexit
import numpy as np
def last():
    assert (double(x) == 2.0).all()
    print("last", flush=True)
atexit.register(last)  # before gpubp registers anything, so it runs after that
import gpubp as gp
from gpubp.backends.numba_cpu import NumbaBackend
double = gp.compile(lambda x: x + x, backend=NumbaBackend(workers=2))
x = np.ones((64, 64), np.float32)
assert (double(x) == 2.0).all()
class Late:
    def __del__(self, double=double, x=x):
        double(x)
late = Late()
"""


def test_steps_while_the_interpreter_ends() -> None:
    environment = dict(os.environ, PYTHONPATH=os.pathsep.join(sys.path))
    run = subprocess.run(
        [sys.executable, "-c", _AT_EXIT],
        capture_output=True,
        text=True,
        env=environment,
        check=True,
        timeout=120,
    )
    assert run.stdout.split() == ["last"]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_a_label_out_of_range_is_found_by_whoever_looks_at_it(workers: int) -> None:
    table, labels = np.arange(10, dtype=np.float32), np.arange(5000) % 10
    fn = gp.compile(lambda t, y: ops.sum(ops.gather(t, y)), backend=NumbaBackend(workers=workers))
    for where in (0, 1600, 1700, 2499, 2500, 3400, 4999):
        bad = labels.copy()
        bad[where] = 10
        with pytest.raises(DataError, match="10"):
            fn(table, bad)
        assert fn(table, labels) == 4.5 * 5000


def test_large_single_calls_use_all_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    """Trying one worker again, now and then, would be most of the time."""
    monkeypatch.setenv("GPUBP_NUM_THREADS", "2")
    backend = NumbaBackend()
    used: list[int] = []
    run = backend._pool.run
    square = gp.compile(lambda a: ops.sum(a @ a), backend=backend)
    monkeypatch.setattr(backend._pool, "run", lambda at, n: used.append(n) or run(at, n))
    x = np.ones((500, 500), np.float32)
    for _ in range(6):
        assert square(x) == 500.0**3
        threading.Event().wait(0.03)
    assert used == [2] * 6


def test_two_backends_take_turns() -> None:
    """Each with helpers of its own, on fewer processors than there are threads."""
    x = np.arange(4096, dtype=np.float32).reshape(64, 64)
    steps = [
        gp.compile(lambda x, n=n: x * float(n), backend=NumbaBackend(workers=n)) for n in (2, 3, 5)
    ]
    for _ in range(200):
        for n, step in zip((2, 3, 5), steps):
            assert_same(step(x), x * n)


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform has no fork")
@pytest.mark.filterwarnings("ignore:.*fork.*:DeprecationWarning")
def test_a_forked_child_trains() -> None:
    backend = NumbaBackend(workers=2)
    wanted = _trained(backend)
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        os.close(reading)
        found = _trained(backend)
        same = all(np.array_equal(found[name], wanted[name]) for name in wanted)
        os.write(writing, b"same" if same else b"differs")
        os._exit(0)
    os.close(writing)
    with os.fdopen(reading, "rb") as pipe:
        assert pipe.read() == b"same"
    os.waitpid(child, 0)
    _assert_equal(_trained(backend), wanted)


def test_num_threads_is_respected(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBP_NUM_THREADS", "3")
    assert max_workers() == 3
    assert NumbaBackend.probe().details["threads"] == "3"
    used: list[int] = []
    backend = NumbaBackend()
    run = backend._pool.run
    monkeypatch.setattr(backend._pool, "run", lambda context, n: used.append(n) or run(context, n))
    square = np.ones((600, 600))  # enough for all workers without trying one first
    gp.compile(lambda a, b: a @ b, backend=backend)(square, square)
    assert used == [3]


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5"])
def test_num_threads_is_validated(value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("GPUBP_NUM_THREADS", value)
    with pytest.raises(DataError, match=f"GPUBP_NUM_THREADS is {value!r}.*positive integer"):
        max_workers()


def test_one_thread_starts_no_thread() -> None:
    code = (
        "import threading, numpy as np, gpubp as gp\n"
        "f = gp.compile(lambda a: a @ a, backend='numba')\n"
        "f(np.ones((400, 400)))\n"
        "print(threading.active_count())"
    )
    environment = dict(os.environ, GPUBP_NUM_THREADS="1", PYTHONPATH=os.pathsep.join(sys.path))
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, env=environment, check=True
    )
    assert run.stdout.strip() == "1"
