"""Records of epochs: their columns, and the best of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence

from gpubp.errors import DataError, unknown_name
from gpubp.train.direction import direction

Record = Mapping[str, float]
Records = Sequence[Record]


def columns_of(records: Iterable[Record]) -> list[str]:
    """The names of all numbers, in the order in which they first appear."""
    return list(dict.fromkeys(key for record in records for key in record))


def watched(records: Records) -> str | None:
    """The number that says which epoch is best: val_loss, or loss; None if there is neither."""
    known = columns_of(records)
    return next((name for name in ("val_loss", "loss") if name in known), None)


def best_record(records: Records, monitor: str | None = None, mode: str = "auto") -> Record:
    """The record of the best epoch; see `History.best`."""
    name, known = monitor or watched(records), columns_of(records)
    if name is None or name not in known:
        shown = [key for key in known if key != "epoch"]
        raise unknown_name("number of the history", name or "val_loss", shown)
    way = direction(name) or "min" if mode == "auto" else mode
    if way not in ("min", "max"):
        raise unknown_name("mode", mode, ("auto", "min", "max"))
    kept = [r for r in records if math.isfinite(r.get(name, math.nan))]
    if not kept:
        raise DataError(f"{name} is finite in no epoch: there is no best one.")
    return (max if way == "max" else min)(kept, key=lambda r: r[name])


def best_of(records: Records) -> Record | None:
    """The record of the best epoch; None if no loss was ever finite, or none was recorded."""
    name = watched(records)
    if name is None or not any(math.isfinite(r.get(name, math.nan)) for r in records):
        return None
    return best_record(records, name)
