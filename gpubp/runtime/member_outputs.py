"""Outputs of many members for the same samples: one program, run on each member's memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import Backend, Feed, MemberRun
from gpubp.compiler.trace import trace
from gpubp.core import Graph, tree
from gpubp.runtime.arguments import Arguments, Types, built
from gpubp.runtime.batched import check_rows
from gpubp.runtime.memory import Memory
from gpubp.runtime.nesting import running, turn
from gpubp.runtime.outputs import Results
from gpubp.runtime.pauses import Pauses
from gpubp.runtime.program_cache import Runner, check_indices


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """Eval mode for a while; afterwards every module is in the mode it was in before."""
    before = [(module, module.training) for module in model.modules()]
    model.train(False)
    try:
        yield
    finally:
        for module, was in before:
            module.training = was


class MemberOutputs:
    """A model's outputs with the weights of each member.

    Args:
        model: called on a batch, in eval mode; returns an array with a row for each sample, or
            tuples, lists and dicts of such.
        backend: to run it.
        memory: of the members.
    """

    def __init__(self, model: Any, backend: Backend, memory: Memory) -> None:
        def trace_batch(types: Types, structure: Any) -> tuple[Graph, Any]:
            return trace(model, built(structure, types))

        self._model, self._memory = model, memory
        self._runner = Runner(trace_batch, backend, None, True, None)

    def __call__(self, data: Arguments, members: Sequence[int], batch_size: int) -> Any:
        """(members, samples, ...), or a structure of such.

        Args:
            data: checked; NumPy arrays.
            members: whose.
            batch_size: samples at a time.

        Raises:
            ShapeError: the model does not return a row for each sample.
        """
        size = min(batch_size, data.samples)
        whole, runner = data.samples - data.samples % size, self._runner
        with evaluating(self._model), turn(runner), Pauses() as pauses:
            first = runner.get(data.types(size), data.structure)
            check_indices(first.program, data.arrays, data.names)
            rows = [
                np.empty((len(members), data.samples, *shape[1:]), dtype)
                for shape, dtype in first.program.output_types
            ]
            self._run(data, members, (0, whole, size), rows, pauses)
            if whole < data.samples:
                rest = data.samples - whole
                self._run(data, members, (whole, data.samples, rest), rows, pauses)
        return tree.unflatten(first.structure, list(rows))

    def _run(
        self,
        data: Arguments,
        members: Sequence[int],
        span: tuple[int, int, int],
        rows: Sequence[NDArray[Any]],
        pauses: Pauses,
    ) -> None:
        start, stop, size = span
        ready = self._runner.get(data.types(size), data.structure)
        check_rows([shape for shape, _ in ready.program.output_types], size)
        steps = (stop - start) // size
        schedule = np.zeros((steps, 2), np.int64)
        schedule[:, 1] = np.arange(steps) * size
        banks = self._memory.banks_of([ready.program])
        runs, parts = [], []
        backend = self._runner.backend
        for member in members:
            own = [
                Results(backend, steps, shape, dtype, False)
                for shape, dtype in ready.program.output_types
            ]
            feed = Feed(data.arrays, np.arange(start, stop), [[r.rows(0, steps) for r in own]])
            runs.append(MemberRun(self._memory.of(member, banks), schedule, feed))
            parts.append(own)
        with running(self._runner, [ready.graph]):
            backend.run_members([ready.loaded], runs, pauses.look)
        for k, own in enumerate(parts):
            for result, room in zip(own, rows, strict=True):
                room[k, start:stop] = result.value.reshape(stop - start, *room.shape[2:])
