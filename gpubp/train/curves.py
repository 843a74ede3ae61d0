"""Training curves: what histories hold, over the epochs, with the best epoch marked."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from gpubp import pictures
from gpubp.errors import DataError, unknown_name
from gpubp.train.records import Records, best_of, columns_of, watched

HELD = "val_"
_WIDTH, _HEIGHT, _TITLE = 6.4, 2.6, 0.6
_ONE_COLUMN = 3  # so many panels stand below each other, more in two columns
_FEW = 30  # so many points are shown as dots, too


def draw(
    histories: Mapping[str, Records], keys: Sequence[str] | None = None, title: str | None = None
) -> Any:
    """A figure of one or more histories: a panel for each kind of number, held out beside trained.

    Of a single history training is blue and held-out data orange; of several each has a colour, and
    training is dashed. A star stands at the best epoch (by `watched`).

    Args:
        histories: by the names to show; "" for one without a name.
        keys: which numbers; default is all.
        title: above; default says how many epochs there were and which was best.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DataError: nothing was recorded.
        UnknownNameError: a key that was not recorded.
    """
    panels = _panels(histories, keys)
    alone = len(histories) == 1
    columns = 1 if len(panels) <= (_ONE_COLUMN if alone else 1) else 2
    rows = math.ceil(len(panels) / columns)
    figure = pictures.new_figure("History.plot", _WIDTH * columns, _TITLE + _HEIGHT * rows)
    from matplotlib.ticker import MaxNLocator

    for i, (kind, members) in enumerate(panels.items()):
        axes = figure.add_subplot(rows, columns, i + 1)
        for place, (name, history) in enumerate(histories.items()):
            _draw_run(
                axes,
                history,
                [k for k in members if k in columns_of(history)],
                name,
                place,
                histories,
            )
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.set(xlabel="epoch", ylabel=kind)
        axes.grid(alpha=0.3)
        if alone:
            axes.legend(fontsize=8)
    if not alone:
        _name_runs(figure, histories)
    figure.suptitle(_title(histories) if title is None else title, fontsize=10)
    return figure


def _name_runs(figure: Any, histories: Mapping[str, Records]) -> None:
    """One legend below all panels: a colour a run."""
    from matplotlib.lines import Line2D

    lines = [
        Line2D([], [], color=pictures.COLOURS[i % len(pictures.COLOURS)], label=name)
        for i, name in enumerate(histories)
    ]
    lines.append(Line2D([], [], color=pictures.GREY, ls="--", label="on its training data"))
    figure.legend(handles=lines, loc="outside lower center", ncols=3, fontsize=8)


def _draw_run(
    axes: Any,
    history: Records,
    keys: Sequence[str],
    name: str,
    place: int,
    histories: Mapping[str, Records],
) -> None:
    alone = len(histories) == 1
    for key in keys:
        held = key.startswith(HELD)
        points = [(r["epoch"], r[key]) for r in history if key in r]
        points = [(x, y) for x, y in points if math.isfinite(x)]
        colour = pictures.COLOURS[int(held) if alone else place % len(pictures.COLOURS)]
        has_held = HELD + key.removeprefix(HELD) in keys
        style = "--" if has_held and not held and not alone else "-"
        label = f"{name} {key}".strip()
        marker = "." if len(points) < _FEW else ""
        axes.plot(*zip(*points), style, color=colour, marker=marker, label=label, lw=1.4)
    best = best_of(history)
    if best is None:
        return
    key = next((k for k in keys if k.startswith(HELD)), keys[0] if keys else "")
    if key in best and math.isfinite(best["epoch"]):
        colour = pictures.COLOURS[int(key.startswith(HELD)) if alone else place % 8]
        note = f"{best[key]:.4g} in epoch {best['epoch']:g}" if alone else None
        axes.plot(best["epoch"], best[key], "*", color=colour, markersize=11, label=note, zorder=3)
        if alone:
            axes.axvline(best["epoch"], color=pictures.GREY, lw=0.8, ls=":", zorder=0)


def _title(histories: Mapping[str, Records]) -> str:
    if len(histories) > 1:
        return f"{len(histories)} runs; a star marks the best epoch of each"
    ((name, history),) = histories.items()
    text = f"{len(history)} epoch{'s' * (len(history) != 1)}"
    best, by = best_of(history), watched(history)
    if best is not None and by is not None:
        text += f", the best is {best['epoch']:g}: {by} {best[by]:.4g}"
    return f"{name}: {text}" if name else text


def _panels(histories: Mapping[str, Records], keys: Sequence[str] | None) -> dict[str, list[str]]:
    """The keys of each panel, by the name that they share."""
    every = dict.fromkeys(key for history in histories.values() for key in columns_of(history))
    known = [key for key in every if key != "epoch"]
    if not known:
        raise DataError("there is nothing to plot: no epoch was recorded.")
    panels: dict[str, list[str]] = {}
    for key in known if keys is None else keys:
        if key not in known:
            raise unknown_name("number of the history", key, known)
        panels.setdefault(key.removeprefix(HELD), []).append(key)
    return panels
