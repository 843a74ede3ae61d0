"""The compiled training step behind an estimator, kept for the next fit of the same kind.

Comes in: an estimator's weights, scikit-learn's optimiser object, arrays. Goes out: the same,
trained, and the loss of every step. Estimators never hold an engine, so their pickles are plain
arrays; an engine is borrowed for one fit, and idle ones wait in a small pool: a grid search traces
each architecture once. One with a loss of the user's own is not kept: nobody can tell whether the
function, or a number that it reads, is still what was traced.
"""

from __future__ import annotations

import os
import threading
from collections import OrderedDict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from gpubp import ops
from gpubp.core.store import Slot
from gpubp.ops.random import Generator
from gpubp.runtime.step import Step
from gpubp.sklearn.network import Network, data_loss, forward, penalty
from gpubp.sklearn.rules import RULES, RuleOptions

MAX_IDLE = 8
MAX_BATCH_SIZES = 16  # programs of one engine; then it is not kept

Arrays = Sequence[NDArray[Any]]


class Trained:
    """What a step trains: slots of its own, the loss and the rule.

    Args:
        network: the architecture.
        rule: the update.
    """

    def __init__(self, network: Network, rule: RuleOptions) -> None:
        self.network = network
        dtype = np.dtype(network.dtype)
        self.coefs = [
            Slot(f"coefs_[{i}]", np.zeros(shape), dtype) for i, shape in enumerate(network.shapes)
        ]
        self.intercepts = [
            Slot(f"intercepts_[{i}]", np.zeros(shape[1]), dtype)
            for i, shape in enumerate(network.shapes)
        ]
        self.alpha = Slot("alpha", 0.0, np.float64)
        self.generator = Generator(0)
        self.rule = RULES[rule.name](rule, self.coefs, self.intercepts, lambda: self._shrink)
        self._shrink: Any = None

    def loss(self, X: Any, y: Any, weights: Any = None) -> Any:
        network = self.network
        generator = self.generator if network.dropout else None
        z = forward(network, X, self.coefs, self.intercepts, generator)
        loss, share = data_loss(network, z, y, weights)
        if not network.penalized:
            return loss
        alpha = ops.astype(self.alpha, z.dtype)
        self._shrink = ops.multiply(alpha, share)
        # The rule adds the penalty's gradient: it knows the weights when it updates them.
        size = ops.stop_gradient(penalty(self.coefs))
        return ops.add(loss, ops.multiply(size, ops.multiply(self._shrink, 0.5)))

    def put(self, coefs: Arrays, intercepts: Arrays, optimizer: Any) -> None:
        """Take over weights and state, which must have been prepared."""
        for slot, value in zip([*self.coefs, *self.intercepts], [*coefs, *intercepts], strict=True):
            slot.value = value
        self.rule.load(optimizer)

    def save(self, coefs: Arrays, intercepts: Arrays) -> None:
        """Write the weights into the estimator's own arrays."""
        for slot, value in zip([*self.coefs, *self.intercepts], [*coefs, *intercepts], strict=True):
            value[...] = slot.value


class Engine(Trained):
    """One network and its step.

    Args:
        network, rule: of `Trained`.
        backend, device: as for `gp.compile_step`.
    """

    def __init__(
        self, network: Network, rule: RuleOptions, backend: str | None, device: str | None
    ) -> None:
        super().__init__(network, rule)
        self.step = Step(self.loss, self.rule, backend, device)
        self.sizes: set[int] = set()
        self._checked: Any = None

    def load(self, coefs: Arrays, intercepts: Arrays, optimizer: Any, batch: Arrays) -> None:
        """Take over weights and state; `batch`: arrays as they will come, to compile for."""
        self.step.prepare(*batch)
        self.put(coefs, intercepts, optimizer)
        self._checked = None

    def run(self, data: Arrays, orders: NDArray[np.int64], batch_size: int) -> NDArray[Any]:
        """Train one epoch for each row of `orders`; returns the losses, (epochs, steps).

        The values of the fit's data are looked at in its first call; chunks are other data.
        """
        self.sizes.update((batch_size, orders.shape[1] % batch_size))
        known = self._checked is data[0]
        losses: NDArray[Any] = self.step.run(
            *data, batch_size=batch_size, order=orders, checked=known
        )
        self._checked = data[0]
        return losses.reshape(len(orders), -1)


class Kept(Protocol):
    """What a pool keeps: an engine, or a crew."""

    network: Network
    sizes: set[int]


K = TypeVar("K", bound=Kept)


class Pool(Generic[K]):
    """Idle engines by key, the least recently used given up first.

    Args:
        make: makes one from what the key consists of.
    """

    def __init__(self, make: Callable[..., K]) -> None:
        self._make = make
        self.start_anew()
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(after_in_child=self.start_anew)

    @contextmanager
    def borrow(self, key: tuple[Any, ...]) -> Iterator[K]:
        """An engine for one fit; nobody else has it meanwhile."""
        with self._lock:
            waiting = self._idle.get(key)
            engine = waiting.pop() if waiting else None
        if engine is None:
            engine = self._make(*key)
        yield engine  # not given back if the fit fails
        if engine.network.is_ours and len(engine.sizes) <= MAX_BATCH_SIZES:
            self._give_back(key, engine)

    def _give_back(self, key: tuple[Any, ...], engine: K) -> None:
        with self._lock:
            self._idle.setdefault(key, []).append(engine)
            self._idle.move_to_end(key)
            while sum(map(len, self._idle.values())) > MAX_IDLE:
                oldest = next(iter(self._idle))
                if self._idle[oldest]:
                    self._idle[oldest].pop(0)
                if not self._idle[oldest]:
                    del self._idle[oldest]

    def clear(self) -> None:
        """Forget all idle engines."""
        with self._lock:
            self._idle.clear()

    def start_anew(self) -> None:
        """Be empty and unlocked: a forked child may find the lock held by a thread it has not."""
        self._lock = threading.Lock()
        self._idle: OrderedDict[tuple[Any, ...], list[K]] = OrderedDict()


pool = Pool(Engine)
