"""The checkpoint of a run: when it may be written, and what is added at the run's end.

Holds: the file never loses a good state to one that has diverged; and where callbacks end a run
with other weights than its last ones (the best), the file gives these to whoever asks for a model.
"""

from __future__ import annotations

import logging
import os
from typing import Any

from numpy.typing import NDArray

from gpubp.errors import warn
from gpubp.train.plan import Plan
from gpubp.train.run import Run
from gpubp.train.tensorfile import Path_

_LOG = logging.getLogger(__name__)


class Saver:
    """Writes a plan's checkpoint; does nothing for a plan without one.

    Args:
        run: whose state it is.
        plan: names the file, and what to keep with it.
    """

    def __init__(self, run: Run, plan: Plan) -> None:
        self._run = run
        self._plan = plan
        self._path = plan.checkpoint if run.ranks.leads else None
        self._follows = plan.checkpoint is not None and not run.ranks.leads and run.ranks.divide
        self._last: dict[str, NDArray[Any]] = {}
        self._written_at: int | None = None
        self._warned = False

    def check(self) -> None:
        """Raise CheckpointError if there is something that cannot be saved, before any step."""
        if self._path is not None:
            from gpubp.train import checkpoint

            checkpoint.check_savable(self._run, self._plan.extra)
            if self._plan.resume is not None and _same(self._plan.resume, self._path):
                self._written_at = self._run.state.steps

    def save(self, spoiled: bool) -> None:
        """Write the state, unless the run has diverged.

        Args:
            spoiled: a loss of the epoch so far is NaN or infinite.
        """
        if self._path is None:
            if self._follows and self._unfit(spoiled) is None:
                self._run.optimizer.state_dict()  # rank 0 puts all parts together
            return
        why = self._unfit(spoiled)
        if why is None:
            self._run.save(self._path, self._plan.extra)
            self._written_at = self._run.state.steps
            _LOG.info("%s holds the state after step %d", self._path, self._written_at)
        elif not self._warned:
            self._warned = True
            kept = "nothing was saved before"
            if self._written_at is not None:
                kept = f"it keeps the state of step {self._written_at}"
            warn(
                f"{self._path} was not written after step {self._run.state.steps}, because {why}: "
                f"{kept}."
            )

    def _unfit(self, spoiled: bool) -> str | None:
        run = self._run
        if run.state.diverged:
            return f"the run diverged ({run.state.stop_reason})"
        if not run.weights_are_finite():
            return "weights are not finite"
        if run.step.apart:
            return "its state is on several ranks, until they have met again"
        # Updates with gradients that are not finite are skipped where the loss is scaled.
        if spoiled and run.step.settings.loss_scale is None:
            return "a loss of the epoch is not finite"
        return None

    def before_end(self) -> None:
        """Call it when the last step is done, before callbacks end the run."""
        if self._path is not None:
            self._last = self._run.model.state_dict()

    def after_end(self) -> None:
        """Add the weights that the run ended with, if callbacks have put others in place."""
        if self._path is None or self._written_at is None:
            return
        now = self._run.model.state_dict()
        if any(now[name].tobytes() != array.tobytes() for name, array in self._last.items()):
            from gpubp.train import checkpoint

            checkpoint.add_ended(self._path, now)


def _same(a: Path_, b: Path_) -> bool:
    return str(os.path.realpath(a)) == str(os.path.realpath(b))
