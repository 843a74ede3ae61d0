"""gpubp's kernels: a program with one of them, repeated inside one native call."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

import gpubp as gp
from common.case import Case, NotSupportedError
from common.kernel_tasks import BETA1, BETA2, CHAIN, EPS, LR, RUN_SECONDS, KernelTask
from gpubp import ops, optim
from gpubp.backends import Backend, Feed, get_backend
from gpubp.backends.numba_cpu import NumbaBackend
from gpubp.backends.numba_cpu.pool import max_workers
from gpubp.compiler.pipeline import compile_graph
from gpubp.compiler.trace import trace
from gpubp.core import ArrayType
from gpubp.core.store import Slot, pack
from gpubp.nn import Parameter

Function = Callable[..., list[Any]]

_FUNCTIONS: dict[str, Function] = {
    "X @ W": lambda X, W: [X @ W],
    "X.T @ dY": lambda X, dY: [X.T @ dY],
    "dY @ W.T": lambda dY, W: [dY @ W.T],
    "relu": lambda x: [ops.relu(x)],
    "sigmoid": lambda x: [ops.sigmoid(x)],
    "tanh": lambda x: [ops.tanh(x)],
    "gelu": lambda x: [ops.gelu(x)],
}


class RepeatedCase(Case):
    """A program run many times by one call of the backend; its results are written into slots.

    Args:
        fn: returns a list of traced arrays.
        arrays: its arguments.
        backend: what runs it.
        slots: where the results go, filled at the latest by `fn`; default new ones.
    """

    def __init__(
        self,
        fn: Function,
        arrays: Sequence[NDArray[Any]],
        backend: Backend,
        slots: list[Slot] | None = None,
    ) -> None:
        graph, _ = trace(fn, [ArrayType(a.shape, a.dtype) for a in arrays])
        if slots is None:
            slots = [Slot("result", np.zeros(n.shape, n.dtype)) for n in graph.outputs]
        graph.writes += list(zip(slots, graph.outputs, strict=True))
        graph.outputs = []
        pack("slots", [*graph.slots(), *slots])
        self._backend = backend
        self._slots = slots
        self._initial = [slot.value.copy() for slot in slots]
        self._feed = Feed(arrays, np.zeros(0, np.int64), [[]])
        self.program = compile_graph(graph)
        self._loaded = backend.load(self.program)
        self._repeats = 1
        self._calibrate()

    def _calibrate(self) -> None:
        self.run()
        start = time.perf_counter()
        self.run()
        self._repeats = max(1, round(RUN_SECONDS / (time.perf_counter() - start)))
        self.units = float(self._repeats)

    def reset(self) -> None:
        """Updates start from the same parameters each time."""
        for slot, value in zip(self._slots, self._initial, strict=True):
            slot.value = value

    def run(self) -> None:
        """All repetitions."""
        schedule = np.zeros((self._repeats, 2), np.int64)
        self._backend.run([self._loaded], schedule, self._feed)

    def check(self) -> NDArray[Any]:
        """The first result of a single run of the program."""
        self.reset()
        self._backend.run([self._loaded], np.zeros((1, 2), np.int64), self._feed)
        found: NDArray[Any] = self._slots[0].value.copy()
        return found


def _update_case(task: KernelTask, backend: Backend) -> Case:
    """An optimiser's update of one flat parameter from a given gradient."""
    values, gradient = task.inputs()
    parameter = Parameter(values)
    pack("params", [parameter])
    optimizer: Any = (
        optim.SGD([parameter], lr=LR)
        if task.name == "sgd"
        else optim.Adam([parameter], lr=LR, betas=(BETA1, BETA2), eps=EPS)
    )
    optimizer.prepare()
    slots: list[Slot] = []

    def update(g: Any) -> list[Any]:
        found = optimizer.emit({id(parameter): g})
        found.sort(key=lambda pair: pair[0] is not parameter)
        slots.extend(slot for slot, _ in found)
        return [value for _, value in found]

    return RepeatedCase(update, [gradient], backend, slots)


def _barrier_case(variant: str, task: KernelTask) -> Case:
    """Next to no work between barriers; one unit is one barrier."""
    if gp.default_backend_name() != "numba":
        raise NotSupportedError("only the numba backend has barriers")

    def chain(x: Any) -> list[Any]:
        for _ in range(CHAIN):
            x = x - ops.mean(x, axis=0, keepdims=True)
        return [x]

    x = np.zeros((2, task.size // 2), task.dtype)
    workers = 1 if variant == "one-worker" else max_workers()
    case = RepeatedCase(chain, [x], NumbaBackend(workers))
    case.units *= case.program.syncs
    return case


def build(variant: str, task: KernelTask) -> Case:
    """`gpubp`; for barriers `one-worker` and `all-workers`."""
    if task.group == "barrier":
        return _barrier_case(variant, task)
    if task.group == "updates":
        return _update_case(task, get_backend())
    return RepeatedCase(_FUNCTIONS[task.name], task.inputs(), get_backend())


def versions() -> dict[str, str]:
    """Of gpubp, with its backend."""
    return {"gpubp": gp.__version__, "gpubp backend": gp.default_backend_name()}
