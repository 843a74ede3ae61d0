"""What happened in each epoch."""

from __future__ import annotations

import csv
import os
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path


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

    def _columns(self) -> list[str]:
        return list(dict.fromkeys(key for record in self.records for key in record))

    def __getitem__(self, key: str) -> list[float]:
        if key not in self._columns():
            raise KeyError(key)
        return [record[key] for record in self.records if key in record]

    def __iter__(self) -> Iterator[str]:
        return iter(self._columns())

    def __len__(self) -> int:
        return len(self._columns())

    def to_csv(self, path: str | os.PathLike[str]) -> None:
        """Write one line an epoch under a header line.

        The file appears as a whole or not at all: it is written beside `path` and moved there.
        """
        target = Path(path)
        handle, name = tempfile.mkstemp(dir=target.parent, prefix=f".{target.name}.")
        try:
            with os.fdopen(handle, "w", newline="") as file:
                writer = csv.DictWriter(file, self._columns())
                writer.writeheader()
                writer.writerows(self.records)
            os.replace(name, target)
        except BaseException:
            os.unlink(name)
            raise

    def __repr__(self) -> str:
        shown = ", ".join(f"{key}={value:.4g}" for key, value in self.last.items())
        return f"History({len(self.records)} epochs; last: {shown})"
