"""The learning-rate range test.

L. N. Smith, "Cyclical learning rates for training neural networks" (WACV 2017), with the
exponential spacing that became usual.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpubp.arguments import checked
from gpubp.errors import DataError
from gpubp.runtime.arguments import Arguments
from gpubp.runtime.step import Step
from gpubp.runtime.totals import spoiled
from gpubp.train import inputs
from gpubp.train.evaluation import training_mode

if TYPE_CHECKING:
    from gpubp.train.trainer import Trainer

# The test ends when the smoothed loss is so many times its least.
DIVERGED = 4.0
SMOOTHING = 0.9


class LRFinder:
    """Trains for some steps with a growing learning rate, notes the losses, and undoes it all.

    Args:
        trainer: whose model, loss and optimiser are tried. Parameters, buffers, optimiser state,
            learning rates, momenta, random counters, averages, loss scale, modes, and gradients
            that wait for an update are as before afterwards. A schedule does not move at all.

    Attributes:
        rates: the learning rates tried.
        losses: the loss at each, smoothed by a moving average with bias correction.
    """

    @checked
    def __init__(self, trainer: Trainer) -> None:
        self.trainer = trainer
        self.rates: NDArray[np.float64] = np.zeros(0)
        self.losses: NDArray[np.float64] = np.zeros(0)

    @checked
    def find(
        self,
        X: Any,
        y: Any,
        batch_size: int = 32,
        min_lr: float = 1e-6,
        max_lr: float = 10.0,
        steps: int = 100,
    ) -> float:
        """Run the test.

        Args:
            X, y: as of `Trainer.fit`.
            batch_size: samples a step.
            min_lr, max_lr: between which rates grow by a constant factor.
            steps: how many, at least 10; fewer are taken if the loss diverges.

        Returns:
            The rate at which the loss falls most steeply over the logarithm of the rate.

        Raises:
            DataError: unusable data or numbers, or a loss that is not finite from the start.
        """
        if not 0 < min_lr < max_lr or steps < 10 or batch_size < 1:
            raise DataError(
                f"min_lr={min_lr}, max_lr={max_lr}, steps={steps}, batch_size={batch_size}: "
                "expected 0 < min_lr < max_lr, at least 10 steps and 1 sample."
            )
        arrays = inputs.checked(self.trainer, (X, y), ("X", "y"))
        size = min(batch_size, arrays.samples)
        rates = np.geomspace(min_lr, max_lr, steps)
        # A schedule in the step would move the rates, and might end before the test does.
        step = self.trainer.step.unscheduled()
        with training_mode(self.trainer.model):
            step.prepare(*arrays.rows(slice(size)).given())
            with self._undone(step):
                found = self._losses(step, arrays, size, rates)
        self.rates, self.losses = np.array([r for r, _ in found]), np.array([v for _, v in found])
        return self.suggestion()

    @contextmanager
    def _undone(self, step: Step) -> Iterator[None]:
        """Whatever the step writes, and the learning rates, are put back at the end."""
        groups = self.trainer.optimizer.param_groups
        saved = [(slot, slot.value.copy()) for slot in step.written_slots()]
        before = [group["lr"] for group in groups]
        try:
            yield
        finally:
            for slot, value in saved:
                slot.value = value
            for group, rate in zip(groups, before, strict=True):
                group["lr"] = rate

    def _losses(
        self, step: Step, arrays: Arguments, size: int, rates: NDArray[np.float64]
    ) -> list[tuple[float, float]]:
        rng = np.random.default_rng(self.trainer.seed)
        smooth, best = 0.0, math.inf
        found: list[tuple[float, float]] = []
        for rate in rates.tolist():
            for group in self.trainer.optimizer.param_groups:
                group["lr"] = rate
            batch = arrays.rows(rng.choice(arrays.samples, size, replace=False)).given()
            step.run(*batch, batch_size=size, shuffle=False, flush=False)
            loss = float(step.losses[0])
            if not math.isfinite(loss) and not spoiled(step.totals)[0]:
                continue  # nothing counted in this batch
            smooth = SMOOTHING * smooth + (1 - SMOOTHING) * loss
            corrected = smooth / (1 - SMOOTHING ** (len(found) + 1))
            if not math.isfinite(corrected) or corrected > DIVERGED * best:
                break
            found.append((rate, corrected))
            best = min(best, corrected)
        return found

    def suggestion(self) -> float:
        """The rate at the steepest fall. Raises DataError before `find`, or if nothing fell."""
        if len(self.losses) < 5:
            raise DataError(
                f"{len(self.losses)} usable losses are too few to choose a learning rate from."
            )
        slope = np.gradient(self.losses, np.log(self.rates))
        return float(self.rates[int(np.argmin(slope))])

    def plot(self, path: str | os.PathLike[str] | None = None) -> Any:
        """Draw the losses over the rates; returns the matplotlib figure.

        Args:
            path: a file to write it to.

        Raises:
            MissingExtraError: matplotlib is not installed.
        """
        from gpubp import pictures

        figure = pictures.new_figure("LRFinder.plot", 6.4, 4.8)
        axes = figure.add_subplot()
        axes.semilogx(self.rates, self.losses)
        axes.axvline(self.suggestion(), linestyle="--", label=f"{self.suggestion():.2e}")
        axes.set(xlabel="learning rate", ylabel="loss, smoothed")
        axes.legend()
        if path is not None:
            pictures.save(figure, path)
        return figure
