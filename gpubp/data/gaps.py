"""Cells of a table that have no value."""

from __future__ import annotations

from collections.abc import Iterable

_MISSING = " na n/a n.a. nan -nan null none ? - -- . <na> #n/a #na 1.#ind -1.#ind 1.#qnan -1.#qnan"
MISSING = frozenset([*_MISSING.split(" "), "#n/a n/a"])  # the first one is empty
_LONGEST = max(map(len, MISSING))


def is_missing(cell: str) -> bool:
    """Whether a cell has no value: empty, NA, NaN, null, none, ?, -, #N/A ... (in any case)."""
    return len(cell) <= _LONGEST and cell.lower() in MISSING


def missing_of(cells: Iterable[str]) -> set[str]:
    """Those of the different cells that have no value."""
    different = set(cells)
    # At once, for there may be millions; a cell of several lines looks like several ones here.
    if MISSING.isdisjoint("\n".join(different).lower().split("\n")):
        return set()
    return {cell for cell in different if is_missing(cell)}
