"""What happened in each epoch."""

from __future__ import annotations

import csv
import math
import os
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpubp.train.records import best_record, columns_of


class History(dict[str, list[float]]):
    """Records of a training run: `history["loss"]` is the loss of every epoch.

    Each list has as many numbers as there were epochs, with NaN for what an epoch has not measured;
    so `pd.DataFrame(history)` is a table of them.

    Attributes:
        records: one dict an epoch, in order: epoch (from 1), loss, and what else was measured.
    """

    def __init__(self) -> None:
        super().__init__()
        self.records: list[dict[str, float]] = []

    def add(self, record: Mapping[str, float]) -> None:
        """Append the record of one epoch."""
        for key in record:
            if key not in self:
                self[key] = [math.nan] * len(self.records)
        for key, values in self.items():
            values.append(record.get(key, math.nan))
        self.records.append(dict(record))

    def restore(self, records: Iterable[Mapping[str, float]]) -> None:
        """Hold these records instead of those that were there."""
        self.clear()
        self.records.clear()
        for record in records:
            self.add(record)

    @property
    def last(self) -> dict[str, float]:
        """The record of the last epoch; empty before the first."""
        return self.records[-1] if self.records else {}

    def to_csv(
        self, path: str | os.PathLike[str], more: Sequence[Mapping[str, float]] = ()
    ) -> None:
        """Write one line an epoch under a header line.

        The file appears as a whole or not at all: it is written beside `path` and moved there.

        Args:
            path: the file.
            more: records to write after those of the history.
        """
        from gpubp.atomic import replacing

        records = [*self.records, *more]
        with replacing(path, "w", newline="") as file:
            writer = csv.DictWriter(file, columns_of(records))
            if records:
                writer.writeheader()
            writer.writerows(records)

    def best(self, monitor: str | None = None, mode: str = "auto") -> dict[str, float]:
        """The record of the best epoch.

        Args:
            monitor: the number to judge by; default is val_loss, or else loss.
            mode: "min", "max", or "auto": by the name, "min" if that does not say.

        Raises:
            UnknownNameError: a number that was not recorded.
            DataError: it was finite in no epoch.
        """
        return dict(best_record(self.records, monitor, mode))

    def plot(
        self,
        path: str | os.PathLike[str] | None = None,
        keys: Sequence[str] | None = None,
        title: str | None = None,
    ) -> Any:
        """Draw the numbers over the epochs: losses in one panel, each other kind in one of its own.

        A number and its counterpart on held-out data ("val_...") share a panel. A star marks the
        best epoch, the one whose val_loss (or else loss) is lowest.

        Args:
            path: a file to write the figure to (.png, .svg, .pdf); None for none.
            keys: which numbers; default is all of them.
            title: above; default says how many epochs there were, and which was best.

        Returns:
            The matplotlib figure.

        Raises:
            MissingExtraError: matplotlib is not installed.
            DataError: nothing was recorded, or another ending.
            UnknownNameError: a key that was not recorded.
        """
        from gpubp import pictures
        from gpubp.train import curves

        figure = curves.draw({"": self.records}, keys, title)
        if path is not None:
            pictures.save(figure, path)
        return figure

    def _repr_html_(self) -> str:
        """For notebooks: the best and the last epochs, and the curves if matplotlib is there."""
        from gpubp.train.rich import of_history

        return of_history(self.records)

    def __repr__(self) -> str:
        shown = ", ".join(f"{key}={value:.4g}" for key, value in self.last.items())
        return f"History({len(self.records)} epochs; last: {shown})"
