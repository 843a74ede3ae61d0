"""Moves of data once a sample: the rules of `gp.vmap` for concat, gather and scatter.

See `OpSpec.batched` for what a rule takes and returns.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from gpubp.core import OpSpec, bind
from gpubp.ops.elementwise import add
from gpubp.ops.shape import broadcast_to, reshape, transpose
from gpubp.ops.spec import beside


def once_each(x: Any, samples: int) -> Any:
    """The same array for every sample: an axis in front."""
    return broadcast_to(x, (samples, *x.shape))


def moved(x: Any, source: int, target: int) -> Any:
    """One axis taken to another place, the others in their order."""
    order = [i for i in range(len(x.shape)) if i != source]
    order.insert(target, source)
    return transpose(x, order)


def concat_batched(
    spec: OpSpec, samples: int, given: Sequence[bool], inputs: Sequence[Any], attrs: Any
) -> Any:
    """Parts that are the same for all samples are repeated."""
    parts = [x if own else once_each(x, samples) for x, own in zip(inputs, given, strict=True)]
    return bind(spec, *parts, axis=attrs["axis"] + 1)


def gather_batched(
    spec: OpSpec, samples: int, given: Sequence[bool], inputs: Sequence[Any], attrs: Any
) -> Any:
    """With indices of its own, a sample's rows are found among the rows of all samples."""
    (x, indices), axis = inputs, attrs["axis"]
    if not given[1]:
        return {"axis": axis + 1}
    if not given[0]:
        return moved(bind(spec, x, indices, axis=axis), axis, 0)
    rows = moved(x, axis + 1, 1)
    flat = reshape(rows, (samples * rows.shape[1], *rows.shape[2:]))
    found = bind(spec, flat, _shifted(indices, samples, rows.shape[1]), axis=0)
    return _rows_back(found, len(indices.shape) - 1, axis)


def scatter_batched(
    spec: OpSpec, samples: int, given: Sequence[bool], inputs: Sequence[Any], attrs: Any
) -> Any:
    """With indices of its own, a sample adds to rows of its own."""
    (updates, indices), axis, size = inputs, attrs["axis"], attrs["size"]
    if not given[1]:
        return {"axis": axis + 1, "size": size}
    if not given[0]:
        updates = once_each(updates, samples)
    rank = len(indices.shape) - 1
    for i in range(rank):  # the axes of the indices go to the front, behind the samples
        updates = moved(updates, axis + 1 + i, 1 + i)
    total = bind(spec, updates, _shifted(indices, samples, size), axis=0, size=samples * size)
    return moved(reshape(total, (samples, size, *total.shape[1:])), 1, axis + 1)


def _shifted(indices: Any, samples: int, size: int) -> Any:
    """Indices into `size` rows as indices into those of all samples, one sample after another."""
    ones = (1,) * (len(indices.shape) - 1)
    first = np.arange(samples, dtype=indices.dtype).reshape(samples, *ones) * size
    return add(indices, beside(first.astype(indices.dtype), indices))


def _rows_back(found: Any, rank: int, axis: int) -> Any:
    """(samples, *indices, *rest) with the indices' axes at `axis` of a sample."""
    for i in reversed(range(rank)):
        found = moved(found, 1 + i, axis + 1 + i) if axis else found
    return found
