"""A loaded program run part by part, to see what each part writes; see `backends.poison`."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import feed_of_zeros
from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.job import Job, Loaded
from gpubp.backends.numba_cpu.pool import native
from gpubp.compiler.parts import Operand


class Trial:
    """A program, on inputs of zeros, by one worker."""

    def __init__(self, loaded: Loaded) -> None:
        self._loaded = loaded
        self._feed = feed_of_zeros(loaded.program)  # the tables hold its arrays' addresses
        outputs = self._feed.outputs[0]
        self._table, self._keep = loaded.table(self._feed, outputs, 1)
        self._memory: list[NDArray[Any] | None] = list(loaded.memory)
        for i in loaded.outputs:
            self._memory[i] = outputs[loaded.program.buffers[i].position]

    def run(self, position: int) -> bool:
        """Run a part; False if there is nothing to run, or it calls the user's own function, or it
        met a label or index out of range.
        """
        record = self._loaded.record_of_part[position]
        if record < 0 or self._loaded.program.parts[position].kernel == "custom":
            return False
        row = [self._table[0] + 8 * words.RECORD_WORDS * record, 1, *self._table[2:]]
        job = Job([row], np.zeros((1, 2), np.int64), (), 1, (), self._keep)
        native("loop")(job.address)
        return job.status == 0

    def fetch(self, operand: Operand) -> NDArray[np.uint8]:
        """The bytes of an operand's extent, in place."""
        memory = self._memory[operand.buffer]
        first, last = operand.extent
        found: NDArray[np.uint8] = np.asarray(memory).reshape(-1).view(np.uint8)[first:last]
        return found

    def put(self, operand: Operand, content: NDArray[np.uint8]) -> None:
        """Nothing: `fetch` gives the memory itself."""
