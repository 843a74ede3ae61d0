"""Where training data come from: arrays in memory, arrays mapped from files, streams of batches.

Comes in: what the user gave. Goes out: blocks, each of resident arrays and an order of their rows,
which a compiled step runs through without Python. Rows and their order are the same whatever the
kind of source, so training does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gpubp.core import ArrayType
from gpubp.data.ahead import prefetch
from gpubp.data.checks import check_equal_lengths, check_not_empty
from gpubp.errors import DataError
from gpubp.runtime.program_cache import as_input

# Mapped files above this size are read in blocks of about this size, below it at once.
BLOCK_BYTES = 1 << 26
# A stream's batches are put together up to so many samples.
STREAM_SAMPLES = 1 << 13


class Block(NamedTuple):
    """Rows to train on.

    Attributes:
        arrays: X, y and perhaps sample weights, resident.
        order: indices of rows of `arrays`, int64.
        batch_size: rows a step; the last step of the block may have fewer.
    """

    arrays: tuple[NDArray[Any], ...]
    order: NDArray[np.int64]
    batch_size: int


Blocks = Generator[Block, None, None]


class Source(Protocol):
    """What the training loop needs of data.

    Attributes:
        samples: how many; None if that is not known before the first pass.
    """

    samples: int | None

    def types(self, batch_size: int) -> list[ArrayType]:
        """The types of a full batch."""

    def shortest(self, batch_size: int, samples: int | None) -> list[ArrayType] | None:
        """The types of the shortest batch of an epoch of so many samples; None if not known."""

    def batches(self, batch_size: int, samples: int | None) -> int | None:
        """How many batches such an epoch has; None if not known."""

    def blocks(self, order: NDArray[np.int64], batch_size: int, done: int) -> Blocks:
        """The blocks of an epoch whose first `done` samples have been trained on."""


class _Counted:
    """Base of sources whose samples are counted: all batches are full but the last."""

    def types(self, batch_size: int) -> list[ArrayType]:
        """The types of a full batch."""
        raise NotImplementedError

    def shortest(self, batch_size: int, samples: int | None) -> list[ArrayType] | None:
        """The types of the last batch."""
        return self.types((samples or 0) % batch_size or batch_size)

    def batches(self, batch_size: int, samples: int | None) -> int | None:
        """How many batches an epoch has."""
        return -(-(samples or 0) // batch_size)


class ArraySource(_Counted):
    """Arrays in memory: one block an epoch.

    Args:
        arrays: of equal length, checked and converted.
    """

    def __init__(self, arrays: Sequence[NDArray[Any]]) -> None:
        self.arrays = tuple(arrays)
        self.samples: int | None = len(self.arrays[0])

    def types(self, batch_size: int) -> list[ArrayType]:
        """The types of a full batch."""
        return [ArrayType((batch_size, *a.shape[1:]), a.dtype) for a in self.arrays]

    def blocks(self, order: NDArray[np.int64], batch_size: int, done: int) -> Blocks:
        """All rows at once."""
        yield Block(self.arrays, order[done:], batch_size)


class MappedSource(_Counted):
    """Arrays on disk (`np.load(path, mmap_mode="r")`), larger than memory if need be.

    Rows are read in blocks, in the order of the file within a block, by a thread that is one block
    ahead; about three blocks are in memory at a time.

    Args:
        arrays: of equal length; memory-mapped or not.
        floating: what floats are converted to, block by block.
        block_bytes: how large a block is, about.
    """

    def __init__(
        self, arrays: Sequence[NDArray[Any]], floating: np.dtype[Any], block_bytes: int = 0
    ) -> None:
        self._arrays = tuple(arrays)
        self._floating = floating
        self.samples: int | None = len(self._arrays[0])
        row_bytes = sum(a[:1].size * max(a.dtype.itemsize, floating.itemsize) for a in arrays)
        self._block_rows = max(1, (block_bytes or BLOCK_BYTES) // max(1, row_bytes))

    def types(self, batch_size: int) -> list[ArrayType]:
        """The types of a full batch."""
        return [
            ArrayType((batch_size, *a.shape[1:]), as_input(a[:1], "data", self._floating).dtype)
            for a in self._arrays
        ]

    def blocks(self, order: NDArray[np.int64], batch_size: int, done: int) -> Blocks:
        """Blocks of whole batches, one read ahead."""
        rows = -(-self._block_rows // batch_size) * batch_size
        starts = range(done, len(order), rows)
        read = (self._read(order[i : i + rows], batch_size) for i in starts)
        with closing(prefetch(read, 1)) as ready:
            yield from ready

    def _read(self, rows: NDArray[np.int64], batch_size: int) -> Block:
        by_place = np.argsort(rows, kind="stable")
        sorted_rows = rows[by_place]
        local = np.empty(len(rows), np.int64)
        local[by_place] = np.arange(len(rows))
        arrays = [as_input(a[sorted_rows], "data", self._floating) for a in self._arrays]
        return Block(tuple(arrays), local, batch_size)


class BatchSource:
    """A stream of batches: any iterable of (x, y) or (x, y, sample weights), prefetched.

    Args:
        batches: gives an iterator at each call of `iter`, or, being a function, when it is called.
            An iterator that is used up serves one epoch.
        floating: what floats are converted to.
    """

    def __init__(
        self,
        batches: Iterable[Sequence[Any]] | Callable[[], Iterable[Sequence[Any]]],
        floating: np.dtype[Any],
    ) -> None:
        self._batches = batches
        self._floating = floating
        self._ahead: Iterator[tuple[NDArray[Any], ...]] | None = None
        self._first: tuple[NDArray[Any], ...] | None = None
        self.samples: int | None = None

    def types(self, batch_size: int) -> list[ArrayType]:
        """The types of the first batch, which is taken from the stream and kept for the epoch."""
        if self._first is None:
            self._ahead = self._iterate()
            self._first = next(self._ahead, None)
        if self._first is None:
            raise DataError(
                "the iterable gave no batches. A generator can be used once: pass a list, a "
                "function that makes one, or an object whose __iter__ starts anew."
            )
        return [ArrayType(a.shape, a.dtype) for a in self._first]

    def shortest(self, batch_size: int, samples: int | None) -> list[ArrayType] | None:
        """The types of the shortest batch of a list; others are not known before they come."""
        if not isinstance(self._batches, (list, tuple)) or not all(map(_is_batch, self._batches)):
            return None
        try:
            batch = min(self._batches, key=lambda b: len(b[0]))
            arrays = [as_input(a, "a batch", self._floating) for a in batch]
        except (TypeError, IndexError, ValueError):
            return None  # said when its turn comes, with its number
        return [ArrayType(a.shape, a.dtype) for a in arrays]

    def batches(self, batch_size: int, samples: int | None) -> int | None:
        """How many batches there are, if the iterable has a length."""
        try:
            return len(self._batches)  # type: ignore[arg-type]
        except TypeError:
            return None

    def blocks(self, order: NDArray[np.int64], batch_size: int, done: int) -> Blocks:
        """Equal batches put together, up to STREAM_SAMPLES; `done` samples are passed over."""
        self.types(batch_size)
        assert self._first is not None and self._ahead is not None
        first, ahead = self._first, self._ahead
        self._first = self._ahead = None
        with closing(prefetch(_chain(first, ahead))) as batches:
            yield from _joined(_after(batches, done))

    def _iterate(self) -> Iterator[tuple[NDArray[Any], ...]]:
        found = self._batches() if callable(self._batches) else self._batches
        for i, batch in enumerate(found):
            if not _is_batch(batch):
                raise DataError(
                    f"batch {i} is a {type(batch).__name__}; expected (x, y) or (x, y, weights)."
                )
            names = (f"batch {i} x", f"batch {i} y", f"batch {i} weights")
            arrays = [as_input(a, n, self._floating) for a, n in zip(batch, names)]
            for array, name in zip(arrays, names):
                check_not_empty(array, name)
                check_equal_lengths(arrays[0], array)
            yield tuple(arrays)


def _is_batch(batch: Any) -> bool:
    return isinstance(batch, (tuple, list)) and len(batch) in (2, 3)


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _after(
    batches: Iterable[tuple[NDArray[Any], ...]], done: int
) -> Iterator[tuple[NDArray[Any], ...]]:
    """The batches after `done` samples."""
    for batch in batches:
        if done >= len(batch[0]):
            done -= len(batch[0])
        elif done:
            raise DataError(
                "the batches are not those of the run that is resumed: their sizes differ."
            )
        else:
            yield batch


def _joined(batches: Iterable[tuple[NDArray[Any], ...]]) -> Iterator[Block]:
    held: list[tuple[NDArray[Any], ...]] = []
    for batch in batches:
        full = bool(held) and len(held) * len(held[0][0]) >= STREAM_SAMPLES
        if held and (full or _types(batch) != _types(held[0])):
            yield _as_block(held)
            held = []
        held.append(batch)
    if held:
        yield _as_block(held)


def _types(batch: Sequence[NDArray[Any]]) -> list[Any]:
    return [(a.shape, a.dtype) for a in batch]


def _as_block(batches: list[tuple[NDArray[Any], ...]]) -> Block:
    arrays = tuple(np.concatenate(parts) for parts in zip(*batches, strict=True))
    return Block(arrays, np.arange(len(arrays[0])), len(batches[0][0]))


def is_mapped(array: Any) -> bool:
    """True for arrays that live in a file and are too large to be read at once."""
    return isinstance(array, np.memmap) and array.nbytes > BLOCK_BYTES
