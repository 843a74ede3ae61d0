"""Batches of a data set of Ray Data, as `Trainer.fit` takes them."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.arguments import checked
from gpubp.errors import DataError

Pair = tuple[NDArray[Any], NDArray[Any]]


@checked
def batches(
    data: Any, X: str | Sequence[str], y: str, batch_size: int = 256, **options: Any
) -> Callable[[], Iterator[Pair]]:
    """A function that goes through a data set once; `fit` calls it for each epoch.

    In a worker, `ray.train.get_dataset_shard("train")` is that worker's share: train on it with
    `DataParallel(communicator, data="own")`.

    Args:
        data: a `ray.data.Dataset`, or a shard of one: anything with `iter_batches`.
        X: the column of inputs, or columns of numbers that make them, side by side.
        y: the column of targets.
        batch_size: rows; the last batch may have fewer.
        **options: for `iter_batches`: drop_last, local_shuffle_buffer_size, ...

    Raises:
        DataError: data that has no batches; a column that is not there.
    """
    if not hasattr(data, "iter_batches"):
        raise DataError(
            f"data is a {type(data).__name__}, expected a data set of Ray Data (with iter_batches)."
        )
    columns = [X] if isinstance(X, str) else list(X)

    def once() -> Iterator[Pair]:
        for batch in data.iter_batches(batch_size=batch_size, batch_format="numpy", **options):
            missing = [name for name in (*columns, y) if name not in batch]
            if missing:
                known = ", ".join(map(str, batch))
                raise DataError(f"the data set has no column {missing[0]!r}; it has {known}.")
            parts = [np.asarray(batch[name]) for name in columns]
            yield parts[0] if isinstance(X, str) else np.stack(parts, axis=1), batch[y]

    return once
