"""The record of an epoch, or of the part of one: its loss, and what is measured at its end."""

from __future__ import annotations

import math

from gpubp.train.inputs import Data
from gpubp.train.interrupt import Interrupt
from gpubp.train.plan import Plan
from gpubp.train.run import Run
from gpubp.train.train_state import TrainState


def measured(run: Run, data: Data) -> dict[str, float]:
    """Metrics on the training data, and everything on the held-out data; of several ranks, each
    runs the model on a part."""
    found: dict[str, float] = {}
    measure, floating = run.evaluator.measure, run.floating
    if data.metrics and data.train is not None:
        rows = data.rows
        arrays = data.train if rows is None else data.train.rows(rows)
        values = measure(arrays, floating, data.metrics, run.ranks)
        found = {metric.name: values[metric.name] for metric in data.metrics}
    if data.held_out is not None:
        held = measure(data.held_out, floating, data.metrics, run.ranks)
        found.update({f"val_{key}": value for key, value in held.items()})
    return found


def measures_all(run: Run, data: Data, interrupt: Interrupt, record: dict[str, float]) -> bool:
    """Add what is measured to an epoch's record; False if Ctrl-C was pressed before its end.

    The epoch does not count then: a resumed run measures it. One without anything to measure has
    ended with its last batch.
    """
    nothing = not data.metrics and data.held_out is None
    if run.ranks.together:  # they measure together: none may leave on the way
        if not nothing and any(run.ranks.any(interrupt.asked)):
            return False
        record.update(measured(run, data))
        return True
    left = True
    with interrupt.leaving():
        if nothing or not interrupt.asked:
            record.update(measured(run, data))
            left = False
    return not left


def part_of_epoch(run: Run, plan: Plan, data: Data, samples: int | None) -> dict[str, float]:
    """The record of an epoch that was left before its end; what took Ctrl-C is not measured.

    Args:
        run: stands where the epoch was left.
        plan, data: of the fit.
        samples: of a stream's epoch, if one has ended before.
    """
    record = {"epoch": run.state.epoch + _share(run.state, plan, data, samples)}
    record.update(run.state.means)
    # Reasons may differ between ranks, but all measure, or none.
    if not any(run.ranks.any(run.state.stop_reason == "interrupted")):
        record.update(measured(run, data))
    return record


def _share(state: TrainState, plan: Plan, data: Data, samples: int | None) -> float:
    """How much of the epoch was trained on; NaN where its length is not known."""
    samples = data.samples or samples
    if samples:
        return state.position / samples
    batches = data.source.batches(plan.batch_size, samples)
    return state.batches / batches if batches else math.nan
