"""Training that is run in other processes and threads, where it must give the same bits."""

from __future__ import annotations

import itertools
import os
import threading
from typing import Any

import numpy as np

import gpubp as gp
from gpubp import nn, optim
from gpubp.backends.numba_cpu import NumbaBackend

Result = dict[str, np.ndarray]
_weights = threading.Lock()  # the default generator that seeds the weights is shared
if hasattr(os, "register_at_fork"):  # a child forked while a thread holds it would wait for ever
    os.register_at_fork(
        before=_weights.acquire, after_in_parent=_weights.release, after_in_child=_weights.release
    )


def trained(seed: int = 0, workers: int | None = 2, rule: str = "adam") -> Result:
    """Losses and parameters of a small classifier after three epochs."""
    with _weights:
        gp.manual_seed(seed)
        layers: list[Any] = []
        for a, b in itertools.pairwise((37, 53, 29, 7)):
            layers += [nn.Linear(a, b), nn.ReLU()]
        model = nn.Sequential(*layers[:-1])
    loss_fn = nn.CrossEntropyLoss()
    params = model.parameters()
    made = optim.Adam(params, lr=0.01) if rule == "adam" else optim.SGD(params, 0.05, momentum=0.9)
    step = gp.compile_step(
        lambda x, y: loss_fn(model(x), y), made, backend=NumbaBackend(workers=workers)
    )
    rng = np.random.default_rng(seed)
    x, y = rng.normal(size=(205, 37)).astype(np.float32), rng.integers(0, 7, 205)
    losses = step.run(x, y, batch_size=77, epochs=3, seed=1)
    singles = np.array([step(x[:50], y[:50]) for _ in range(3)])
    return {"losses": losses, "singles": singles, **model.state_dict()}


def send(queue: Any, *args: Any) -> None:
    """Train and put the result, with this process's number, into a queue."""
    queue.put((os.getpid(), trained(*args)))


def growth(batches: int, repeats: int, single: bool) -> int:
    """Bytes of memory that a process gains while it trains, after a warm-up."""
    gp.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 16), nn.Tanh(), nn.Linear(16, 2))
    loss_fn = nn.CrossEntropyLoss()
    step = gp.compile_step(
        lambda x, y: loss_fn(model(x), y), optim.Adam(model.parameters()), backend="numba"
    )
    rng = np.random.default_rng(0)
    x, y = rng.normal(size=(32 * batches, 2)).astype(np.float32), rng.integers(0, 2, 32 * batches)

    def work() -> None:
        if not single:
            step.run(x, y, batch_size=32)
            return
        for i in range(0, len(x), 32):
            step(x[i : i + 32], y[i : i + 32])

    for _ in range(max(2, repeats // 10)):
        work()
    before = _resident()
    for _ in range(repeats):
        work()
    return _resident() - before


def _resident() -> int:
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
