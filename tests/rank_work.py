"""Training that ranks share, to be compared with training on one rank."""

from __future__ import annotations

import threading
from typing import Any

import numpy as np

import gpubp as gp
from gpubp import nn, optim
from gpubp.distributed import Communicator, DataParallel, run_threads

_default_generator = threading.Lock()  # weights of all threads are drawn from it
X = np.random.default_rng(5).normal(size=(50, 6))
Y = np.random.default_rng(6).integers(0, 3, 50)


def seeded(make: Any, seed: int = 0) -> Any:
    """What `make()` makes after the default generator was seeded, in any thread."""
    with _default_generator:
        gp.manual_seed(seed)
        return make()


def parallel(communicator: Communicator | None, **options: Any) -> Any:
    """What a step takes; None for no communicator at all."""
    return None if communicator is None else DataParallel(communicator, **options)


def classifier(*between: Any, dtype: str = "float64", rule: Any = optim.Adam) -> Any:
    """(model, optimizer) of two layers."""
    model = seeded(
        lambda: nn.Sequential(
            nn.Linear(6, 8, dtype=dtype), *[b() for b in between], nn.Tanh(),
            nn.Linear(8, 3, dtype=dtype),
        )
    )  # fmt: skip
    return model, rule(model.parameters(), lr=0.01)


def step_of(communicator: Any, model: Any, optimizer: Any, **options: Any) -> Any:
    """The step of a classifier."""
    return gp.compile_step(
        lambda a, b: nn.CrossEntropyLoss()(model(a), b),
        optimizer,
        communicator=communicator,
        backend="numpy",
        **options,
    )


def trained(
    communicator: Communicator | None,
    *between: Any,
    options: dict[str, Any] | None = None,
    dtype: str = "float64",
    rule: Any = optim.Adam,
    loss_fn: Any = None,
    y: Any = Y,
    single: bool = True,
    batch_size: int = 16,
    backend: str = "numpy",
    **step_options: Any,
) -> dict[str, Any]:
    """Losses and state after three epochs, whose last batches are shorter, and a batch of three."""
    model, optimizer = classifier(*between, dtype=dtype, rule=rule)
    loss_fn = loss_fn or nn.CrossEntropyLoss()
    made = parallel(communicator, **(options or {}))
    step = gp.compile_step(
        lambda a, b: loss_fn(model(a), b),
        optimizer,
        communicator=made,
        backend=backend,
        **step_options,
    )
    losses = step.run(X, y, batch_size=batch_size, epochs=3)
    found = {"losses": losses, "totals": step.totals}
    if single:
        found["single"] = step(X[:3], y[:3])
    return {**found, **model.state_dict()}


def on_ranks(size: int, *args: Any, **kwargs: Any) -> list[dict[str, Any]]:
    """What `trained` gives on each of so many ranks."""
    return list(run_threads(size, lambda c: trained(c, *args, **kwargs), timeout=60))


def assert_same_bits(found: dict[str, Any], expected: dict[str, Any]) -> None:
    for name, value in expected.items():
        np.testing.assert_array_equal(found[name], value, err_msg=name)


def assert_close(found: dict[str, Any], expected: dict[str, Any], atol: float = 1e-12) -> None:
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=atol, err_msg=name)


class Recorder:
    """A communicator that writes down what is asked of it, and when it is done."""

    def __init__(self, communicator: Any, events: list[str]) -> None:
        self._inner, self.events = communicator, events
        self.name, self.rank, self.size = communicator.name, communicator.rank, communicator.size

    def _noted(self, name: str, array: Any, *args: Any) -> Any:
        self.events.append(f"{name} {array.size}")
        return getattr(self._inner, name)(array, *args)

    def all_reduce(self, array: Any) -> None:
        self._noted("all_reduce", array)

    def broadcast(self, array: Any, root: int = 0) -> None:
        self._noted("broadcast", array, root)

    def gather(self, array: Any) -> Any:
        return self._noted("gather", array)

    def barrier(self) -> None:
        self._inner.barrier()

    def close(self) -> None:
        self._inner.close()

    def start_all_reduce(self, array: Any) -> Any:
        return self._started("all_reduce", array)

    def start_reduce_scatter(self, rows: Any) -> Any:
        return self._started("reduce_scatter", rows)

    def _started(self, name: str, array: Any) -> Any:
        request = self._noted(f"start_{name}", array)
        return Waited(request, self.events, f"wait_{name} {array.size}")


class Waited:
    """A request that writes down when it is waited for."""

    def __init__(self, request: Any, events: list[str], note: str) -> None:
        self._request, self._events, self._note = request, events, note

    def wait(self) -> None:
        self._events.append(self._note)
        self._request.wait()
