"""A function of one batch, run over all samples in one go.

Comes in: samples on the host or on the device. Goes out: the outputs of all of them, where they
were. The program is one for a batch, with its samples gathered inside, so the backend goes from
batch to batch without Python, and takes data that its device cannot hold in chunks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from gpubp.backends.base import Backend, Feed
from gpubp.backends.device_array import DeviceArray
from gpubp.compiler.trace import trace
from gpubp.core import ArrayType, Graph, tree
from gpubp.errors import ShapeError
from gpubp.runtime.nesting import running, turn
from gpubp.runtime.outputs import Results
from gpubp.runtime.pauses import Pauses
from gpubp.runtime.program_cache import Ready, Runner, check_indices


class Batched:
    """Runs a function of a batch over any number of samples.

    Args:
        fn: traceable; takes one array and returns one, both with a row for each sample.
        backend: to run it.
    """

    def __init__(self, fn: Callable[..., Any], backend: Backend) -> None:
        def trace_batch(types: tuple[ArrayType, ...]) -> tuple[Graph, Any]:
            return trace(fn, list(types))

        self.backend = backend
        self._runner = Runner(trace_batch, backend, None, True, None)

    def __call__(self, data: Any, batch_size: int) -> Any:
        """The outputs of all samples.

        Args:
            data: checked; a NumPy array, or a DeviceArray.
            batch_size: samples at a time.

        Raises:
            ShapeError: the function does not return a row for each sample.
        """
        size = min(batch_size, len(data))
        whole = len(data) - len(data) % size
        with turn(self._runner), Pauses() as pauses:
            ready = self._get(data, size)
            shape, dtype = ready.program.output_types[0]
            device = isinstance(data, DeviceArray)
            result = Results(self.backend, len(data), shape[1:], dtype, device)
            self._run(ready, data, 0, whole, size, result, pauses)
            if whole < len(data):
                rest = len(data) - whole
                self._run(self._get(data, rest), data, whole, len(data), rest, result, pauses)
        return result.value

    def _get(self, data: Any, size: int) -> Ready:
        ready = self._runner.get((ArrayType((size, *data.shape[1:]), data.dtype),))
        types = ready.program.output_types
        if ready.structure is not tree.LEAF or types[0][0][:1] != (size,):
            raise ShapeError(
                f"the model returned {[shape for shape, _ in types]} for {size} samples; expected "
                "one array with a row for each. Use gp.compile for other functions."
            )
        return ready

    def _run(
        self,
        ready: Ready,
        data: Any,
        start: int,
        stop: int,
        size: int,
        result: Results,
        pauses: Pauses,
    ) -> None:
        steps = (stop - start) // size
        rows = result.rows(start, stop)
        shape = (steps, size, *rows.shape[1:])
        room = rows.as_shape(shape) if isinstance(rows, DeviceArray) else rows.reshape(shape)
        schedule = np.zeros((steps, 2), np.int64)
        schedule[:, 1] = np.arange(steps) * size
        program = ready.program
        feed = Feed(
            [data],
            np.arange(start, stop),
            [[room]],
            None if start else lambda: check_indices(program, [data]),
            look=lambda done: pauses.look(),
        )
        with running(self._runner, [ready.graph]):
            self.backend.run([ready.loaded], schedule, feed)
