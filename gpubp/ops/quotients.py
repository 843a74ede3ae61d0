"""Division with a rest: exact remainders, quotients rounded down, of floats and of integers.

`x - trunc(x / y) * y` is not the rest where x / y rounds up to a whole number, or is large: C's
`fmod` is, which every backend has. Integers by 0 give 0, as in NumPy.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp.core import Array, bind
from gpubp.core.formula import Formula
from gpubp.ops.logic import greater, less, logical_and, logical_or, where
from gpubp.ops.rounding import trunc
from gpubp.ops.spec import elementwise, promote, require_numeric


def _fmod_vjp(g: Array, z: Array, x: Array, y: Array) -> list[Array | None]:
    return [g, -(g * trunc(x / y))]


def _quietly(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Without NumPy's warnings of integers by 0 and of infinities."""

    def reference(x: Any, y: Any) -> Any:
        with np.errstate(all="ignore"):
            return fn(x, y)

    return reference


FMOD = elementwise(
    "fmod",
    _quietly(np.fmod),
    _fmod_vjp,
    Formula("fmod(a, b)", integer=True),
    check=require_numeric,
)
FLOOR_DIVIDE = elementwise(
    "floor_divide",
    _quietly(np.floor_divide),
    lambda g, z, x, y: [None, None],
    Formula("floordiv(a, b)", integer=True),
    check=require_numeric,
)


def fmod(x: Any, y: Any) -> Any:
    """The remainder of x / y with the sign of `x`, exact; of integers by 0 it is 0.

    Raises:
        DTypeError: both are booleans.
    """
    return bind(FMOD, *promote(x, y))


def remainder(x: Any, y: Any) -> Any:
    """The remainder of x / y with the sign of `y`, as Python's %; of integers by 0 it is 0.

    Raises:
        DTypeError: both are booleans.
    """
    x, y = promote(x, y)
    rest = fmod(x, y)
    below = logical_and(less(rest, 0), greater(y, 0))
    above = logical_and(greater(rest, 0), less(y, 0))
    return where(logical_or(below, above), rest + y, rest)


def floor_divide(x: Any, y: Any) -> Any:
    """`x / y` rounded down, as Python's //; of integers an integer, 0 by 0. The gradient is 0.

    Raises:
        DTypeError: both are booleans.
    """
    return bind(FLOOR_DIVIDE, *promote(x, y))
