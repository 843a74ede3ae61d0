"""Calls that are repeated with arrays of the same types: one step, or one compiled function.

The program is bound once to arrays of its own, so that a call copies its arguments there, enters
the native code, and copies the results out: no addresses, tables or checks are made anew. Large
arguments stay where they are.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import Backend, Feed
from gpubp.core.forks import anew_in_child
from gpubp.runtime.outputs import Returned
from gpubp.runtime.program_cache import Ready, check_indices

# Larger arguments are not copied: looking up their addresses costs less.
COPIED_BYTES = 1 << 14
MAX_OUTPUT_BYTES = 1 << 18  # larger results are not made in memory that is kept
MAX_KEPT = 16


def key_of(arrays: Sequence[Any]) -> tuple[Any, ...] | None:
    """What a call's arguments must have in common with the ones before; None if not NumPy's."""
    key: list[Any] = []
    for array in arrays:
        if type(array) is not np.ndarray:
            return None
        key += (array.shape, array.dtype)
    return tuple(key)


class Single:
    """A program bound to arrays of its own.

    Args:
        ready: the program.
        backend: that has loaded it.
        like: arguments; their types are the program's.

    Attributes:
        ready: the program.
        alone: it is of a step whose function returned the loss and nothing else.
    """

    def __init__(self, ready: Ready, backend: Backend, like: Sequence[NDArray[Any]]) -> None:
        self.ready = ready
        made = ready.structure
        self.alone = isinstance(made, Returned) and made.structure is None
        self._own = [np.zeros(a.shape, a.dtype) for a in like]
        self._inputs = list(self._own)
        self._small = [i for i, a in enumerate(like) if a.nbytes <= COPIED_BYTES]
        self._large = [i for i, a in enumerate(like) if a.nbytes > COPIED_BYTES]
        program = ready.program
        self._outputs = [np.zeros((1, *shape), dtype) for shape, dtype in program.output_types]
        feed = Feed(
            self._inputs,
            np.arange(program.batch_size),
            [self._outputs],
            lambda: check_indices(program, self._inputs),
        )
        self._run = backend.bind(ready.loaded, feed)

    def __call__(self, arrays: Sequence[Any]) -> list[NDArray[Any]]:
        """Run on arrays of the bound types; returns the outputs, which the next call overwrites."""
        for i in self._small:
            self._own[i][...] = arrays[i]
        for i in self._large:
            plain = arrays[i].flags.c_contiguous and arrays[i].flags.aligned
            self._inputs[i] = arrays[i] if plain else arrays[i].copy()
        try:
            self._run(self._large)
        finally:
            for i in self._large:
                self._inputs[i] = self._own[i]  # keeps nothing of the caller's alive
        return self._outputs


class Singles:
    """The bound programs of one function, by the types of their arguments."""

    def __init__(self) -> None:
        self._known: dict[tuple[Any, ...], Single] = {}
        anew_in_child(self)

    def start_anew(self) -> None:
        """In a forked child: another thread may have been in the middle of a run."""
        self._known = {}

    def find(self, key: tuple[Any, ...] | None) -> Single | None:
        """The one for these types; None if there is none, or its program must be traced again."""
        found = self._known.get(key) if key is not None else None
        if found is not None and not found.ready.graph.still_valid():
            self._known.clear()
            return None
        return found

    def add(
        self,
        key: tuple[Any, ...] | None,
        ready: Ready,
        backend: Backend,
        arrays: Sequence[NDArray[Any]],
    ) -> None:
        """Bind a program that has just run with these arguments, if that is worth it."""
        types = [(a.shape, a.dtype) for a in arrays]
        given = [] if key is None else key[: 2 * len(types)]
        exact = key is not None and list(zip(given[::2], given[1::2])) == types
        program = ready.program
        kept = sum(math.prod(shape) * dtype.itemsize for shape, dtype in program.output_types)
        if exact and kept <= MAX_OUTPUT_BYTES:
            assert key is not None
            if len(self._known) >= MAX_KEPT:
                self._known.clear()
            self._known[key] = Single(ready, backend, arrays)
