"""Charts of results, as PNG or SVG: how many times as fast as the best peer."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from common.contest import Spread
from gpubp.cli.bench import BenchmarkError
from gpubp.errors import missing_extra

_FORMATS = (".png", ".svg")
_GREY, _MARKS = "0.5", "osD^v"
_LEFT = 0.125  # peers that are further off stand at the edge


@dataclass
class Panel:
    """One plot.

    Attributes:
        title: above it.
        bars: row (on the axis) -> contender -> its time with its spread.
        rounds: row -> contender -> its time in each round, where they are known.
    """

    title: str
    bars: dict[str, dict[str, Spread]] = field(default_factory=dict)
    rounds: dict[str, dict[str, Sequence[float]]] = field(default_factory=dict)

    def add(
        self, group: str, series: str, spread: Spread, rounds: Sequence[float] | None = None
    ) -> None:
        """Add one contender's time of a row."""
        self.bars.setdefault(group, {})[series] = spread
        if rounds is not None:
            self.rounds.setdefault(group, {})[series] = rounds

    def best_peer(self, group: str) -> str | None:
        """Who, of those that are not gpubp, was fastest; None if none took part."""
        peers = {k: v.median for k, v in self.bars[group].items() if not is_ours(k)}
        return min(peers, key=lambda name: peers[name]) if peers else None

    def ratio(self, group: str, series: str, peer: str) -> Spread:
        """How many times as fast as a peer: the peer's time over this one's.

        The spread is that of the rounds, in which both ran one after the other; where these are not
        known, of the slowest over the fastest.
        """
        own, other = self.bars[group][series], self.bars[group][peer]
        known = self.rounds.get(group, {})
        pairs = list(zip(known.get(peer, ()), known.get(series, ())))
        median = other.median / own.median
        if pairs:
            each = [theirs / ours for theirs, ours in pairs]
            return Spread(median, min(*each, median), max(*each, median))
        return Spread(median, other.least / own.most, other.most / own.least)


def is_ours(series: str) -> bool:
    """Whether a contender is gpubp, in one of its ways."""
    return series.partition("-")[0] == "gpubp"


def check_chart(path: Path | None) -> None:
    """Refuse a chart that cannot be drawn, before anything is measured.

    Raises:
        MissingExtraError: matplotlib is not installed.
        BenchmarkError: not a PNG or SVG file, or its folder does not exist.
    """
    if path is None:
        return
    if path.suffix not in _FORMATS:
        raise BenchmarkError(f"the chart {path} must end in .png or .svg.")
    if not path.parent.is_dir():
        raise BenchmarkError(f"the folder of {path} does not exist.")
    if importlib.util.find_spec("matplotlib") is None:
        raise missing_extra("matplotlib", "plot", "a chart")


def draw(path: Path, title: str, unit: str, panels: Sequence[Panel]) -> None:
    """Draw how many times as fast gpubp is as the best peer of each row, from small to large ones.

    Rows without peers are drawn as times. Whiskers reach from the least to the most.

    Args:
        path: ends in .png or .svg.
        title: above all.
        unit: of the times.
        panels: in rows of two.
    """
    from matplotlib.figure import Figure

    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    longest = max(len(p.bars) for p in panels)
    size = (columns * 6.2, rows * (1.5 + 0.42 * longest))
    figure = Figure(figsize=size, layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    for axis, panel in zip(axes, panels):
        if any(is_ours(s) and panel.best_peer(g) for g, bars in panel.bars.items() for s in bars):
            _draw_ratios(axis, panel)
        else:
            _draw_times(axis, panel, unit)
        axis.set_title(panel.title, fontsize=10)
        axis.grid(axis="x", linewidth=0.4)
        axis.set_axisbelow(True)
        axis.invert_yaxis()
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(title)
    figure.savefig(path, dpi=120)


def _ordered(panel: Panel) -> list[str]:
    """Rows from the quickest to the longest: by the best time of anyone."""
    return sorted(panel.bars, key=lambda g: min(s.median for s in panel.bars[g].values()))


def _draw_ratios(axis: Any, panel: Panel) -> None:
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

    ours = list(dict.fromkeys(s for g in panel.bars.values() for s in g if is_ours(s)))
    peers = {group: panel.best_peer(group) for group in _ordered(panel)}
    named = [(group, peer) for group, peer in peers.items() if peer is not None]
    for place, (group, peer) in enumerate(named):
        for i, name in enumerate(ours):
            if name in panel.bars[group]:
                at = place + (i - (len(ours) - 1) / 2) * 0.22
                _whisker(axis, panel.ratio(group, name, peer), at, i)
        for name in panel.bars[group]:
            if name != peer and not is_ours(name):
                at = panel.ratio(group, name, peer).median
                far = at < _LEFT
                axis.plot(
                    max(at, _LEFT), place, "<" if far else "|", color=_GREY, ms=5 if far else 9
                )
    axis.axvline(1.0, color="black", lw=1.0)
    axis.set_xscale("log", base=2)
    axis.set_xlim(left=0.92 * _LEFT)
    axis.xaxis.set_major_locator(LogLocator(2, numticks=8))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())
    axis.set_yticks(range(len(named)), [f"{group}\n{peer}" for group, peer in named], fontsize=8)
    alone = [group for group, peer in peers.items() if peer is None]
    left_out = f"\nwithout peers: {', '.join(alone)}" if alone else ""
    label = "times as fast as the best peer (named below the row); grey: the other peers"
    axis.set_xlabel(label + left_out, fontsize=8)
    for i, name in enumerate(ours):
        axis.plot([], [], _MARKS[i % len(_MARKS)], color=f"C{i}", label=name)
    axis.legend(fontsize=8)


def _whisker(axis: Any, spread: Spread, at: float, i: int) -> None:
    below, above = spread.median - spread.least, spread.most - spread.median
    axis.errorbar(
        spread.median, at, xerr=[[below], [above]], fmt=_MARKS[i % len(_MARKS)], color=f"C{i}",
        ms=6, elinewidth=1.1, capsize=2,
    )  # fmt: skip
    if i == 0:
        axis.annotate(
            f"{spread.median:.2f}", (spread.median, at), (0, 5), textcoords="offset points",
            fontsize=7, ha="center",
        )  # fmt: skip


def _draw_times(axis: Any, panel: Panel, unit: str) -> None:
    groups = _ordered(panel)
    for place, group in enumerate(groups):
        for i, spread in enumerate(panel.bars[group].values()):
            _whisker(axis, spread, place, i)
    axis.set_yticks(range(len(groups)), groups, fontsize=8)
    axis.set_xlim(left=0)
    axis.set_xlabel(unit)
