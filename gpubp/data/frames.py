"""Data frames of pandas, polars and their like: tables whose columns have dtypes of their own.

Comes in: any object. Goes out: a frame of numbers as one array, everything else as it was; what
Dask has yet to compute is computed. The libraries are not imported: a frame is what has columns and
makes arrays.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.errors import DataError


def computed(value: Any) -> Any:
    """What is yet to be computed (arrays, frames and series of Dask), in memory; else as it is.

    Tuples and dicts of such are gone through. Such a thing has `compute` and names its tasks.
    """
    if isinstance(value, (tuple, dict)):
        parts = value if isinstance(value, tuple) else tuple(value.values())
        made = [computed(part) for part in parts]
        if all(a is b for a, b in zip(parts, made, strict=True)):
            return value
        return tuple(made) if isinstance(value, tuple) else dict(zip(value, made, strict=True))
    lazy = hasattr(value, "__dask_graph__") and callable(getattr(value, "compute", None))
    return value.compute() if lazy else value


def is_frame(value: Any) -> bool:
    """Whether it is a data frame: it has named columns, and rows."""
    return hasattr(value, "columns") and hasattr(value, "to_numpy") and hasattr(value, "shape")


def from_frame(value: Any, name: str) -> Any:
    """The columns of a data frame side by side, (rows, columns); what is no frame as it is.

    Raises:
        DataError: a column that does not hold numbers, or has gaps; says which, and what to do.
    """
    if not is_frame(value):
        return value
    columns = [(str(label), np.asarray(value[label].to_numpy())) for label in value.columns]
    if not columns:
        raise DataError(f"{name} is a data frame without columns.")
    texts = [label for label, column in columns if not _is_number(column)]
    if texts:
        shown = ", ".join(map(repr, texts[:5])) + (", ..." if len(texts) > 5 else "")
        raise DataError(
            f"{name} is a data frame with columns that do not hold numbers, or have gaps: {shown}. "
            "Leave them out, make columns of 0 and 1 (pandas.get_dummies), or write the frame to a "
            "CSV file for `gpubp train`, which encodes names, dates and gaps."
        )
    kind = np.result_type(*[column.dtype for _, column in columns])
    return np.stack([column.astype(kind) for _, column in columns], axis=1)


def _is_number(column: NDArray[Any]) -> bool:
    return column.ndim == 1 and column.dtype.kind in "biuf"


def as_texts(value: Any) -> list[str] | None:
    """One label a sample, if `value` is an array, a series or a list of texts; else None."""
    if isinstance(value, (tuple, dict, str)) or is_frame(value):
        return None
    if isinstance(value, list) and not (value and isinstance(value[0], str)):
        return None
    if isinstance(value, (np.ndarray, list)) or hasattr(value, "to_numpy"):
        found = np.asarray(value)
        texts = found.dtype.kind == "U" or (
            found.dtype.kind in "OT" and all(isinstance(label, str) for label in found.flat)
        )
        if texts and found.ndim == 1 and len(found):
            return [str(label) for label in found]
    return None
