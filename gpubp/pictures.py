"""Pictures by matplotlib, which is optional: made without a display, written as a whole.

Colours are those of M. Okabe and K. Ito, "Color Universal Design", which people of any colour
vision tell apart.
"""

from __future__ import annotations

import io
import os
from typing import Any

from gpubp.atomic import replacing
from gpubp.errors import DataError, missing_extra

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000", "#8C8C8C")
GREY = "0.4"
DPI = 150
KINDS = ("png", "svg", "pdf")


def new_figure(purpose: str, width: float, height: float) -> Any:
    """An empty matplotlib figure, in inches.

    Raises:
        MissingExtraError: matplotlib is not installed, which `purpose` needs.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise missing_extra("matplotlib", "plot", purpose) from error
    return Figure(figsize=(width, height), layout="constrained")


def save(figure: Any, path: str | os.PathLike[str]) -> None:
    """Write a figure to a file, which appears as a whole or not at all.

    Raises:
        DataError: an ending of no kind of picture that is known.
    """
    kind = os.path.splitext(path)[1].lstrip(".").lower() or "png"
    if kind not in KINDS:
        known = ", ".join(f".{k}" for k in KINDS)
        raise DataError(f"{os.fspath(path)} ends in .{kind}, expected one of {known}.")
    with replacing(path) as file:
        figure.savefig(file, format=kind, dpi=DPI)


def as_svg(figure: Any) -> str:
    """A figure as the text of an `<svg>` element, to stand in a page."""
    text = io.StringIO()
    figure.savefig(text, format="svg")
    found = text.getvalue()
    return found[found.index("<svg") :]
