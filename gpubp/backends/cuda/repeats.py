"""Whole runs in one launch: a graph whose only node repeats the steps of a pattern, while a word on
the device says so (conditional nodes, CUDA 12.4).

Comes in: the tasks of a pattern of steps, and how often. Goes out: what launches them all. Holds in
between: a counter in device memory, which counts down once a round and begins anew by itself, so a
launch needs nothing from the host.
"""

from __future__ import annotations

import struct
from collections.abc import Sequence

import numpy as np

from gpubp.backends.cuda.branches import MOST_LANES, MOST_TASKS, Access, Task, planned
from gpubp.backends.cuda.drivers.base import Driver
from gpubp.backends.cuda.drivers.recordings import LoopingDriver
from gpubp.backends.cuda.executor import Executor
from gpubp.backends.cuda.products import Work
from gpubp.backends.cuda.sources import read
from gpubp.backends.cuda.switches import switch
from gpubp.errors import BackendError


def loop_asked(driver: Driver) -> bool:
    """GPUBP_LOOP is 1: runs are repeated by the device where they can be.

    Raises:
        UnknownNameError: it is something else.
        BackendError: it is 1, and the driver or the device cannot do that.
    """
    asked = switch("GPUBP_LOOP") == "1"
    if asked and not (isinstance(driver, LoopingDriver) and driver.loops):
        raise BackendError(
            f"GPUBP_LOOP=1, but {driver.name} has no loops in graphs: they need a driver of CUDA "
            '12.4 and backend="numba_cuda" (CuPy has none).'
        )
    return asked


def repeatable(tasks: Sequence[Task]) -> bool:
    """They can be a round: libraries and users' kernels are bound to a stream of their own."""
    return len(tasks) <= MOST_TASKS and not any(task.pinned for task in tasks)


def repeated(tasks: Sequence[Task], times: int, executor: Executor, asked: str = "") -> Work:
    """What launches these tasks so many times, as one graph.

    Args:
        tasks: of a round, which are `repeatable`.
        times: rounds.
        executor: of the device, whose driver has `loops`.
        asked: whether there are branches; see `branches.setting`.
    """
    driver = executor.driver
    assert isinstance(driver, LoopingDriver)
    kernel = executor.kernel(read("repeat.cu"), "repeat_steps")
    counter = driver.allocate(8)
    driver.upload(counter.address, np.array([times], np.int64))
    handle = 0

    def enter(given: int) -> None:
        nonlocal handle
        handle = given

    def count() -> None:
        params = struct.pack("<QqQ", counter.address, times, handle)
        driver.launch(kernel, (1, 1, 1), (1, 1, 1), 0, params)

    last = Task(count, 1, (Access(("left", counter.address), 0, 8, True),), name="repeat_steps")
    # Behind the first: it is out of the way of the others, on a lane of its own.
    round_ = [tasks[0], last, *tasks[1:]]
    plan = planned(round_, 1 if asked == "0" else MOST_LANES)
    launch = driver.record_loop(plan.nodes(round_, executor.early), enter)

    def run() -> None:
        assert counter.address  # kept as long as the graph
        launch()

    return run
