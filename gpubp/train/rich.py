"""What notebooks show of training: a history as a table with its curves."""

from __future__ import annotations

from gpubp import markup
from gpubp.errors import GpubpError, MissingExtraError
from gpubp.train import curves
from gpubp.train.records import Records, best_of, columns_of

_LAST = 5


def of_history(history: Records) -> str:
    """The best epoch and the last ones, and under them the curves, where matplotlib is there."""
    if not history:
        return "<p>History: no epochs yet</p>"
    names = columns_of(history)
    best = best_of(history)
    shown = list(history[-_LAST:])
    if best is not None and not any(record is best for record in shown):
        shown = [best, *shown]
    rows = []
    for record in shown:
        first = f"{record['epoch']:g}{' (best)' if record is best else ''}"
        cells = [_short(record[n]) if n in record else "" for n in names if n != "epoch"]
        rows.append([first, *cells])
    text = markup.table(
        ["epoch", *(n for n in names if n != "epoch")], rows, f"{len(history)} epochs"
    )
    try:
        return f"<div>{text}\n{pictured(history)}</div>"
    except MissingExtraError as error:
        return f"<div>{text}<p>{markup.escaped(str(error))}</p></div>"


def pictured(history: Records, name: str = "") -> str:
    """The curves of a history, as an `<svg>` element; why there are none, as a paragraph.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    from gpubp import pictures

    try:
        return pictures.as_svg(curves.draw({name: history}))
    except MissingExtraError:
        raise
    except GpubpError as error:
        return f"<p>{markup.escaped(str(error))}</p>"


def _short(value: float) -> str:
    return f"{value:.4g}"
