"""Learning-rate schedules that move once an epoch."""

from __future__ import annotations

import inspect
from typing import Any

from gpubp.errors import DataError


def takes_metric(scheduler: Any) -> bool:
    """Whether `scheduler.step` wants the number it watches (ReduceLROnPlateau)."""
    parameters = list(inspect.signature(scheduler.step).parameters.values())
    return bool(parameters) and parameters[0].default is inspect.Parameter.empty


def advance(scheduler: Any, record: dict[str, float]) -> None:
    """Take one step of a schedule; None does nothing.

    Args:
        scheduler: of `gpubp.optim.lr_scheduler`, or anything with `step()` or `step(metric)`.
        record: of the epoch; a metric is its val_loss, else its loss.
    """
    if scheduler is None:
        return
    if not callable(getattr(scheduler, "step", None)):
        raise DataError(f"a scheduler needs a step(); {type(scheduler).__name__} has none.")
    if takes_metric(scheduler):
        scheduler.step(record.get("val_loss", record["loss"]))
    else:
        scheduler.step()
