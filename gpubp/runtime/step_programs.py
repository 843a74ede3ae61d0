"""The programs of a training step, and how they run over the batches of a call.

There are two for each size of batch: one that updates, and with accumulation one that only adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.arguments import shown
from gpubp.backends.base import Backend, Feed
from gpubp.backends.device_array import DeviceArray
from gpubp.compiler.pipeline import Options
from gpubp.compiler.program import Program
from gpubp.compiler.trace import trace
from gpubp.core import ArrayType, ConcreteArray, Graph, checked_dtype, tracing
from gpubp.core.store import Slot
from gpubp.errors import ArgumentError, DataError, GradientError
from gpubp.runtime.batches import Batches, check_values, updates_after
from gpubp.runtime.nesting import nesting, running, turn
from gpubp.runtime.outputs import Results, Room
from gpubp.runtime.pauses import Pauses
from gpubp.runtime.program_cache import Ready, Runner
from gpubp.runtime.totals import terms_of
from gpubp.runtime.update import Updater


class StepPrograms:
    """Makes and runs the programs of a step.

    Args:
        fn: of a batch; returns the loss.
        updater: appends what follows the loss.
        backend, device: where they run.
        options: how they are compiled.

    Attributes:
        updating: those that update.
        adding: those that only add a batch's gradients to sums.
        backend: that runs them.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        updater: Updater,
        backend: str | Backend | None,
        device: str | None,
        options: Options | None,
    ) -> None:
        self._fn, self._updater, self._settings = fn, updater, updater.settings
        self.updating = Runner(self._trace_update, backend, device, True, options, "a step")
        self.backend = self.updating.backend
        self.adding = Runner(self._trace_adding, self.backend, None, True, options)

    def prepare(self, batch: Sequence[Any]) -> Program:
        """Trace and compile for a batch like this one, without running."""
        types = _types_of(batch)
        with turn(self.updating):
            if self._settings.accumulate > 1:
                self.adding.get(types)
            return self.updating.get(types).program

    def explain(self, batch: Sequence[Any], after: str) -> str:
        """See `Step.explain`."""
        with turn(self.updating):
            return self.updating.explain(_types_of(batch), after)

    def updates(self, steps: int, epochs: int, flush: bool) -> NDArray[np.bool_]:
        """Which steps of so many epochs update, after the batches that wait by now."""
        pending = self._updater.pending
        return updates_after(steps, epochs, self._settings.accumulate, pending, flush)

    def room(self, data: list[ConcreteArray], batches: Batches, single: bool = False) -> Room:
        """Room for losses, sums and counts, on the device if part of the data is there."""
        with turn(self.updating):
            size, final = batches.kinds()[0][0]
            ready = self.ready(data, size, final)
        device = any(isinstance(a, DeviceArray) for a in data)
        steps, types = len(batches.starts), ready.program.output_types
        results = [Results(self.backend, steps, *kind, device, single) for kind in types]
        return Room(results, batches.sizes, ready.structure)

    def execute(
        self,
        data: list[ConcreteArray],
        order: NDArray[np.int64],
        batches: Batches,
        room: Room,
        first: int = 0,
        finite: bool = True,
        checked: bool = False,
        pauses: Pauses | None = None,
    ) -> None:
        """Run batches; what they return is put into `room`, from the row `first` on.

        `finite`: refuse NaN and infinity. `checked`: the data were checked before. `pauses`: of a
        run, whose books are kept.
        """

        def look(done: int) -> None:
            room.done = first + start + done
            if pauses is not None:
                pauses.look()

        with turn(self.updating):
            self.require_own_weights()
            kinds, which = batches.kinds()
            readies = [self.ready(data, size, final) for size, final in kinds]
            self.updating.last = readies[0]
            program = readies[0].program
            schedule = np.empty((len(which), 2), np.int64)
            schedule[:, 0], schedule[:, 1] = which, batches.starts
            order = np.ascontiguousarray(order, np.int64)
            loaded = [r.loaded for r in readies]
            for start, stop in self._segments(batches):
                check = None if checked or start else lambda: check_values(program, data, finite)
                outputs = room.rows(first + start, first + stop)
                listen = None if pauses is None else look
                feed = Feed(data, order, [outputs] * len(loaded), check, finite, listen)
                with self.running(readies), self.scheduled(batches.final[start:stop]):
                    self.backend.run(loaded, schedule[start:stop], feed)
                if pauses is not None:
                    room.done = first + stop

    def ready(self, data: Sequence[ConcreteArray], size: int, final: bool) -> Ready:
        """The program for batches of this size of the data, and whether they update."""
        types = tuple(ArrayType((size, *a.shape[1:]), a.dtype) for a in data)
        return (self.updating if final else self.adding).get(types)

    def _segments(self, batches: Batches) -> Iterator[tuple[int, int]]:
        """Runs of steps with no more updates than the schedule looks ahead."""
        scheduler = self._settings.scheduler
        if scheduler is None:
            return batches.segments(None)
        scheduler.require(scheduler.last_epoch + int(batches.final.sum()))
        return batches.segments(scheduler.table.capacity)

    def scheduled(self, final: NDArray[np.bool_]) -> AbstractContextManager[None]:
        """While open, a run may make these updates, with the schedule's rates for each."""
        scheduler = self._settings.scheduler
        return nullcontext() if scheduler is None else scheduler.table.moving(int(final.sum()))

    def running(self, readies: Sequence[Ready]) -> AbstractContextManager[None]:
        """While open, this thread runs these programs."""
        if not nesting.possible:
            return nullcontext()
        return running(self.updating, [ready.graph for ready in readies])

    def require_own_weights(self) -> None:
        """Raise DataError where the parameters hold their averages."""
        ema = self._settings.ema
        if ema is not None and ema.applied:
            raise DataError(
                "the parameters hold their averages: leave `with ema.apply():` before training."
            )

    def written_slots(self) -> list[Slot]:
        """Every slot that the compiled programs write: parameters, state, counters; in order."""
        readies = [*self.updating.readies(), *self.adding.readies()]
        found = [slot for ready in readies for slot, _ in ready.graph.writes]
        return list({id(slot): slot for slot in found}.values())

    def _trace_update(self, types: tuple[ArrayType, ...]) -> tuple[Graph, Any]:
        return self._trace(types, final=True)

    def _trace_adding(self, types: tuple[ArrayType, ...]) -> tuple[Graph, Any]:
        return self._trace(types, final=False)

    def _trace(self, types: tuple[ArrayType, ...], final: bool) -> tuple[Graph, Any]:
        graph, _ = trace(self._fn, list(types))
        if len(graph.outputs) != 1:
            raise GradientError(
                f"the step's function returned {len(graph.outputs)} arrays; expected the loss."
            )
        loss, samples = graph.outputs[0], types[0].shape[0]
        terms = terms_of(graph, loss, samples)
        for term in terms:
            graph.outputs += [graph.lift(v) for v in (term.total, term.count) if v is not None]
        with tracing(graph):
            self._updater.append(graph, loss, samples, terms, final)
        return graph, tuple(term.count is not None for term in terms)


def _types_of(batch: Sequence[Any]) -> tuple[ArrayType, ...]:
    for i, given in enumerate(batch):
        if not (hasattr(given, "shape") and hasattr(given, "dtype")):
            raise ArgumentError(
                f"argument {i} is {shown(given)}, expected an array, or anything with shape and "
                "dtype."
            )
    return tuple(ArrayType(tuple(b.shape), checked_dtype(b.dtype)) for b in batch)
