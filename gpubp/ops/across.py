"""Means over more than a program sees: over the parts of a batch that other ranks have.

While a step is traced that several ranks share, batch normalisation may be told how to take means
over the whole batch; see `gpubp.distributed.parallel`. Elsewhere there is nothing to be told.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

# (mean over this part, how many values it is of) -> (mean over all parts, how many values)
Across = Callable[[Any, int], tuple[Any, Any]]

_across: ContextVar[Across | None] = ContextVar("across", default=None)


@contextmanager
def means_across(across: Across | None) -> Iterator[None]:
    """While open, batches are whole only together with others."""
    token = _across.set(across)
    try:
        yield
    finally:
        _across.reset(token)


def across_batch() -> Across | None:
    """How means over the whole batch are taken; None where the batch is whole."""
    return _across.get()
