"""What a loss gives beside itself: numbers by name, as sums and counts like the loss's own.

Comes in: what a loss function returned. Goes out: the loss and its numbers; of each, the sums and
counts that make one number of many batches, whatever their size.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.core import Array, Graph
from gpubp.errors import DataError
from gpubp.runtime import totals

# (value, sums of terms, counts of terms): no terms for a mean over samples.
Terms = tuple[Any, Sequence[Any], Sequence[Any]]
# What the history writes itself.
TAKEN = re.compile(r"epoch|loss|lr(_\d+)?|val_.*")


def loss_and_numbers(returned: Any) -> tuple[Any, dict[str, Any]]:
    """What a loss function returned: the loss, and numbers by name.

    Args:
        returned: the loss, or (loss, {name: scalar}).

    Raises:
        DataError: something else, a name that the history keeps for itself, or no scalars.
    """
    if not isinstance(returned, (tuple, list, Mapping)):
        return returned, {}
    if not isinstance(returned, (tuple, list)) or len(returned) != 2:
        raise DataError(
            f"the loss function returned a {type(returned).__name__} of {len(returned)}; expected "
            "the loss, or (loss, {name: number})."
        )
    loss, numbers = returned
    if not isinstance(numbers, Mapping):
        raise DataError(
            f"the loss function returned a {type(numbers).__name__} beside the loss; expected "
            "numbers by name: (loss, {name: number})."
        )
    for name, value in numbers.items():
        _check(name, value)
    return loss, dict(numbers)


def _check(name: Any, value: Any) -> None:
    if not isinstance(name, str) or TAKEN.fullmatch(name):
        raise DataError(
            f"the loss function gives a number called {name!r}; expected a name that the history "
            "does not keep for itself (epoch, loss, lr, val_...)."
        )
    shape = getattr(value, "shape", ())
    if shape != ():
        raise DataError(
            f"the loss function gives {name!r} of shape {tuple(shape)}; expected a number: take "
            "its mean."
        )


def with_terms(graph: Graph, value: Any, samples: int) -> Terms:
    """A traced scalar, and the sums and counts of its terms."""
    node = graph.lift(value)
    terms = totals.terms_of(graph, node, samples)
    parts = [v for t in terms for v in (t.total, t.count) if v is not None]
    graph.sums.update(graph.lift(v).index for v in parts)
    return Array(graph, node), [t.total for t in terms], [t.count for t in terms]


def rows_of_terms(
    sizes: Any, value: Any, sums: Sequence[Any], counts: Sequence[Any]
) -> NDArray[np.float64]:
    """Sums and counts, (..., terms, 2), as `totals.together` takes them.

    Args:
        sizes: samples of a batch, or of each.
        value, sums, counts: from `with_terms`, of a batch, or of each.
    """
    sizes, value = np.asarray(sizes, np.float64), np.asarray(value, np.float64)
    if not sums:
        return np.stack([value * sizes, sizes], axis=-1)[..., np.newaxis, :]
    found = np.full((*value.shape, len(sums), 2), totals.NO_COUNT)
    for i, (total, count) in enumerate(zip(sums, counts, strict=True)):
        found[..., i, 0] = total
        if count is not None:
            found[..., i, 1] = count
    return found
