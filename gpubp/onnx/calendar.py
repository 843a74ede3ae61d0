"""Dates as numbers, computed in a program: where in the year, the week and the day they stand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpubp import ops

_YEAR = 365.25


def parts_of(days: Any, names: Sequence[str]) -> list[Any]:
    """Parts of dates, as `gpubp.data.dates.measured` has them.

    Args:
        days: since 1970 began, float64, any shape; NaN gives NaN.
        names: which parts, of `gpubp.data.dates.PARTS`.
    """
    whole = ops.floor(days)
    week = ops.remainder(ops.add(whole, 3.0), 7.0)
    angles = {
        "year": ops.multiply(ops.subtract(days, _first_of_year(whole)), 1.0 / _YEAR),
        "week": ops.multiply(week, 1.0 / 7.0),
        "day": ops.subtract(days, whole),
    }
    found = []
    for name in names:
        which, _, turned = name.partition(" ")
        if not turned:
            found.append(days)
            continue
        angle = ops.multiply(angles[which], 2.0 * math.pi)
        found.append(ops.sin(angle) if turned == "sin" else ops.cos(angle))
    return found


def _quotient(a: Any, b: float) -> Any:
    return ops.floor(ops.divide(a, b))


def _first_of_year(day: Any) -> Any:
    """The day on which the year of a day begins, both counted from 1970.

    Years are counted from a March in eras of 400 years, as in H. Hinnant's "chrono-compatible
    low-level date algorithms" (2013). All numbers are whole, and small enough to be exact.
    """
    from_march = ops.add(day, 719468.0)  # of the year 0
    era = _quotient(from_march, 146097.0)
    of_era = ops.subtract(from_march, ops.multiply(era, 146097.0))
    leap = ops.subtract(
        ops.add(ops.subtract(of_era, _quotient(of_era, 1460.0)), _quotient(of_era, 36524.0)),
        _quotient(of_era, 146096.0),
    )
    year = _quotient(leap, 365.0)
    in_year = ops.subtract(of_era, _days_before(year))
    # A year that begins in March has January and February of the next one from day 306 on.
    late = ops.where(ops.greater_equal(in_year, 306.0), 1.0, 0.0)
    before = ops.subtract(ops.add(ops.add(year, late), ops.multiply(era, 400.0)), 1.0)
    era = _quotient(before, 400.0)
    year = ops.subtract(before, ops.multiply(era, 400.0))
    start = ops.add(ops.add(_days_before(year), 306.0), ops.multiply(era, 146097.0))
    return ops.subtract(start, 719468.0)


def _days_before(year: Any) -> Any:
    """Days of an era before a year of it."""
    leap = ops.subtract(_quotient(year, 4.0), _quotient(year, 100.0))
    return ops.add(ops.multiply(year, 365.0), leap)
