"""Local SGD: ranks train by themselves on their shares, and average what they have after a while.

The programs are those of one rank, with the update fused behind the gradient; they run over whole
stretches of batches without Python. After `average_every` updates, and where a run ends with a
flush, every float that the programs write (parameters, moments, running statistics) becomes the
mean over ranks, by the samples that each has seen, so ranks are alike there: that is where a run
can be stopped, and saved.

S. U. Stich, "Local SGD converges fast and communicates little" (ICLR 2019, arXiv:1805.09767).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import Backend
from gpubp.compiler.pipeline import Options
from gpubp.compiler.program import Program
from gpubp.core import Graph, WholeType
from gpubp.core.store import Slot
from gpubp.distributed.leaving import telling
from gpubp.errors import DataError
from gpubp.ops.random import is_state
from gpubp.runtime.arguments import Arguments, types_of
from gpubp.runtime.batches import Batches
from gpubp.runtime.nesting import turn
from gpubp.runtime.outputs import OutputBuffers
from gpubp.runtime.pauses import Pauses
from gpubp.runtime.rank_agreement import Agreement, Traces
from gpubp.runtime.rank_results import RowMaker
from gpubp.runtime.step_programs import StepPrograms
from gpubp.runtime.update import UpdateBuilder


class AveragingPrograms(StepPrograms):
    """The programs of a step whose ranks average parameters."""

    binds = False

    def __init__(
        self,
        fn: Callable[..., Any],
        update_builder: UpdateBuilder,
        backend: str | Backend | None,
        device: str | None,
        options: Options | None,
    ) -> None:
        super().__init__(fn, update_builder, backend, device, options)
        parallel = update_builder.settings.parallel
        assert parallel is not None and parallel.average_every is not None
        self._parallel, self._every = parallel, parallel.average_every
        self._agreement = Agreement(parallel, update_builder, self.backend)
        self._since, self._samples, self._flush = 0, 0, False
        self.together = parallel.size > 1

    def updates(self, steps: int, epochs: int, flush: bool) -> NDArray[np.bool_]:
        """See `StepPrograms.updates`; with `flush`, the run ends with an average too."""
        self._flush = flush
        return super().updates(steps, epochs, flush)

    def telling(self) -> AbstractContextManager[None]:
        """See `StepPrograms.telling`."""
        return telling(self._parallel.communicator)

    @property
    def apart(self) -> int:
        """See `StepPrograms.apart`."""
        pending, each = self._update_builder.pending, self._settings.accumulate
        alike = not (self._since or pending)
        return 0 if alike else (self._every - self._since) * each - pending

    def meet(self) -> None:
        """See `StepPrograms.meet`: where ranks have updated since the last average, take one."""
        if self._since:
            with self.telling(), turn(self.updating):
                self._average(False)

    def prepare(self, batch: Sequence[Any]) -> Program:
        """Trace and compile for this rank's share of a batch like this one."""
        types, _ = types_of(batch)
        samples = next(t.shape[0] for t in types if not isinstance(t, WholeType))
        _, low, high = self._parallel.rows(samples)[0]
        return super().prepare(Arguments.taken(batch).like(max(1, high - low)))

    def output_buffers(
        self, data: Arguments, batches: Batches, single: bool = False
    ) -> OutputBuffers:
        """Room for what the steps return."""
        return super().output_buffers(data, self._mine(batches), single)

    def _mine(self, batches: Batches) -> Batches:
        """This rank's shares; they begin where they do in the whole order.

        Raises:
            DataError: a batch has fewer samples than there are ranks.
        """
        if self._parallel.data == "shared" and batches.sizes.min() < self._parallel.size:
            raise DataError(
                f"a batch has {batches.sizes.min()} samples, and {self._parallel.size} ranks "
                "update by themselves with a share each: use larger batches, or drop_last=True."
            )
        cuts = np.array([self._parallel.rows(int(n))[0][1:] for n in batches.sizes])
        return Batches(batches.starts + cuts[:, 0], cuts[:, 1] - cuts[:, 0], batches.final)

    def execute(
        self,
        data: Arguments,
        order: NDArray[np.int64],
        batches: Batches,
        buffers: OutputBuffers,
        first: int = 0,
        finite: bool = True,
        checked: bool = False,
        pauses: Pauses | None = None,
    ) -> None:
        """Run batches; see `StepPrograms.execute`."""
        mine, done, stopped = self._mine(batches), 0, False
        with turn(self.updating):
            maker = RowMaker(self.ready(data, int(mine.sizes[0]), bool(mine.final[0])))
            self._agree(data, order, batches, mine, pauses is not None, checked)
            ends = _epoch_ends(batches, data.samples)
            for start, stop in self._stretches(mine.final, ends):
                starts, sizes = mine.starts[start:stop], mine.sizes[start:stop]
                part = Batches(starts, sizes, mine.final[start:stop])
                with self._own_numbers(stop - start):
                    super().execute(data, order, part, buffers, first + start, finite, checked)
                done, checked = stop, True
                self._since += int(part.final.sum())
                self._samples += int(part.sizes.sum())
                flushed = bool(ends[stop - 1]) and pauses is not None and self._flush
                if self._since >= self._every or flushed:
                    stopped = self._average(pauses is not None and pauses.heard)
                    if stopped:
                        break
        rows = maker.read(buffers, first, mine.sizes[:done])
        self._parallel.communicator.all_reduce(rows)
        maker.put(rows, buffers, first)
        if pauses is not None:
            buffers.done = first + done
            if stopped:
                pauses.end_together()

    def _stretches(
        self, final: NDArray[np.bool_], ends: NDArray[np.bool_]
    ) -> Iterator[tuple[int, int]]:
        """(start, stop) of batches up to the next average, or the end of an epoch."""
        start = 0
        while start < len(final):
            due = np.cumsum(final[start:]) >= self._every - self._since
            stop = start + 1 + int(np.flatnonzero(due | ends[start:])[0])
            yield start, stop
            start = stop

    def _agree(
        self,
        data: Arguments,
        order: NDArray[np.int64],
        batches: Batches,
        mine: Batches,
        is_run: bool,
        checked: bool,
    ) -> None:
        if not self._agreement.made or (is_run and self._agreement.any_stale()):
            readies = [self.ready(data, size, final) for size, final in mine.kinds[0]]
            size, graphs = int(mine.sizes[0]), [ready.graph for ready in readies]
            self._agreement.make(data, Traces(partial(self._traced, data, size), size, graphs), [])
        if is_run:
            self._agreement.check_run(data, order, batches, checked)

    def _traced(self, data: Arguments, own: int, size: int) -> Graph:
        """The trace for a share of so many samples."""
        if size == own:
            return self.ready(data, size, True).graph
        return self._trace_update(data.types(size), data.structure)[0]

    def _own_numbers(self, steps: int) -> _OwnNumbers:
        states = [slot for slot in self.written_slots() if is_state(slot)]
        return _OwnNumbers(states, self._parallel.rank, self._parallel.size, steps)

    def _average(self, wish: bool) -> bool:
        """Let all ranks have the mean of what they have; whether one of them wants to stop."""
        floats = [slot for slot in self.written_slots() if slot.dtype.kind == "f"]
        values = [slot.value.astype(np.float64).reshape(-1) for slot in floats]
        flat = np.concatenate([[1.0], *values]) * self._samples
        flat = np.append(flat, float(wish))
        self._parallel.communicator.all_reduce(flat)
        start, means = 1, flat / flat[0]
        for slot in floats:
            slot.value = means[start : start + slot.size].reshape(slot.shape)
            start += slot.size
        self._since = self._samples = 0
        return bool(flat[-1] > 0)


class _OwnNumbers:
    """While open, random generators stand at numbers of this rank's own; then behind all ranks'."""

    def __init__(self, states: Sequence[Slot], rank: int, size: int, steps: int) -> None:
        self._states, self._rank, self._size, self._steps = states, rank, size, steps

    def __enter__(self) -> None:
        self._drawn = [int(slot.value[1]) for slot in self._states]
        for slot, drawn in zip(self._states, self._drawn, strict=True):
            slot.value[1] = drawn + self._rank * self._steps

    def __exit__(self, *_: object) -> None:
        for slot, drawn in zip(self._states, self._drawn, strict=True):
            slot.value[1] = drawn + self._size * self._steps


def _epoch_ends(batches: Batches, samples: int) -> NDArray[np.bool_]:
    """Which batches are the last of an epoch; the last of all is."""
    return np.append(batches.starts[1:] % samples == 0, True)
