"""Tables for pages and notebooks, as HTML; every text in them is escaped."""

from __future__ import annotations

import html
from collections.abc import Sequence


def table(
    header: Sequence[object],
    rows: Sequence[Sequence[object]],
    caption: str = "",
    texts: int = 1,
) -> str:
    """A table.

    Args:
        header: of the columns.
        rows: of cells, in their order.
        caption: above it.
        texts: so many columns from the left are texts; the others are numbers, on the right side.
    """
    lines = ["<table>"]
    if caption:
        lines.append(f"<caption>{html.escape(caption)}</caption>")
    lines.append(f"<thead>{_row('th', header, texts)}</thead><tbody>")
    lines += [_row("td", row, texts) for row in rows]
    return "\n".join([*lines, "</tbody></table>"])


def _row(tag: str, cells: Sequence[object], texts: int) -> str:
    found = []
    for i, cell in enumerate(cells):
        side = "left" if i < texts else "right"
        found.append(f'<{tag} style="text-align:{side}">{html.escape(str(cell))}</{tag}>')
    return f"<tr>{''.join(found)}</tr>"


def escaped(text: str) -> str:
    """A text, to stand between tags or in an attribute."""
    return html.escape(text)
