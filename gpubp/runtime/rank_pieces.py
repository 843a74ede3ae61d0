"""A rank's pieces of batches: the rows, and the program that computes gradients of them.

Programs gather their rows from where the data are. On a CPU a program is bound once for each size
of a piece; to a device, data in the host's memory would travel whole: there rows are copied first.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import Backend, Feed
from gpubp.runtime.arguments import Arguments
from gpubp.runtime.bound_call import Single
from gpubp.runtime.program_cache import Ready


class Pieces:
    """Runs programs on rows of a run's data.

    Args:
        backend: that runs them.
        data: of all samples.
        order: int64: in which they are taken.
        ready: the program for pieces of a size.
    """

    def __init__(
        self,
        backend: Backend,
        data: Arguments,
        order: NDArray[np.int64],
        ready: Callable[[int], Ready],
    ) -> None:
        self._backend, self._data, self._order, self._ready = backend, data, order, ready
        on_host = all(isinstance(a, np.ndarray) for a in data.arrays)
        self._make = self._copying if on_host else self._gathering
        if on_host and not backend.reads_device_arrays:
            self._make = self._bound
        self._calls: dict[int, Callable[[int], Sequence[NDArray[Any]]]] = {}

    def run(self, start: int, size: int) -> Sequence[NDArray[Any]]:
        """Run on so many rows from a place in the order on; what the program returns, each with
        one more axis in front. The next call may overwrite it."""
        call = self._calls.get(size)
        if call is None:
            call = self._calls[size] = self._make(self._ready(size), size)
        return call(start)

    def _bound(self, ready: Ready, size: int) -> Callable[[int], Sequence[NDArray[Any]]]:
        rows, outputs = np.zeros(size, np.int64), _outputs(ready)
        run = self._backend.bind(ready.loaded, Feed(self._data.arrays, rows, [outputs]))

        def call(start: int) -> Sequence[NDArray[Any]]:
            rows[...] = self._order[start : start + size]
            run(())
            return outputs

        return call

    def _copying(self, ready: Ready, size: int) -> Callable[[int], Sequence[NDArray[Any]]]:
        like = self._rows(np.zeros(size, np.int64))
        single = Single(ready, self._backend, like)
        return lambda start: single(self._rows(self._order[start : start + size]))

    def _rows(self, index: NDArray[np.int64]) -> list[NDArray[Any]]:
        whole = self._data.whole
        return [a if w else a.take(index, 0) for a, w in zip(self._data.arrays, whole, strict=True)]

    def _gathering(self, ready: Ready, size: int) -> Callable[[int], Sequence[NDArray[Any]]]:
        outputs = _outputs(ready)
        feed = Feed(self._data.arrays, self._order, [outputs])

        def call(start: int) -> Sequence[NDArray[Any]]:
            self._backend.run([ready.loaded], np.array([[0, start]], np.int64), feed)
            return outputs

        return call


def _outputs(ready: Ready) -> list[NDArray[Any]]:
    return [np.zeros((1, *shape), dtype) for shape, dtype in ready.program.output_types]
