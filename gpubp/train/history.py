"""What happened in each epoch."""

from __future__ import annotations

import csv
import os
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from gpubp.errors import DataError, missing_extra, unknown_name


class History(Mapping[str, list[float]]):
    """Records of a training run: `history["loss"]` is the loss of every epoch.

    Attributes:
        records: one dict an epoch, in order: epoch (from 1), loss, and what else was measured.
    """

    def __init__(self) -> None:
        self.records: list[dict[str, float]] = []

    def add(self, record: Mapping[str, float]) -> None:
        """Append the record of one epoch."""
        self.records.append(dict(record))

    @property
    def last(self) -> dict[str, float]:
        """The record of the last epoch; empty before the first."""
        return self.records[-1] if self.records else {}

    def __getitem__(self, key: str) -> list[float]:
        if key not in _columns(self.records):
            raise KeyError(key)
        return [record[key] for record in self.records if key in record]

    def __iter__(self) -> Iterator[str]:
        return iter(_columns(self.records))

    def __len__(self) -> int:
        return len(_columns(self.records))

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
            writer = csv.DictWriter(file, _columns(records))
            if records:
                writer.writeheader()
            writer.writerows(records)

    def plot(
        self, path: str | os.PathLike[str] | None = None, keys: Sequence[str] | None = None
    ) -> Any:
        """Draw the numbers over the epochs: losses in one panel, each other kind in one of its own.

        A number and its counterpart on held-out data ("val_...") share a panel.

        Args:
            path: a file to write the figure to (.png, .svg, .pdf); None for none.
            keys: which numbers; default is all of them.

        Returns:
            The matplotlib figure.

        Raises:
            MissingExtraError: matplotlib is not installed.
            DataError: nothing was recorded.
            UnknownNameError: a key that was not recorded.
        """
        try:
            from matplotlib.figure import Figure
        except ImportError as error:
            raise missing_extra("matplotlib", "plot", "History.plot") from error
        from gpubp.atomic import replacing

        panels = self._panels(keys)
        figure = Figure(figsize=(6.4, 0.6 + 2.6 * len(panels)), layout="constrained")
        for i, (kind, members) in enumerate(panels.items()):
            axes = figure.add_subplot(len(panels), 1, i + 1)
            for key in members:
                points = [(r["epoch"], r[key]) for r in self.records if key in r]
                style = "--" if key.startswith("val_") else "-"
                axes.plot(*zip(*points, strict=True), style, marker=_marker(points), label=key)
            axes.set(xlabel="epoch", ylabel=kind)
            axes.grid(alpha=0.3)
            axes.legend()
        if path is not None:
            kind = os.path.splitext(path)[1].lstrip(".").lower() or "png"
            with replacing(path) as file:
                figure.savefig(file, format=kind, dpi=150)
        return figure

    def _panels(self, keys: Sequence[str] | None) -> dict[str, list[str]]:
        """The keys of each panel, by the name that they share."""
        known = [key for key in self if key != "epoch"]
        if not known:
            raise DataError("there is nothing to plot: no epoch was recorded.")
        panels: dict[str, list[str]] = {}
        for key in known if keys is None else keys:
            if key not in known:
                raise unknown_name("number of the history", key, known)
            panels.setdefault(key.removeprefix("val_"), []).append(key)
        return panels

    def __repr__(self) -> str:
        shown = ", ".join(f"{key}={value:.4g}" for key, value in self.last.items())
        return f"History({len(self.records)} epochs; last: {shown})"


def _columns(records: Sequence[Mapping[str, float]]) -> list[str]:
    return list(dict.fromkeys(key for record in records for key in record))


def _marker(points: Sequence[Any]) -> str:
    """A dot where a line would hide that there are few points."""
    return "o" if len(points) < 30 else ""
