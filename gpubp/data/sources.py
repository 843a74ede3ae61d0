"""Where training data come from: arrays in memory, arrays mapped from files, streams of batches.

Comes in: what the user gave. Goes out: blocks, each of resident arrays and an order of their rows,
which a compiled step runs through without Python. Rows and their order are the same whatever the
kind of source, so training does not depend on it.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from gpubp.data.ahead import prefetch
from gpubp.data.checks import check_samples
from gpubp.errors import DataError, GpubpError
from gpubp.runtime.arguments import Arguments
from gpubp.runtime.program_cache import as_input

# Mapped files above this size are read in blocks of about this size, below it at once.
BLOCK_BYTES = 1 << 26
# A stream's batches are put together up to so many samples.
STREAM_SAMPLES = 1 << 13


class Block(NamedTuple):
    """Rows to train on.

    Attributes:
        arrays: (X, y) and perhaps sample weights, resident.
        order: indices of rows of `arrays`, int64.
        batch_size: rows a step; the last step of the block may have fewer.
    """

    arrays: Arguments
    order: NDArray[np.int64]
    batch_size: int


Blocks = Generator[Block, None, None]


class Source(Protocol):
    """What the training loop needs of data.

    Attributes:
        samples: how many; None if that is not known before the first pass.
    """

    samples: int | None

    def types(self, batch_size: int) -> list[Any]:
        """A full batch, with types in the place of arrays, as `Step.prepare` takes it."""

    def shortest(self, batch_size: int, samples: int | None) -> list[Any] | None:
        """The types of the shortest batch of an epoch of so many samples; None if not known."""

    def batches(self, batch_size: int, samples: int | None) -> int | None:
        """How many batches such an epoch has; None if not known."""

    def blocks(self, order: NDArray[np.int64], batch_size: int, done: int) -> Blocks:
        """The blocks of an epoch whose first `done` samples have been trained on."""


class _Counted:
    """Base of sources whose samples are counted: all batches are full but the last."""

    def types(self, batch_size: int) -> list[Any]:
        """The types of a full batch."""
        raise NotImplementedError

    def shortest(self, batch_size: int, samples: int | None) -> list[Any] | None:
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

    def __init__(self, arrays: Arguments) -> None:
        self.arrays = arrays
        self.samples: int | None = arrays.samples

    def types(self, batch_size: int) -> list[Any]:
        """The types of a full batch."""
        return self.arrays.like(batch_size)

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

    def __init__(self, arrays: Arguments, floating: np.dtype[Any], block_bytes: int = 0) -> None:
        self._arrays = arrays
        self._floating = floating
        self.samples: int | None = arrays.samples
        rows = [a[:1] for a, whole in zip(arrays.arrays, arrays.whole) if not whole]
        row_bytes = sum(a.size * max(a.dtype.itemsize, floating.itemsize) for a in rows)
        self._block_rows = max(1, (block_bytes or BLOCK_BYTES) // max(1, row_bytes))

    def types(self, batch_size: int) -> list[Any]:
        """The types of a full batch."""
        return self._converted(self._arrays.rows(slice(1))).like(batch_size)

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
        return Block(self._converted(self._arrays.rows(sorted_rows)), local, batch_size)

    def _converted(self, arrays: Arguments) -> Arguments:
        return arrays.converted(lambda a, name: as_input(a, name, self._floating))


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
        self._ahead: Iterator[Arguments] | None = None
        self._first: Arguments | None = None
        self.samples: int | None = None

    def types(self, batch_size: int) -> list[Any]:
        """The types of the first batch, which is taken from the stream and kept for the epoch."""
        if self._first is None:
            self._ahead = self._iterate()
            self._first = next(self._ahead, None)
        if self._first is None:
            raise DataError(
                "the iterable gave no batches. A generator can be used once: pass a list, a "
                "function that makes one, or an object whose __iter__ starts anew."
            )
        return self._first.like(self._first.samples)

    def shortest(self, batch_size: int, samples: int | None) -> list[Any] | None:
        """The types of the shortest batch of a list; others are not known before they come."""
        if not isinstance(self._batches, (list, tuple)) or not all(map(_is_batch, self._batches)):
            return None
        try:
            taken = min(map(Arguments.taken, self._batches), key=lambda b: b.samples)
            batch = self._converted(taken)
            return batch.like(batch.samples)
        except (TypeError, IndexError, ValueError, GpubpError):
            return None  # said when its turn comes, with its number

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

    def _converted(self, batch: Arguments) -> Arguments:
        return batch.converted(lambda a, name: as_input(a, name, self._floating))

    def _iterate(self) -> Iterator[Arguments]:
        found = self._batches() if callable(self._batches) else self._batches
        for i, batch in enumerate(found):
            if not _is_batch(batch):
                raise DataError(
                    f"batch {i} is a {type(batch).__name__}; expected (x, y) or (x, y, weights)."
                )
            names = (f"batch {i} x", f"batch {i} y", f"batch {i} weights")[: len(batch)]
            taken = self._converted(Arguments.taken(batch, names))
            check_samples(taken)
            yield taken


def _is_batch(batch: Any) -> bool:
    return isinstance(batch, (tuple, list)) and len(batch) in (2, 3)


def _chain(first: Any, rest: Iterator[Any]) -> Iterator[Any]:
    yield first
    yield from rest


def _after(batches: Iterable[Arguments], done: int) -> Iterator[Arguments]:
    """The batches after `done` samples."""
    for batch in batches:
        if done >= batch.samples:
            done -= batch.samples
        elif done:
            raise DataError(
                "the batches are not those of the run that is resumed: their sizes differ."
            )
        else:
            yield batch


def _joined(batches: Iterable[Arguments]) -> Iterator[Block]:
    held: list[Arguments] = []
    for batch in batches:
        full = bool(held) and len(held) * held[0].samples >= STREAM_SAMPLES
        if held and (full or not _alike(batch, held[0])):
            yield _as_block(held)
            held = []
        held.append(batch)
    if held:
        yield _as_block(held)


def _alike(a: Arguments, b: Arguments) -> bool:
    """Two batches can be put together: of the same types, with the very same whole arrays."""
    if a.key != b.key:
        return False
    return all(x is y for x, y, whole in zip(a.arrays, b.arrays, a.whole) if whole)


def _as_block(batches: list[Arguments]) -> Block:
    first = batches[0]
    arrays = [
        parts[0] if whole else np.concatenate(parts)
        for whole, *parts in zip(first.whole, *[b.arrays for b in batches])
    ]
    joined = replace(first, arrays=arrays)
    return Block(joined, np.arange(joined.samples), first.samples)


def is_mapped(array: Any) -> bool:
    """True for arrays that live in a file and are too large to be read at once."""
    return isinstance(array, np.memmap) and array.nbytes > BLOCK_BYTES


def marked(blocks: Blocks, samples: int | None, done: int) -> Iterator[tuple[Block, bool]]:
    """Each block, and whether it is the epoch's last: a stream must look ahead for that.

    Args:
        blocks: of an epoch, from some place on.
        samples: in the epoch; None if that is not known.
        done: of these, before the first block.
    """
    held: Block | None = None
    for block in blocks:
        if samples is not None:
            done += len(block.order)
            yield block, done >= samples
            continue
        if held is not None:
            yield held, False
        held = block
    if held is not None:
        yield held, True
