"""Bar charts of results, as PNG or SVG."""

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
_GREY = "0.4"


@dataclass
class Panel:
    """One plot.

    Attributes:
        title: above it.
        bars: group (on the axis) -> series (a colour) -> value with its spread.
    """

    title: str
    bars: dict[str, dict[str, Spread]] = field(default_factory=dict)

    def add(self, group: str, series: str, spread: Spread) -> None:
        """Add one bar."""
        self.bars.setdefault(group, {})[series] = spread


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
    """Draw grouped bars on a logarithmic axis, medians with the least and the most.

    Args:
        path: ends in .png or .svg.
        title: above all.
        unit: of the values.
        panels: in rows of two.
    """
    from matplotlib.figure import Figure

    columns = min(2, len(panels))
    rows = math.ceil(len(panels) / columns)
    widest = max(len(p.bars) for p in panels)
    figure = Figure(figsize=(columns * max(5.0, 1.2 * widest), 3.6 * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel()
    series = list(dict.fromkeys(s for p in panels for group in p.bars.values() for s in group))
    for axis, panel in zip(axes, panels):
        _draw_panel(axis, panel, series)
        axis.set_ylabel(unit)
    for axis in axes[len(panels) :]:
        axis.set_visible(False)
    figure.suptitle(title)
    handles, labels = _legend_of(axes)
    figure.legend(handles, labels, loc="outside lower center", ncols=min(6, len(series)))
    figure.savefig(path, dpi=120)


def _draw_panel(axis: Any, panel: Panel, series: Sequence[str]) -> None:
    width = 0.85 / len(series)
    for i, name in enumerate(series):
        found = [(g, bars[name]) for g, bars in enumerate(panel.bars.values()) if name in bars]
        if not found:
            continue
        spreads = [spread for _, spread in found]
        medians = [s.median for s in spreads]
        below = [s.median - s.least for s in spreads]
        above = [s.most - s.median for s in spreads]
        x = [g + (i + 0.5) * width - 0.425 for g, _ in found]
        error = {"elinewidth": 0.8, "ecolor": _GREY}
        axis.bar(x, medians, width, label=name, color=f"C{i}", yerr=[below, above], error_kw=error)
    axis.set_yscale("log")
    axis.set_title(panel.title)
    axis.set_xticks(range(len(panel.bars)), list(panel.bars), rotation=30, ha="right")
    axis.grid(axis="y", linewidth=0.4)
    axis.set_axisbelow(True)


def _legend_of(axes: Sequence[Any]) -> tuple[list[Any], list[str]]:
    found: dict[str, Any] = {}
    for axis in axes:
        for handle, label in zip(*axis.get_legend_handles_labels()):
            found.setdefault(label, handle)
    return list(found.values()), list(found)
