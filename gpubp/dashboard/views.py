"""What the page shows of runs: texts, tables, pictures as SVG."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gpubp import pictures
from gpubp.dashboard import runs
from gpubp.dashboard.runs import Run
from gpubp.errors import GpubpError
from gpubp.runtime import report_picture
from gpubp.train import curves
from gpubp.train.records import Records, best_of, columns_of, watched

COMPARED = 8  # so many colours there are


@dataclass(frozen=True)
class View:
    """A run as the page shows it.

    Attributes:
        run: its texts and tables.
        key: names it in the page.
        epochs, best, last: cells of the list of runs.
        curves, profile: `<svg>` elements, or "".
    """

    run: Run
    key: str
    epochs: str
    best: str
    last: str
    curves: str
    profile: str


class Shelf:
    """Views of runs, each made anew only when its files have changed.

    Args:
        given: paths; folders are looked through each time, so that new runs appear.
    """

    def __init__(self, given: Sequence[Path]) -> None:
        self._given = list(given)
        self._known: dict[Path, tuple[Any, View]] = {}
        self._compared: tuple[Any, str] | None = None
        self._lock = threading.Lock()  # requests come in several threads

    def state(self) -> tuple[Any, ...]:
        """What changes when something of the page does."""
        return tuple((path, runs.stamp(path)) for path in self._paths())

    def _paths(self) -> list[Path]:
        return runs.find([path for path in self._given if path.exists()])

    def views(self) -> list[View]:
        """All runs, the one that changed last first."""
        with self._lock:
            found = []
            for path in self._paths():
                mark = runs.stamp(path)
                known = self._known.get(path)
                if known is None or known[0] != mark:
                    known = self._known[path] = mark, _view(runs.read(path))
                found.append(known[1])
            return sorted(found, key=lambda view: view.run.notes.get("updated", ""), reverse=True)

    def comparison(self, views: Sequence[View]) -> str:
        """The curves of the first runs that have some, in one picture; "" of fewer than two."""
        with self._lock:
            shown = [view for view in views if view.run.records][:COMPARED]
            if len(shown) < 2:
                return ""
            mark = tuple(id(view) for view in shown)
            if self._compared is None or self._compared[0] != mark:
                named = _named([view.run for view in shown])
                self._compared = (mark, _drawn(lambda: curves.draw(named)))
            return self._compared[1]


def _named(found: Sequence[Run]) -> dict[str, Records]:
    """Records by names that differ."""
    named: dict[str, Records] = {}
    for run in found:
        name, count = run.name, 2
        while name in named:
            name, count = f"{run.name} ({count})", count + 1
        named[name] = run.records
    return named


def _view(run: Run) -> View:
    best, by = best_of(run.records), watched(run.records)
    told = ""
    if best is not None and by is not None:
        told = f"{by} {best[by]:.4g} in epoch {best['epoch']:g}"
    last = run.records[-1] if run.records else {}
    shown = [f"{name} {last[name]:.4g}" for name in columns_of([last]) if name != "epoch"]
    drawn = _drawn(lambda: curves.draw({"": run.records})) if run.records else ""
    profile = ""
    if run.report is not None and run.report[1]:
        backend, rows = run.report
        profile = _drawn(lambda: report_picture.draw(rows, backend))
    epochs = f"{last['epoch']:g}" if last else "0"
    key = hashlib.sha256(str(run.path.resolve()).encode()).hexdigest()[:12]
    return View(run, key, epochs, told, ", ".join(shown), drawn, profile)


def _drawn(make: Callable[[], Any]) -> str:
    """A picture as an `<svg>` element; "" if there is nothing to draw."""
    try:
        with _as_text():
            return pictures.as_svg(make())
    except GpubpError:
        return ""


def _as_text() -> AbstractContextManager[Any]:
    """Letters stay letters in SVG: they can be read out and searched."""
    import matplotlib

    return matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "gpubp"})
