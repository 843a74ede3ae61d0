"""Draw docs/images/ranks.png: what two ranks do and send in one step, in the order recorded.

Usage: python docs/make_rank_picture.py [FOLDER]

A step of three layers is run on two ranks (threads) in each way of sending gradients. A
communicator that writes down its calls, and ops that do when they run, give the order of events;
places along the axis are positions in that order, and no times.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np

import gpubp as gp
from gpubp import nn, optim
from gpubp.distributed import DataParallel, run_threads

WAYS: dict[str, dict[str, Any]] = {
    "one buffer": {},
    "bucket_cap_mb": {"bucket_cap_mb": 1e-4},
    "shard_optimizer": {"shard_optimizer": True},
    "both": {"shard_optimizer": True, "bucket_cap_mb": 1e-4},
}
COLORS = {"forward": "#9ecae1", "backward": "#3182bd", "update": "#31a354"}


class Recorder:
    """A communicator that writes its calls down."""

    def __init__(self, inner: Any, events: list[tuple[str, int]]) -> None:
        self._inner, self._events = inner, events
        self.name, self.rank, self.size = inner.name, inner.rank, inner.size
        self.broadcast, self.barrier, self.close = inner.broadcast, inner.barrier, inner.close
        self._made = 0

    def all_reduce(self, array: Any) -> None:
        label = "all-reduce" if array.dtype == np.float32 else "counts"
        self._events.append((label, 0))
        self._inner.all_reduce(array)

    def gather(self, array: Any) -> Any:
        self._events.append(("all-gather", 0))
        return self._inner.gather(array)

    def start_all_reduce(self, array: Any) -> Any:
        return self._started("all-reduce", self._inner.start_all_reduce(array))

    def start_reduce_scatter(self, rows: Any) -> Any:
        return self._started("reduce-scatter", self._inner.start_reduce_scatter(rows))

    def _started(self, label: str, request: Any) -> Any:
        self._made += 1
        return Waited(label, self._made, request, self._events)


class Waited:
    """A request, from its start to its end."""

    def __init__(self, label: str, number: int, request: Any, events: Any) -> None:
        self._label, self._number, self._request, self._events = label, number, request, events
        events.append((f"start {label}", number))

    def wait(self) -> None:
        self._events.append((f"wait {self._label}", self._number))
        self._request.wait()


def marked(events: list[tuple[str, int]], layer: int) -> nn.Module:
    """A module that notes when it is passed, forwards and backwards."""

    def note(label: str) -> Any:
        return lambda x: events.append((label, layer)) or x

    back = gp.custom_op(f"back_{layer}", note("backward"))
    there = gp.custom_op(f"there_{layer}", note("forward"), lambda g, y, x: back(g))

    class Marked(nn.Module):
        def forward(self, x: Any) -> Any:
            return there(x)

    return Marked()


def recorded(options: dict[str, Any]) -> list[tuple[str, int]]:
    """The events of one step on rank 0."""
    x, y = np.ones((8, 6), np.float32), np.zeros(8, np.int64)

    def work(communicator: Any) -> list[tuple[str, int]]:
        events: list[tuple[str, int]] = []
        layers = [nn.Linear(6, 8), marked(events, 1), nn.Linear(8, 8), marked(events, 2)]
        model = nn.Sequential(*layers, nn.Linear(8, 3), marked(events, 3))
        step = gp.compile_step(
            lambda a, b: nn.CrossEntropyLoss()(model(a), b),
            optim.Adam(model.parameters()),
            communicator=DataParallel(Recorder(communicator, events), **options),
            backend="numpy",
        )
        step(x, y)
        events.clear()
        step(x, y)
        return events[:-1]  # without the sum of what the call returned

    return list(run_threads(2, work, timeout=60)[0])


def drawn(axis: Any, title: str, events: list[tuple[str, int]]) -> None:
    """One way: computing above, what travels below."""
    started: dict[int, int] = {}
    place = 0
    ends = [i for i, (label, _) in enumerate(events) if label.startswith(("wait", "all-reduce"))]
    for i, (label, number) in enumerate(events):
        kind = label.split()[0]
        if kind in COLORS:
            axis.barh(1, 0.94, left=place, height=0.8, color=COLORS[kind])
            axis.text(place + 0.47, 1, f"{kind}\n{number}", ha="center", va="center", fontsize=7)
            place += 1
        elif kind == "start":
            started[number] = place
        elif kind == "wait":
            width = max(place - started[number], 0) + 0.94
            row = -0.8 * ((number - 1) % 3 + 1)
            axis.barh(row, width, left=started[number], height=0.7, color="#fdae6b")
            name = label.removeprefix("wait ")
            axis.text(started[number] + width / 2, row, name, ha="center", va="center", fontsize=7)
            place += i == ends[-1]
        else:
            axis.barh(0, 0.94, left=place, height=0.7, color="#fdd0a2")
            axis.text(place + 0.47, 0, label, ha="center", va="center", fontsize=7)
            place += 1
        if i == ends[-1]:
            place = _updated(axis, place)
    axis.set_title(title, loc="left", fontsize=9, family="monospace")
    axis.set_xlim(0, 12)
    axis.set_ylim(-2.9, 1.6)
    axis.axis("off")


def _updated(axis: Any, place: int) -> int:
    axis.barh(1, 0.94, left=place, height=0.8, color=COLORS["update"])
    axis.text(place + 0.47, 1, "update", ha="center", va="center", fontsize=7)
    return place + 1


def main() -> None:
    figure, axes = plt.subplots(len(WAYS), 1, figsize=(8, 8), layout="constrained")
    for axis, (title, options) in zip(axes, WAYS.items(), strict=True):
        drawn(axis, title, recorded(options))
    here = Path(__file__).parent / "images"
    figure.savefig((Path(sys.argv[1]) if sys.argv[1:] else here) / "ranks.png", dpi=110)


if __name__ == "__main__":
    main()
