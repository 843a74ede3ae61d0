"""Which rows of a part each worker takes: the same rule in every backend."""

from __future__ import annotations

from collections.abc import Sequence

WHOLE = 1 << 16  # shares of the work begin and end at so many parts of it


def equal_bounds(workers: int) -> list[int]:
    """Where the shares of so many equally fast workers begin and end, in parts of `WHOLE`."""
    return [WHOLE * w // workers for w in range(workers + 1)]


def share_of(rows: int, worker: int, bounds: Sequence[int], grain: int) -> tuple[int, int]:
    """The rows [start, stop) that `worker` takes.

    It depends on these arguments alone, so parts with equal `rows` and `grain` meet the same worker
    without a barrier.

    Args:
        rows: of a part; 0: the first worker does all of it.
        worker: whose.
        bounds: ascending from 0 to `WHOLE`, one more than there are workers.
        grain: of the part; a smaller one is used where there are few rows.
    """
    if rows == 0:
        return (0, 1) if worker == 0 else (0, 0)
    workers = len(bounds) - 1
    grain = min(grain, 16 if rows >= 32 * workers else 8 if rows >= 16 * workers else 1)
    unit = grain * WHOLE
    first, stop = ((rows * bounds[w] + unit // 2) // unit * grain for w in (worker, worker + 1))
    return first, rows if worker == workers - 1 else stop
