"""The programs of a training step, and how they run over the batches of a call.

There are two for each size of batch: one that updates, and with accumulation one that only adds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import Backend, Feed
from gpubp.backends.device_array import DeviceArray
from gpubp.compiler.pipeline import Options
from gpubp.compiler.program import Program
from gpubp.compiler.trace import trace
from gpubp.core import Graph, tracing, tree
from gpubp.core.store import Slot
from gpubp.errors import DataError, GradientError, ShapeError
from gpubp.runtime.arguments import Arguments, Types, built, types_of
from gpubp.runtime.batches import Batches, check_values, updates_after
from gpubp.runtime.nesting import nesting, running, turn
from gpubp.runtime.outputs import OutputBuffers, Results, Returned
from gpubp.runtime.pauses import Pauses
from gpubp.runtime.program_cache import Ready, Runner
from gpubp.runtime.rank_facts import facts_of_update
from gpubp.runtime.totals import terms_of
from gpubp.runtime.update import UpdateBuilder


class StepPrograms:
    """Makes and runs the programs of a step.

    Args:
        fn: of a batch; returns the loss, or a tuple that begins with it.
        update_builder: appends what follows the loss.
        backend, device: where they run.
        options: how they are compiled.

    Attributes:
        updating: those that update.
        adding: those that only add a batch's gradients to sums.
        backend: that runs them.
        binds: a step is one call of a program, so that calls on single batches can be bound.
        together: other ranks run them too, and wait for this one.
    """

    binds = True
    together = False

    def __init__(
        self,
        fn: Callable[..., Any],
        update_builder: UpdateBuilder,
        backend: str | Backend | None,
        device: str | None,
        options: Options | None,
    ) -> None:
        self._fn, self._update_builder, self._settings = fn, update_builder, update_builder.settings
        self.updating = Runner(self._trace_update, backend, device, True, options, "a step")
        self.backend = self.updating.backend
        self.adding = Runner(self._trace_adding, self.backend, None, True, options)

    def telling(self) -> AbstractContextManager[None]:
        """While open, an exception that leaves it is told to the ranks that wait for this one."""
        return nullcontext()

    @property
    def apart(self) -> int:
        """Batches until the ranks of a step are alike, so that its state can be saved; 0 now."""
        return 0

    def facts_of_update(self) -> dict[str, str]:
        """How the next updates will be made; see `rank_facts.facts_of_update`."""
        return facts_of_update(self._update_builder.optimizer, self._settings)

    def meet(self) -> None:
        """Let ranks that update by themselves have the same parameters and state; all call."""

    def prepare(self, batch: Sequence[Any]) -> Program:
        """Trace and compile for a batch like this one, without running."""
        types, structure = types_of(batch)
        with turn(self.updating):
            if self._settings.accumulate > 1:
                self.adding.get(types, structure)
            return self.updating.get(types, structure).program

    def explain(self, batch: Sequence[Any], after: str) -> str:
        """See `Step.explain`."""
        with turn(self.updating):
            return self.updating.explain(*types_of(batch), after)

    def updates(self, steps: int, epochs: int, flush: bool) -> NDArray[np.bool_]:
        """Which steps of so many epochs update, after the batches that wait by now."""
        pending = self._update_builder.pending
        return updates_after(steps, epochs, self._settings.accumulate, pending, flush)

    def output_buffers(
        self, data: Arguments, batches: Batches, single: bool = False
    ) -> OutputBuffers:
        """Room for what the steps return, on the device if part of the data is there.

        Raises:
            ShapeError: steps return arrays of different shapes.
        """
        with turn(self.updating):
            kinds = batches.kinds[0]
            ready = self.ready(data, *kinds[0])
            if ready.structure.leaves > 1 and len(kinds) > 1:
                _check_alike([self.ready(data, *kind) for kind in kinds], kinds)
        device = any(isinstance(a, DeviceArray) for a in data.arrays)
        steps, types = len(batches.starts), ready.program.output_types
        results = [Results(self.backend, steps, *kind, device, single) for kind in types]
        return OutputBuffers(results, batches.sizes, ready.structure)

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
        """Run batches; what they return is put into `buffers`, from the row `first` on.

        `finite`: refuse NaN and infinity. `checked`: the data were checked before. `pauses`: of a
        run, whose books are kept.
        """

        def look(done: int) -> None:
            buffers.done = first + start + done
            if pauses is not None:
                pauses.look()

        with turn(self.updating):
            self.require_own_weights()
            kinds, which = batches.kinds
            readies = [self.ready(data, size, final) for size, final in kinds]
            self.updating.last = readies[0]
            program = readies[0].program
            schedule = np.empty((len(which), 2), np.int64)
            schedule[:, 0], schedule[:, 1] = which, batches.starts
            order = np.ascontiguousarray(order, np.int64)
            loaded = [r.loaded for r in readies]
            for start, stop in self._segments(batches):
                known = checked or start > 0
                check = None if known else lambda: check_values(program, data, finite)
                outputs = [buffers.rows(first + start, first + stop)] * len(loaded)
                listen = None if pauses is None else look
                feed = Feed(data.arrays, order, outputs, check, finite, listen, known)
                with self.running(readies), self.scheduled(batches.final[start:stop]):
                    self.backend.run(loaded, schedule[start:stop], feed)
                if pauses is not None:
                    buffers.done = first + stop

    def ready(self, data: Arguments, size: int, final: bool) -> Ready:
        """The program for batches of this size of the data, and whether they update."""
        return (self.updating if final else self.adding).get(data.types(size), data.structure)

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

    def shared_slots(self) -> list[Slot]:
        """Those of them that the ranks of a step have alike between two updates."""
        return self.written_slots()

    def _trace_update(self, types: Types, structure: Any) -> tuple[Graph, Any]:
        return self._trace(types, structure, final=True)

    def _trace_adding(self, types: Types, structure: Any) -> tuple[Graph, Any]:
        return self._trace(types, structure, final=False)

    def _trace(self, types: Types, structure: Any, final: bool) -> tuple[Graph, Any]:
        graph, made = trace(self._fn, built(structure, types))
        _check_loss_first(made, len(graph.outputs))
        loss, leaves = graph.outputs[0], len(graph.outputs)
        samples = graph.samples
        terms = terms_of(graph, loss, samples)
        for term in terms:
            graph.outputs += [graph.lift(v) for v in (term.total, term.count) if v is not None]
        with tracing(graph):
            self._update_builder.append(graph, loss, samples, terms, final)
        counts = tuple(term.count is not None for term in terms)
        return graph, Returned(None if made is tree.LEAF else made, leaves, counts)


def _check_loss_first(made: Any, count: int) -> None:
    """Raise GradientError unless a function returned the loss, or a tuple that begins with it."""
    if made is tree.LEAF:
        return
    if isinstance(made, (tuple, list)) and made and made[0] is tree.LEAF:
        return
    raise GradientError(
        f"the step's function returned a {type(made).__name__} of {count} arrays; expected the "
        "loss, or a tuple that begins with it: return loss, {...}."
    )


def _check_alike(readies: Sequence[Ready], kinds: Sequence[tuple[int, bool]]) -> None:
    """Raise ShapeError where what steps return beside the loss cannot be put together."""
    first, *others = [r.program.output_types[: r.structure.leaves] for r in readies]
    for (size, _), other in zip(kinds[1:], others):
        for (shape, _), (differing, _) in zip(first, other):
            if shape != differing:
                raise ShapeError(
                    f"the step's function returns an array of shape {shape} for {kinds[0][0]} "
                    f"samples and {differing} for {size}, which do not go into one array: pass "
                    "drop_last=True to leave out a shorter batch, or return a mean."
                )
