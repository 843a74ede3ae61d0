"""scikit-learn's update rules, as a step wants them (`gpubp.runtime.settings.StepOptimizer`).

Comes in: the gradients of the loss without its penalty. Goes out: (slot, new value) pairs. State
lives in slots between calls, and moves to and from scikit-learn's own optimiser objects.

They differ from `gpubp.optim`: Adam's epsilon stands outside the bias correction, the velocity of
SGD holds the learning rate, and the penalty touches weights only, scaled by the batch at hand.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gpubp import ops
from gpubp.core import Array
from gpubp.core.store import Slot, siblings
from gpubp.ops import update
from gpubp.runtime.update import clip_by_global_norm

Update = list[tuple[Slot, Array]]


@dataclass(frozen=True)
class RuleOptions:
    """What is baked into a program: the rule and its constants.

    Attributes:
        name: "adam" or "sgd".
        numbers: (beta_1, beta_2, epsilon), or (momentum,).
        nesterov: SGD looks ahead.
        max_grad_norm: clip the joint norm of all gradients, the penalty's included.
    """

    name: str
    numbers: tuple[float, ...]
    nesterov: bool = False
    max_grad_norm: float | None = None


def options_of(optimizer: Any, max_grad_norm: float | None) -> RuleOptions:
    """The options of one of scikit-learn's optimiser objects."""
    if hasattr(optimizer, "velocities"):
        momentum = (float(optimizer.momentum),)
        return RuleOptions("sgd", momentum, bool(optimizer.nesterov), max_grad_norm)
    numbers = (float(optimizer.beta_1), float(optimizer.beta_2), float(optimizer.epsilon))
    return RuleOptions("adam", numbers, False, max_grad_norm)


class Rule(ABC):
    """Base of the rules.

    Args:
        options: the constants.
        coefs: slots of the weights.
        intercepts: slots of the biases.
        shrink: called while tracing, after the loss: the factor of the weights in their gradient
            (alpha over the batch's weight), or None without a penalty.

    Attributes:
        lr: float64 slot: the learning rate.
        state: slots beside the parameters, by name.
    """

    state_names: tuple[str, ...] = ()

    def __init__(
        self,
        options: RuleOptions,
        coefs: Sequence[Slot],
        intercepts: Sequence[Slot],
        shrink: Callable[[], Any],
    ) -> None:
        self.options = options
        self.coefs = list(coefs)
        self.slots = [*coefs, *intercepts]
        self.lr = Slot("lr", 0.0, np.float64)
        self.state: dict[str, list[Slot]] = {}
        self._shrink = shrink

    def parameters(self) -> list[Slot]:
        """Weights, then biases."""
        return self.slots

    def prepare(self) -> None:
        """Make the state beside the parameters, once these have their bank."""
        for name in self.state_names:
            if name not in self.state:
                self.state[name] = siblings(name, self.slots)

    def emit(self, grads: dict[int, Array]) -> Update:
        """Append the update to the trace."""
        shrink = self._shrink()
        found = [grads[id(slot)] for slot in self.slots]
        if shrink is not None:
            for i, W in enumerate(self.coefs):
                found[i] = ops.add(found[i], ops.multiply(W, shrink))
        if self.options.max_grad_norm is not None:
            found = clip_by_global_norm(found, self.options.max_grad_norm)
        return self._update(found)

    @abstractmethod
    def _update(self, grads: Sequence[Array]) -> Update: ...

    @abstractmethod
    def load(self, optimizer: Any) -> None:
        """Take over the state of scikit-learn's object."""

    @abstractmethod
    def save(self, optimizer: Any) -> None:
        """Give the state back."""

    def _fill(self, name: str, values: Sequence[Any]) -> None:
        for slot, value in zip(self.state[name], values, strict=True):
            slot.value = value

    def _copies(self, name: str) -> list[Any]:
        return [slot.value.copy() for slot in self.state[name]]


