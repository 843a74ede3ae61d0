"""A line search that ends where the strong Wolfe conditions hold, as torch.optim.LBFGS has it.

Nocedal & Wright, "Numerical Optimization", 2006, algorithms 3.5 and 3.6: steps grow until they
bracket a good one, then the bracket is narrowed by cubic interpolation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

LESS = 1e-4  # the share of the decrease that the slope promises (Armijo)
FLATTER = 0.9  # the share of the slope that may be left (curvature)
NARROW = 1e-9  # a bracket whose ends move no parameter by more is narrow enough

# The loss and the flat gradient after a step of so much along the direction.
Evaluate = Callable[[float], tuple[float, NDArray[Any]]]


class Trial(NamedTuple):
    """A step that was tried.

    Attributes:
        t: its length, in units of the direction.
        loss, grad: there.
        slope: of the loss along the direction.
    """

    t: float
    loss: float
    grad: NDArray[Any]
    slope: float


class StrongWolfe:
    """One search.

    Args:
        evaluate: the loss and the gradient along the direction.
        direction: flat.
        start: the trial at 0, whose slope is below 0.
        most: how many trials follow the first one at most.

    Attributes:
        evaluations: trials made.
    """

    def __init__(
        self, evaluate: Evaluate, direction: NDArray[Any], start: Trial, most: int
    ) -> None:
        self._evaluate, self._direction = evaluate, direction
        self._start, self._most = start, most
        self.evaluations = 0

    def run(self, t: float) -> Trial:
        """The step to take, where `t` is tried first."""
        bracket = self._bracket(t)
        return bracket[0] if len(bracket) == 1 else self._narrowed(bracket)

    @property
    def _left(self) -> bool:
        return self.evaluations <= self._most

    def _trial(self, t: float) -> Trial:
        loss, grad = self._evaluate(t)
        self.evaluations += 1
        return Trial(t, loss, grad, float(grad.dot(self._direction)))

    def _too_high(self, trial: Trial) -> bool:
        return trial.loss > self._start.loss + LESS * trial.t * self._start.slope

    def _is_flat(self, trial: Trial) -> bool:
        return abs(trial.slope) <= -FLATTER * self._start.slope

    def _bracket(self, t: float) -> list[Trial]:
        """Two trials around a good step, or a good step alone."""
        before, new = self._start, self._trial(t)
        while self._left:
            risen = self.evaluations > 2 and new.loss >= before.loss
            if self._too_high(new) or risen:
                return [before, new]
            if self._is_flat(new):
                return [new]
            if new.slope >= 0:
                return [before, new]
            least, largest = new.t + 0.01 * (new.t - before.t), 10.0 * new.t
            before, new = new, self._trial(_cubic_minimum(before, new, least, largest))
        return [self._start, new]

    def _narrowed(self, ends: list[Trial]) -> Trial:
        """The best step inside a bracket."""
        longest = float(np.abs(self._direction).max())
        low = 0 if ends[0].loss <= ends[1].loss else 1
        stuck = False
        while self._left and not abs(ends[1].t - ends[0].t) * longest < NARROW:
            t, stuck = _inside(ends, stuck)
            new = self._trial(t)
            if self._too_high(new) or new.loss >= ends[low].loss:
                ends[1 - low] = new
                low = 0 if ends[0].loss <= ends[1].loss else 1
                continue
            done = self._is_flat(new)
            if not done and new.slope * (ends[1 - low].t - ends[low].t) >= 0:
                ends[1 - low] = ends[low]
            ends[low] = new
            if done:
                break
        return ends[low]


def _inside(ends: list[Trial], stuck: bool) -> tuple[float, bool]:
    """The next step to try in a bracket; and whether it is near an end, as the last one was not.

    A second one in a row is moved away from the end, so that the bracket shrinks.
    """
    least, largest = sorted((ends[0].t, ends[1].t))
    t = _cubic_minimum(ends[0], ends[1], least, largest)
    apart = 0.1 * (largest - least)
    if min(largest - t, t - least) >= apart:
        return t, False
    if not stuck and least < t < largest:
        return t, True
    return (largest - apart if abs(t - largest) < abs(t - least) else least + apart), False


def _cubic_minimum(a: Trial, b: Trial, least: float, largest: float) -> float:
    """Where the cubic through two trials, with their slopes, is lowest; between the limits.

    Their middle where the cubic has no minimum.
    """
    with np.errstate(all="ignore"):  # equal trials: no number comes out, and the middle is taken
        x1, f1, g1 = map(np.float64, (a.t, a.loss, a.slope))
        x2, f2, g2 = map(np.float64, (b.t, b.loss, b.slope))
        d1 = g1 + g2 - 3.0 * (f1 - f2) / (x1 - x2)
        square = d1 * d1 - g1 * g2
        if not square >= 0.0:
            return (least + largest) / 2.0
        d2 = math.sqrt(square)
        if x1 <= x2:
            found = x2 - (x2 - x1) * ((g2 + d2 - d1) / (g2 - g1 + 2.0 * d2))
        else:
            found = x1 - (x1 - x2) * ((g1 + d2 - d1) / (g1 - g2 + 2.0 * d2))
    return min(max(float(found), least), largest)
