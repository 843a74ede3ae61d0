"""What is known of a fit before its first step: which numbers it will record, and what cannot work.

Comes in: a trainer that is about to train, its plan and its data. Goes out: nothing, or the error
that would have come after an epoch.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import CheckpointError, ShapeError
from gpubp.runtime.arguments import Arguments
from gpubp.train.inputs import Data
from gpubp.train.metrics import accuracy_by_itself
from gpubp.train.plan import Plan
from gpubp.train.run import Run
from gpubp.train.scheduling import check_length, check_owner, updates_left, watched


def check(run: Run, plan: Plan, data: Data) -> None:
    """Raise what the run would raise later; afterwards the trainer knows what it will record.

    Raises:
        DataError: a schedule that is too short, or watches what is not measured; metrics that the
            targets do not have.
        ShapeError: a last batch that the model does not take.
        CheckpointError: a checkpoint's folder that is not there.
    """
    _check_folder(plan)
    run.state.numbers = _numbers(run, data)
    check_owner(run.scheduler, run.optimizer)
    run.state.watched = watched(run.scheduler, run.monitor, run.state.numbers)
    _check_last_batch(run, plan, data)
    _check_schedule(run, plan, data)


def _check_folder(plan: Plan) -> None:
    if plan.checkpoint is not None:
        from pathlib import Path

        folder = Path(plan.checkpoint).parent
        if not folder.is_dir():
            raise CheckpointError(
                f"{plan.checkpoint} cannot be written: the folder {folder} is not there."
            )


def _numbers(run: Run, data: Data) -> list[str]:
    """The names in each record, in order; metrics that cannot be computed raise."""
    names = ["epoch", "loss", *run.numbers_of_loss]
    wanted = [metric.name for metric in data.metrics]
    if data.metrics and data.train is not None:
        _measured(run, data, data.train, data.rows)
        names += wanted
    if data.held_out is not None:
        by_itself = _measured(run, data, data.held_out, None)
        names += [f"val_{name}" for name in ("loss", *by_itself, *wanted)]
    return names


def _measured(
    run: Run, data: Data, arrays: Arguments, rows: NDArray[np.int64] | None
) -> Sequence[str]:
    """Check that metrics can be computed; the names of the numbers that come by themselves."""
    total = arrays.samples if rows is None else len(rows)
    outputs, numbers = run.evaluator.foreseen(arrays, total, run.floating)
    y = (arrays if rows is None else arrays.rows(rows)).parts()[1]
    run.evaluator.check(data.metrics, y, outputs)
    return [*numbers, *accuracy_by_itself(data.metrics, y, outputs)]


def _check_last_batch(run: Run, plan: Plan, data: Data) -> None:
    """Compile for the shortest batch too, if the run comes to it."""
    size, samples = plan.batch_size, data.samples
    types = data.source.shortest(min(size, samples or size), samples)
    rest = math.inf if plan.max_steps is None else plan.max_steps
    rest -= run.state.steps - run.state.fit_steps
    if types is None or (samples is not None and rest * size < samples - run.state.position):
        return
    try:
        run.step.prepare(*types)
    except ShapeError as error:
        taken = Arguments.taken(types)
        short = taken.arrays[taken.first].shape[0]
        advice = "pass drop_last=True to fit to leave it out" if samples else "leave it out"
        raise ShapeError(
            f"the shortest batch of an epoch has {short} sample{'s' if short > 1 else ''}; "
            f"{advice}, or choose another batch size: {error}"
        ) from error


def _check_schedule(run: Run, plan: Plan, data: Data) -> None:
    schedule, samples = run.scheduler, data.samples
    epochs = run.state.fit_start + plan.epochs - run.state.epoch
    if schedule is None or run.state.watched is not None or epochs < 1:
        return
    size = min(plan.batch_size, samples or plan.batch_size)
    batches = data.source.batches(size, samples)
    budget = math.inf if plan.max_steps is None else plan.max_steps
    budget -= run.state.steps - run.state.fit_steps
    done = run.state.batches
    if run.scheduler_every == "step":
        if batches:
            each, pending = run.step.settings.accumulate, run.step.pending
            updates = updates_left(epochs, batches, done, each, pending, max(budget, 0))
            check_length(schedule, updates, "step")
        return
    if batches:
        epochs = int(min(epochs, (max(budget, 0) + done) // batches))
    check_length(schedule, epochs, "epoch")
