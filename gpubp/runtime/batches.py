"""What a run does, step by step: which batches, and after which of them to update.

Comes in: the data and the arguments of `Step.run`. Goes out: a `Batches`. The data's values are
checked here, before any work.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.device_array import DeviceArray
from gpubp.compiler.program import Program
from gpubp.core import ConcreteArray
from gpubp.errors import DataError
from gpubp.runtime.arguments import Arguments
from gpubp.runtime.program_cache import check_indices

PART = 1 << 24  # elements that are looked at together


@dataclass(frozen=True)
class Batches:
    """The steps of a run, one entry each.

    Attributes:
        starts: first position in the order of samples.
        sizes: samples.
        final: an update follows; else gradients are only added up.
    """

    starts: NDArray[np.int64]
    sizes: NDArray[np.int64]
    final: NDArray[np.bool_]

    @classmethod
    def one(cls, size: int, final: bool) -> Batches:
        """A single batch."""
        return cls(np.zeros(1, np.int64), np.full(1, size), np.full(1, final))

    @cached_property
    def kinds(self) -> tuple[list[tuple[int, bool]], NDArray[np.int64]]:
        """The distinct (size, final), updates first, and which of them each step is."""
        sizes = list(dict.fromkeys((int(self.sizes[0]), int(self.sizes[-1]))))
        if len(sizes) == 1 and self.final.all():
            return [(sizes[0], True)], np.zeros(len(self.starts), np.int64)
        code = 2 * (self.sizes != sizes[0]) + ~self.final
        found = np.flatnonzero(np.bincount(code, minlength=4))
        found = found[np.argsort(found % 2, kind="stable")]
        place = np.zeros(4, np.int64)
        place[found] = np.arange(len(found))
        return [(sizes[c // 2], c % 2 == 0) for c in found.tolist()], place[code]

    def segments(self, updates: int | None) -> Iterator[tuple[int, int]]:
        """(start, stop) of runs of steps with at most so many updates each."""
        ends: list[int] = []
        if updates is not None:
            cuts = np.flatnonzero(self.final)[updates - 1 :: updates] + 1
            ends = [int(c) for c in cuts if c < len(self.starts)]
        yield from zip([0, *ends], [*ends, len(self.starts)])


def epoch_batches(
    samples: int, batch_size: int, drop_last: bool, epochs: int, update_after: NDArray[np.bool_]
) -> Batches:
    """The steps of whole epochs.

    Args:
        samples: in an epoch.
        batch_size: samples a step.
        drop_last: leave out a last batch that is shorter.
        epochs: how many.
        update_after: for each step, as `Batches.final`.
    """
    steps, tail = divmod(samples, batch_size)
    steps += bool(tail) and not drop_last
    starts = np.arange(steps) * batch_size
    sizes = np.full(steps, batch_size)
    if tail and not drop_last:
        sizes[-1] = tail
    if epochs > 1:
        starts = (np.arange(epochs)[:, np.newaxis] * samples + starts).ravel()
        sizes = np.tile(sizes, epochs)
    return Batches(starts, sizes, update_after)


def updates_after(
    steps: int, epochs: int, accumulate: int, pending: int, flush: bool
) -> NDArray[np.bool_]:
    """After which batches an update follows.

    Args:
        steps: batches in an epoch.
        epochs: how many.
        accumulate: batches to an update.
        pending: batches that wait already.
        flush: update at the end of each epoch with the batches that there are.
    """
    if accumulate == 1:
        return np.ones(steps * epochs, np.bool_)
    if not flush:
        return np.equal((np.arange(1, steps * epochs + 1) + pending) % accumulate, 0)
    first = (np.arange(1, steps + 1) + pending) % accumulate == 0
    rest = np.arange(1, steps + 1) % accumulate == 0
    first[-1] = rest[-1] = True
    return np.concatenate([first, np.tile(rest, epochs - 1)])


def check_values(program: Program, data: Arguments, finite: bool) -> None:
    """Raise if the data of a run are not what they must be; says which, where and why."""
    check_indices(program, data.arrays, data.names)
    if finite:
        for array, name in zip(data.arrays, data.names):
            _check_finite(array, name)


def _check_finite(array: ConcreteArray, name: str) -> None:
    if isinstance(array, DeviceArray) or array.dtype.kind != "f":
        return
    if array.ndim == 0:
        if not np.isfinite(array):
            raise DataError(f"{name} is {array}.")
        return
    rows = max(1, PART // max(1, array[:1].size))
    for start in range(0, len(array), rows):  # the array may be mapped, and larger than memory
        part = array[start : start + rows]
        if not np.isfinite(part).all():
            first, *rest = (int(i) for i in np.argwhere(~np.isfinite(part))[0])
            where = (first + start, *rest)
            raise DataError(f"{name} holds {array[where]} at index {where}.")
