"""Batches of a torch DataLoader as an order over data in memory.

Comes in: a loader of a `TensorDataset` that puts samples together as torch does by default. Goes
out: the tensors, and in which order each epoch takes the samples: drawn by the loader's own
sampler, from the same generators as a loop over the loader would draw them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from torch.utils.data import BatchSampler, DataLoader, TensorDataset, default_collate

from gpubp.errors import ArgumentError

_TAKEN = ("epochs", "progress", "flush", "checked")


def is_loader(value: Any) -> bool:
    """It is a DataLoader."""
    return isinstance(value, DataLoader)


class Loaded:
    """What `TorchStep.run` makes of a loader.

    Args:
        loader: whose dataset is in memory.
        options: of the run.

    Attributes:
        tensors: the whole data.
        options: with order and batch size.

    Raises:
        ArgumentError: the loader does something with samples, or an option that it has itself.
    """

    def __init__(self, loader: Any, options: Mapping[str, Any]) -> None:
        self._check(loader, options)
        self.tensors: tuple[Any, ...] = tuple(loader.dataset.tensors)
        epochs = int(options.get("epochs", 1))
        orders = [_order(loader) for _ in range(epochs)]
        self.options: dict[str, Any] = {k: v for k, v in options.items() if k != "epochs"}
        if not orders or not orders[0]:
            raise ArgumentError("the loader gives no batches; expected one at least.")
        self.options |= {
            "order": np.array(orders),
            "batch_size": min(loader.batch_size, len(orders[0])),
        }

    def _check(self, loader: Any, options: Mapping[str, Any]) -> None:
        own = [key for key in options if key not in _TAKEN]
        if own:
            raise ArgumentError(
                f"{own[0]} is the loader's own: set it there, or pass tensors instead of a loader."
            )
        plain = type(loader.dataset) is TensorDataset and loader.collate_fn is default_collate
        if not plain or type(loader.batch_sampler) is not BatchSampler:
            raise ArgumentError(
                "run() takes a DataLoader of a TensorDataset with the usual batches. Of another "
                "one, call the step for each batch: for x, y in loader: loss = step(x, y)."
            )


def _order(loader: Any) -> list[int]:
    """The samples of one epoch, in the loader's order."""
    count = len(loader.dataset.tensors[0])
    indices = DataLoader(
        range(count),
        batch_sampler=loader.batch_sampler,
        collate_fn=list,
        generator=loader.generator,
    )
    return [i for batch in indices for i in batch]