class AdamRule(Rule):
    """w <- w - lr_t m / (sqrt(v) + epsilon), lr_t = lr sqrt(1 - beta_2^t) / (1 - beta_1^t).

    The form before section 2.1 of Kingma & Ba, "Adam" (2015), as AdamOptimizer of
    sklearn.neural_network._stochastic_optimizers.
    """

    state_names = ("ms", "vs")

    def prepare(self) -> None:
        """Also the count of the steps."""
        super().prepare()
        if "t" not in self.state:
            self.state["t"] = [Slot("t", 0, np.int64)]

    def _update(self, grads: Sequence[Array]) -> Update:
        beta_1, beta_2, epsilon = self.options.numbers
        counter = self.state["t"][0]
        count = ops.add(counter, 1)
        t = ops.astype(count, np.float64)
        root = ops.sqrt(ops.subtract(1.0, ops.power(np.float64(beta_2), t)))
        bias = ops.subtract(1.0, ops.power(np.float64(beta_1), t))
        rate = ops.divide(ops.multiply(self.lr, root), bias)
        updates: Update = [(counter, count)]
        for i, (slot, g) in enumerate(zip(self.slots, grads)):
            m = update.ema(self.state["ms"][i], g, beta_1)
            v = update.ema_square(self.state["vs"][i], g, beta_2)
            size, one = ops.astype(rate, slot.dtype), np.ones((), slot.dtype)
            new = update.adam(slot, m, v, size, one, epsilon)
            updates += [(self.state["ms"][i], m), (self.state["vs"][i], v), (slot, new)]
        return updates

    def load(self, optimizer: Any) -> None:
        """Take over the moments, the count and the initial rate."""
        self._fill("ms", optimizer.ms)
        self._fill("vs", optimizer.vs)
        self.state["t"][0].value = np.int64(optimizer.t)
        self.lr.value = np.float64(optimizer.learning_rate_init)

    def save(self, optimizer: Any) -> None:
        """Give them back, and the rate of the last step."""
        optimizer.ms, optimizer.vs = self._copies("ms"), self._copies("vs")
        optimizer.t = int(self.state["t"][0].value)
        beta_1, beta_2, _ = self.options.numbers
        if optimizer.t:
            root = np.sqrt(1 - beta_2**optimizer.t)
            optimizer.learning_rate = (
                optimizer.learning_rate_init * root / (1 - beta_1**optimizer.t)
            )


class SGDRule(Rule):
    """v <- momentum v - lr g, then w <- w + v, or w + (momentum v - lr g) looking ahead.

    Sutskever et al. (2013), as SGDOptimizer of sklearn.neural_network._stochastic_optimizers.
    """

    state_names = ("velocities",)

    def _update(self, grads: Sequence[Array]) -> Update:
        momentum = self.options.numbers[0]
        updates: Update = []
        for slot, velocity, g in zip(self.slots, self.state["velocities"], grads):
            rate = ops.astype(self.lr, slot.dtype)
            if momentum == 0.0:
                updates.append((slot, update.sgd(slot, g, rate)))
                continue
            step = ops.multiply(g, rate)
            new = ops.subtract(ops.multiply(velocity, momentum), step)
            ahead = ops.subtract(ops.multiply(new, momentum), step)
            change = ahead if self.options.nesterov else new
            updates += [(velocity, new), (slot, ops.add(slot, change))]
        return updates

    def load(self, optimizer: Any) -> None:
        """Take over the velocities and the rate."""
        self._fill("velocities", optimizer.velocities)
        self.lr.value = np.float64(optimizer.learning_rate)

    def save(self, optimizer: Any) -> None:
        """Give the velocities back; without momentum they play no part, and stay."""
        if self.options.numbers[0] != 0.0:
            optimizer.velocities = self._copies("velocities")


RULES: dict[str, type[Rule]] = {"adam": AdamRule, "sgd": SGDRule}
