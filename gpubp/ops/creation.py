"""New arrays: constants, on the host at once and in programs as constants."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpubp.arguments import checked, shown
from gpubp.core import Array, active_graph, checked_dtype
from gpubp.errors import ArgumentError, ShapeError
from gpubp.ops.shape import as_shape, broadcast_to, reshape
from gpubp.ops.spec import beside, is_concrete, operand, promote, require_possible

Shape = int | Sequence[int]


def _made(value: Any) -> Any:
    """An array that is there as what ops give: traced inside of a trace."""
    graph = active_graph()
    return value if graph is None else Array(graph, graph.constant(value))


def full(shape: Shape, fill_value: Any, dtype: Any = None) -> Any:
    """An array of one number; of its own dtype (float32 of a Python float) where none is given.

    Raises:
        ShapeError: not a shape, or larger than any memory.
    """
    sizes = as_shape(shape, "full")
    if min(sizes, default=0) < 0:
        raise ShapeError(f"full: sizes must not be negative, got {sizes}.")
    require_possible("full", sizes)
    number = isinstance(fill_value, (bool, int, float))
    if not number and getattr(fill_value, "shape", None) != ():
        raise ShapeError(f"full: fill_value is {shown(fill_value)}, expected one number.")
    if not is_concrete(operand(fill_value)):
        return broadcast_to(fill_value, sizes)
    value = np.asarray(fill_value if isinstance(fill_value, float) else operand(fill_value))
    if dtype is None and isinstance(fill_value, float) and not isinstance(fill_value, np.generic):
        dtype = np.float32
    value = value.astype(checked_dtype(value.dtype if dtype is None else dtype))
    graph = active_graph()
    if graph is None:
        return np.full(sizes, value, value.dtype)
    return broadcast_to(_made(value), sizes)


def zeros(shape: Shape, dtype: Any = "float32") -> Any:
    """An array of zeros."""
    return full(shape, 0, dtype)


def ones(shape: Shape, dtype: Any = "float32") -> Any:
    """An array of ones."""
    return full(shape, 1, dtype)


def full_like(x: Any, fill_value: Any, dtype: Any = None) -> Any:
    """As `full`, with the shape and, by default, the dtype of `x`."""
    (x,) = promote(x)
    return beside(full(x.shape, fill_value, x.dtype if dtype is None else dtype), x)


def zeros_like(x: Any, dtype: Any = None) -> Any:
    """Zeros of the shape and dtype of `x`."""
    return full_like(x, 0, dtype)


def ones_like(x: Any, dtype: Any = None) -> Any:
    """Ones of the shape and dtype of `x`."""
    return full_like(x, 1, dtype)


def eye(n: int, m: int | None = None, dtype: Any = "float32") -> Any:
    """Ones where row and column are equal, else zeros, shape (n, m); m is n by default."""
    rows, columns = as_shape((n, n if m is None else m), "eye")
    if min(rows, columns) < 0:
        raise ShapeError(f"eye: sizes must not be negative, got {rows} and {columns}.")
    require_possible("eye", (rows, columns))
    return _made(np.eye(rows, columns, dtype=checked_dtype(dtype)))


def arange(start: Any, stop: Any = None, step: Any = 1, dtype: Any = None) -> Any:
    """Numbers from `start` (0, where one number is given) to before `stop`.

    int64 where all three are whole numbers, else float32.

    Raises:
        ArgumentError: they are no finite numbers (whole ones, of int64), or the step is 0.
        ShapeError: more numbers than any memory holds.
    """
    if stop is None:
        start, stop = 0, start
    for name, value in (("start", start), ("stop", stop), ("step", step)):
        if isinstance(value, bool) or not isinstance(value, (int, float, np.number)):
            raise ArgumentError(f"arange: {name} is {shown(value)}, expected a number.")
        if not -(2.0**63) <= value < 2.0**63:  # NaN neither
            raise ArgumentError(
                f"arange: {name} is {shown(value)}, expected a finite number in int64's range."
            )
    if step == 0:
        raise ArgumentError("arange: step is 0, and no numbers lead to the end.")
    whole = all(isinstance(v, (int, np.integer)) for v in (start, stop, step))
    kind = checked_dtype(dtype if dtype is not None else ("int64" if whole else "float32"))
    wide = (float(stop) - float(start)) / float(step)
    require_possible("arange", (int(min(max(wide, 0.0), 2.0**63)),), np.float64)
    return _made(np.arange(start, stop, step).astype(kind))


def _count(op: str, steps: int) -> int:
    if steps < 0:
        raise ShapeError(f"{op}: steps is {steps}, expected at least 0.")
    return steps


@checked
def linspace(start: float, end: float, steps: int, dtype: Any = "float32") -> Any:
    """`steps` numbers at even distances from `start` to `end`, both included."""
    count = _count("linspace", steps)
    require_possible("linspace", (count,))
    return _made(np.linspace(start, end, count).astype(checked_dtype(dtype)))


@checked
def logspace(
    start: float, end: float, steps: int, base: float = 10.0, dtype: Any = "float32"
) -> Any:
    """`base` to the power of each number of `linspace`."""
    count = _count("logspace", steps)
    require_possible("logspace", (count,))
    return _made((float(base) ** np.linspace(start, end, count)).astype(checked_dtype(dtype)))


@checked
def tril_indices(row: int, col: int, offset: int = 0) -> Any:
    """Where a matrix of that size has elements on a diagonal and below: (2, count) int64."""
    require_possible("tril_indices", (_count("tril_indices", row), _count("tril_indices", col)))
    return _made(np.stack(np.tril_indices(row, offset, col)).astype(np.int64))


@checked
def triu_indices(row: int, col: int, offset: int = 0) -> Any:
    """Where a matrix of that size has elements on a diagonal and above: (2, count) int64."""
    require_possible("triu_indices", (_count("triu_indices", row), _count("triu_indices", col)))
    return _made(np.stack(np.triu_indices(row, offset, col)).astype(np.int64))


@checked
def meshgrid(*arrays: Any, indexing: str = "ij") -> list[Any]:
    """Vectors as axes of a grid: for each, its numbers broadcast over the grid.

    Args:
        *arrays: vectors, or scalars.
        indexing: "ij": the first one runs along the first axis; "xy": along the second one.

    Raises:
        ArgumentError: another indexing.
    """
    if indexing not in ("ij", "xy"):
        raise ArgumentError(f"meshgrid: indexing is {indexing!r}, expected 'ij' or 'xy'.")
    vectors = [reshape(a, (-1,)) for (a,) in (promote(x) for x in arrays)]
    swapped = indexing == "xy" and len(vectors) > 1
    order = [1, 0, *range(2, len(vectors))] if swapped else list(range(len(vectors)))
    shape = [0] * len(vectors)
    for vector, axis in zip(vectors, order):
        shape[axis] = vector.shape[0]
    found = []
    for vector, axis in zip(vectors, order):
        along = [1] * len(vectors)
        along[axis] = vector.shape[0]
        found.append(broadcast_to(reshape(vector, along), shape))
    return found
