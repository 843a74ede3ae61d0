"""The record of an epoch, or of the part of one: its loss, and what is measured at its end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from gpubp.runtime.totals import spoiled, together
from gpubp.train.inputs import Data
from gpubp.train.plan import Plan

if TYPE_CHECKING:
    from gpubp.train.trainer import Trainer


def mean_loss(trainer: Trainer) -> float:
    """The loss of the samples so far: one sum, so that where chunks end does not matter."""
    return together(np.concatenate(trainer.losses))


def is_spoiled(trainer: Trainer) -> bool:
    """A loss of the epoch so far is NaN or infinite."""
    return any(bool(spoiled(rows).any()) for rows in trainer.losses)


def measured(trainer: Trainer, data: Data) -> dict[str, float]:
    """Metrics on the training data, and everything on the held-out data."""
    found: dict[str, float] = {}
    measure, floating = trainer.evaluator.measure, trainer.floating
    if data.metrics and data.train is not None:
        rows = data.rows
        arrays = data.train if rows is None else tuple(a[rows] for a in data.train)
        values = measure(arrays, floating, data.metrics)
        found = {metric.name: values[metric.name] for metric in data.metrics}
    if data.held_out is not None:
        held = measure(data.held_out, floating, data.metrics)
        found.update({f"val_{key}": value for key, value in held.items()})
    return found


def part_of_epoch(
    trainer: Trainer, plan: Plan, data: Data, samples: int | None
) -> dict[str, float]:
    """The record of an epoch that was left before its end; what took Ctrl-C is not measured.

    Args:
        trainer: stands where the epoch was left.
        plan, data: of the fit.
        samples: of a stream's epoch, if one has ended before.
    """
    record = {"epoch": trainer.epoch + _share(trainer, plan, data, samples)}
    record["loss"] = mean_loss(trainer)
    if trainer.stop_reason != "interrupted":
        record.update(measured(trainer, data))
    return record


def _share(trainer: Trainer, plan: Plan, data: Data, samples: int | None) -> float:
    """How much of the epoch was trained on; NaN where its length is not known."""
    samples = data.samples or samples
    if samples:
        return trainer.position / samples
    batches = data.source.batches(plan.batch_size, samples)
    return sum(map(len, trainer.losses)) / batches if batches else math.nan
