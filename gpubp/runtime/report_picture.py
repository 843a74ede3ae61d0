"""A report as a picture: how long each part takes, beside the least that it could take."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from gpubp import markup, pictures
from gpubp.errors import DataError
from gpubp.runtime.report_rows import ReportRow

_SHOWN, _NAME = 24, 46


def _kept(rows: Sequence[ReportRow]) -> list[ReportRow]:
    """The rows to draw, in their order: without the smallest, where they are too many."""
    weigh = [(r.timing.seconds if r.timing else r.flops + r.bytes) for r in rows]
    drawn = set(sorted(range(len(weigh)), key=lambda i: -weigh[i])[:_SHOWN])
    return [row for i, row in enumerate(rows) if i in drawn]


def draw(rows: Sequence[ReportRow], backend: str) -> Any:
    """A figure: with a profile the time of each part and its roof, else arithmetic and bytes.

    Raises:
        MissingExtraError: matplotlib is not installed.
        DataError: the program has no parts.
    """
    kept = _kept(rows)
    if not kept:
        raise DataError("there is nothing to draw: the program has no parts.")
    figure = pictures.new_figure("Report.plot", 9.0, 1.4 + 0.27 * len(kept))
    if kept[0].timing is not None:
        axes = figure.add_subplot()
        _draw_times(axes, kept)
        figure.suptitle(_heading(rows, backend), fontsize=10)
    else:
        left_axes, right_axes = figure.subplots(1, 2, sharey=True)
        for axes, what, values in (
            (left_axes, "kFLOP", [r.flops / 1e3 for r in kept]),
            (right_axes, "kB moved", [r.bytes / 1e3 for r in kept]),
        ):
            axes.barh(range(len(kept)), values, color=pictures.COLOURS[0])
            axes.set_xlabel(f"{what} a step")
        _name_rows(left_axes, kept)
        figure.suptitle(f"{backend}: {len(rows)} parts", fontsize=10)
    return figure


def _draw_times(axes: Any, kept: list[ReportRow]) -> None:
    times = [row.timing.seconds * 1e6 for row in kept if row.timing]
    roofs = [row.timing.bound * 1e6 for row in kept if row.timing]
    axes.barh(range(len(kept)), times, color=pictures.COLOURS[5], label="measured")
    axes.barh(
        range(len(kept)), roofs, height=0.4, color=pictures.COLOURS[0], label="at the peak (roof)"
    )
    most = max(*times, *roofs) if len(times) > 1 else max(times + roofs)
    for i, row in enumerate(kept):
        if row.timing is not None:
            end = max(times[i], roofs[i])
            axes.text(end + 0.008 * most, i, row.timing.share, va="center", fontsize=7)
    axes.set_xlabel("us a step, each part alone on one worker; beside it the share of its roof")
    axes.set_xlim(0, 1.08 * most if most else 1)
    axes.legend(fontsize=8, loc="lower right")
    _name_rows(axes, kept)


def _name_rows(axes: Any, kept: list[ReportRow]) -> None:
    labels = [f"{_short(row.name)}  {row.instruction}" for row in kept]
    axes.set_yticks(range(len(kept)), labels, fontsize=7)
    axes.invert_yaxis()
    axes.margins(y=0.01)


def _short(name: str) -> str:
    return name if len(name) <= _NAME else name[: _NAME - 3] + "..."


def _heading(rows: Sequence[ReportRow], backend: str) -> str:
    timings = [row.timing for row in rows if row.timing]
    total, roof = sum(t.seconds for t in timings), sum(t.bound for t in timings)
    text = f"{backend}: {len(rows)} parts, {total * 1e6:,.1f} us a step"
    if roof and total:
        text += f", {roof / total:.0%} of the roof"
    left = len(rows) - _SHOWN
    return text + (f" (the {left} smallest are not shown)" if left > 0 else "")


def as_table(rows: Sequence[ReportRow], backend: str, text: str) -> str:
    """For notebooks: the parts as a table, the rest of the report as text under it."""
    timed = any(row.timing for row in rows)
    header = ["", "part", "kFLOP", "kB moved", *(["us", "bound", "of peak"] if timed else [])]
    cells = []
    for row in rows:
        found = [row.instruction, _short(row.name), f"{row.flops / 1e3:,.1f}"]
        found.append(f"{row.bytes / 1e3:,.1f}")
        if row.timing is not None:
            micro = (f"{x * 1e6:.2f}" for x in (row.timing.seconds, row.timing.bound))
            found += [*micro, row.timing.share]
        cells.append([*found, row.shared])
    made = markup.table([*header, "shared by"], cells, f"backend {backend}", texts=2)
    lines = text.splitlines()
    rest = next((i for i, line in enumerate(lines) if line.startswith("arithmetic ")), len(lines))
    notes = "".join(f"<p>{markup.escaped(line)}</p>" for line in lines[rest:])
    return f"<div>{made}{notes}</div>"
