"""A function of one batch, run over all samples in one go.

Comes in: samples on the host or on the device. Goes out: the outputs of all of them, where they
were. The program is one for a batch, with its samples gathered inside, so the backend goes from
batch to batch without Python, and takes data that its device cannot hold in chunks.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from gpubp.backends.base import Backend, Feed
from gpubp.backends.device_array import DeviceArray
from gpubp.compiler.trace import trace
from gpubp.core import Graph, Shape, tree
from gpubp.errors import ShapeError
from gpubp.runtime.arguments import Arguments, Types, built
from gpubp.runtime.nesting import running, turn
from gpubp.runtime.outputs import Results
from gpubp.runtime.pauses import Pauses
from gpubp.runtime.program_cache import Ready, Runner, check_indices


class Batched:
    """Runs a function of a batch over any number of samples.

    Args:
        fn: traceable; returns an array with a row for each sample, or tuples, lists and dicts of
            such.
        backend: to run it.
    """

    def __init__(self, fn: Callable[..., Any], backend: Backend) -> None:
        def trace_batch(types: Types, structure: Any) -> tuple[Graph, Any]:
            return trace(fn, built(structure, types))

        self.backend = backend
        self._runner = Runner(trace_batch, backend, None, True, None)

    def __call__(self, data: Arguments, batch_size: int) -> Any:
        """The outputs of all samples.

        Args:
            data: checked; NumPy arrays, or DeviceArrays.
            batch_size: samples at a time.

        Raises:
            ShapeError: the function does not return a row for each sample.
        """
        samples = data.samples
        size = min(batch_size, samples)
        whole = samples - samples % size
        with turn(self._runner), Pauses() as pauses:
            ready = self._get(data, size)
            device = any(isinstance(a, DeviceArray) for a in data.arrays)
            results = [
                Results(self.backend, samples, shape[1:], dtype, device)
                for shape, dtype in ready.program.output_types
            ]
            self._run(ready, data, 0, whole, size, results, pauses)
            if whole < samples:
                rest = samples - whole
                self._run(self._get(data, rest), data, whole, samples, rest, results, pauses)
        return tree.unflatten(ready.structure, [result.value for result in results])

    def _get(self, data: Arguments, size: int) -> Ready:
        ready = self._runner.get(data.types(size), data.structure)
        check_rows([shape for shape, _ in ready.program.output_types], size)
        return ready

    def _run(
        self,
        ready: Ready,
        data: Arguments,
        start: int,
        stop: int,
        size: int,
        results: Sequence[Results],
        pauses: Pauses,
    ) -> None:
        steps = (stop - start) // size
        rooms = []
        for rows in [result.rows(start, stop) for result in results]:
            shape = (steps, size, *rows.shape[1:])
            on_device = isinstance(rows, DeviceArray)
            rooms.append(rows.as_shape(shape) if on_device else rows.reshape(shape))
        schedule = np.zeros((steps, 2), np.int64)
        schedule[:, 1] = np.arange(steps) * size
        program = ready.program
        feed = Feed(
            data.arrays,
            np.arange(start, stop),
            [rooms],
            None if start else lambda: check_indices(program, data.arrays, data.names),
            look=lambda done: pauses.look(),
            checked=start > 0,
        )
        with running(self._runner, [ready.graph]):
            self.backend.run([ready.loaded], schedule, feed)


def check_rows(shapes: Sequence[Shape], size: int) -> None:
    """Raise ShapeError unless each output of a model has a row for each sample.

    Args:
        shapes: of the outputs.
        size: samples.
    """
    if not shapes or any(shape[:1] != (size,) for shape in shapes):
        raise ShapeError(
            f"the model returned {[tuple(shape) for shape in shapes]} for {size} samples; expected "
            "arrays with a row for each. Use gp.compile for other functions."
        )
