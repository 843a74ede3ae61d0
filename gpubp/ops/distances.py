"""Distances between all pairs of vectors."""

from __future__ import annotations

from typing import Any

import numpy as np

from gpubp.arguments import is_number, shown
from gpubp.core import describe
from gpubp.errors import ArgumentError, ShapeError
from gpubp.ops.constant import constant
from gpubp.ops.elementwise import subtract
from gpubp.ops.index import gather
from gpubp.ops.shape import expand_dims
from gpubp.ops.spec import promote
from gpubp.ops.statistics import norm


def _checked_p(name: str, p: Any) -> float:
    if not is_number(p) or not p >= 0:
        raise ArgumentError(f"{name}: p is {shown(p)}, expected a number of at least 0.")
    return float(p)


def cdist(x1: Any, x2: Any, p: float = 2.0) -> Any:
    """The p-norm of each x1[i] - x2[j], as torch.cdist; its gradient is 0 where it is 0.

    Args:
        x1, x2: (..., m, width) and (..., n, width); leading axes are broadcast.
        p: at least 0.

    Returns:
        (..., m, n).

    Raises:
        ShapeError: shapes do not fit. ArgumentError: p is no such number.
    """
    order = _checked_p("cdist", p)
    x1, x2 = promote(x1, x2, floating=True)
    if min(len(x1.shape), len(x2.shape)) < 2 or x1.shape[-1] != x2.shape[-1]:
        raise ShapeError(
            f"cdist: expected (..., m, width) and (..., n, width), got {describe(x1)} and "
            f"{describe(x2)}."
        )
    return norm(subtract(expand_dims(x1, -2), expand_dims(x2, -3)), order, -1)


def pdist(x: Any, p: float = 2.0) -> Any:
    """Distances of all pairs of rows, those of row 0 first, as torch.nn.functional.pdist.

    Args:
        x: (n, width).
        p: at least 0.

    Returns:
        (n (n - 1) / 2,).

    Raises:
        ShapeError: x is no matrix. ArgumentError: p is no such number.
    """
    order = _checked_p("pdist", p)
    (x,) = promote(x, floating=True)
    if len(x.shape) != 2:
        raise ShapeError(f"pdist: expected (n, width), got {describe(x)}.")
    first, second = (constant(i, x) for i in np.triu_indices(x.shape[0], 1))
    return norm(subtract(gather(x, first), gather(x, second)), order, -1)
