"""The programs of a step that is shared by ranks, and how they run over the batches of a call.

There are two: one finds the gradients of a piece of a batch, as sums, and one updates with what the
sums of all ranks make. Between them Python lets the ranks talk: about counts and module state at
once (`rank_state.py`), about gradients where an update follows (`rank_sums.py`), about what is
returned at the end of the call (`rank_results.py`).

Holds in between: parameters, optimiser, module state and random counters are alike on every rank
before each batch, so every rank updates in the same way.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.backends.base import Backend
from gpubp.compiler.pipeline import Options
from gpubp.compiler.program import Program
from gpubp.compiler.trace import trace
from gpubp.core import ArrayType, Graph, WholeType, tracing
from gpubp.core.store import Slot
from gpubp.distributed.layout import Layout
from gpubp.distributed.leaving import telling
from gpubp.errors import DataError
from gpubp.nn.piece import Piece
from gpubp.ops.across import means_across
from gpubp.runtime.arguments import Arguments, Types, types_of
from gpubp.runtime.batches import Batches, check_values
from gpubp.runtime.bound_call import Single
from gpubp.runtime.nesting import turn
from gpubp.runtime.outputs import OutputBuffers, Results
from gpubp.runtime.pauses import Pauses
from gpubp.runtime.program_cache import Ready, Runner
from gpubp.runtime.rank_agreement import Agreement, Traces
from gpubp.runtime.rank_exchange import Exchange, HandedOver, Stretch, stretches
from gpubp.runtime.rank_means import RankMeans
from gpubp.runtime.rank_pieces import Pieces
from gpubp.runtime.rank_run import RankRun
from gpubp.runtime.rank_shards import Shards
from gpubp.runtime.rank_state import RankState
from gpubp.runtime.rank_sums import GradientSums
from gpubp.runtime.step_programs import StepPrograms
from gpubp.runtime.update import UpdateBuilder

_ONE_UPDATE = np.ones(1, np.bool_)


class RankPrograms(StepPrograms):
    """The programs of a step with a communicator, and how a batch is shared.

    Attributes:
        updating: programs of pieces, which only add up gradients.
        finishing: the program that updates.
    """

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
        assert parallel is not None
        self._parallel, self.together = parallel, parallel.size > 1
        self._agreement = Agreement(parallel, update_builder, self.backend)
        self._means = RankMeans(parallel.communicator) if parallel.sync_batch_norm else None
        self._shards, self._layout, self._handed = None, None, HandedOver()
        if parallel.divides:
            self._shards = Shards.of_optimizer(parallel, update_builder.optimizer)
            self._layout = self._shards.layout
        elif parallel.cap is not None:
            self._layout = Layout(parallel.size, parallel.cap)
        self.finishing = Runner(self._trace_finish, self.backend, None, False, options, "an update")
        self._bound: tuple[Ready, Single] | None = None
        self._sums: tuple[list[int], GradientSums] | None = None

    def _trace_update(self, types: Types, structure: Any) -> tuple[Graph, Any]:
        with means_across(self._means):
            graph, made = self._trace(types, structure, final=False)
        if self._parallel.cap is not None:
            with tracing(graph):
                self._handed.append(graph, self._stretches())
        return graph, made

    def _trace_finish(self, types: Types, structure: Any) -> tuple[Graph, Any]:
        graph, made = trace(lambda: (), [])
        with tracing(graph):
            if self._shards is None:
                self._update_builder.append_update_of_sums(graph)
            else:
                self._shards.begin(self._update_builder.optimizer)
                self._update_builder.append_update_of_sums(graph, self._shards.cut)
        return graph, made

    def ready(self, data: Arguments, size: int, final: bool) -> Ready:
        """The program for a piece of so many samples."""
        return self.updating.get(data.types(size), data.structure)

    def prepare(self, batch: Sequence[Any]) -> Program:
        """Trace and compile for this rank's pieces of a batch like this one."""
        types, structure = types_of(batch)
        samples = next(t.shape[0] for t in types if not isinstance(t, WholeType))
        with turn(self.updating):
            for size in self._sizes([samples]):
                ready = self.updating.get(_of_size(types, size), structure)
            self._finishing()
            return ready.program

    def telling(self) -> AbstractContextManager[None]:
        """See `StepPrograms.telling`."""
        return telling(self._parallel.communicator)

    @property
    def apart(self) -> int:
        """See `StepPrograms.apart`."""
        pending = self._update_builder.pending
        return self._settings.accumulate - pending if pending else 0

    def _sizes(self, samples: Sequence[int]) -> list[int]:
        """The sizes of this rank's pieces of batches; one, at least."""
        found = {hi - lo for n in samples for _, lo, hi in self._parallel.rows(n)} - {0}
        return sorted(found, reverse=True) or [1]

    def output_buffers(
        self, data: Arguments, batches: Batches, single: bool = False
    ) -> OutputBuffers:
        """Room for what the steps return, on the host."""
        with turn(self.updating):
            ready = self.ready(data, self._sizes(batches.sizes[:1].tolist())[0], True)
        steps, types = len(batches.starts), ready.program.output_types
        results = [Results(self.backend, steps, *kind, False, single) for kind in types]
        return OutputBuffers(results, batches.sizes.copy(), ready.structure)

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
        with turn(self.updating):
            self.require_own_weights()
            if self._settings.scheduler is not None:
                scheduler = self._settings.scheduler
                scheduler.require(scheduler.last_epoch + int(batches.final.sum()))
            self._check_sizes(batches)
            order = np.ascontiguousarray(order, np.int64)
            sizes = self._sizes(np.unique(batches.sizes).tolist())
            readies = {size: self.ready(data, size, True) for size in sizes}
            self.updating.last = readies[sizes[0]]
            if not checked:
                check_values(readies[sizes[0]].program, data, finite)
            self._agree(data, order, batches, pauses is not None, checked)
            pieces = Pieces(self.backend, data, order, readies.__getitem__)
            sums, terms = self._gradient_sums(), self._update_builder.sums
            state = RankState([r.graph for r in readies.values()], self._own_slots(), terms)
            known = list(readies.values())
            inside = partial(self.running, known)
            run = RankRun(self._parallel, known, pieces, sums, state, inside, self._means)
            finish = partial(self._finish, *self._finishing())
            done = run.over(batches, self._update_builder.waiting, finish, pauses)
            run.put(buffers, first, done)
            if pauses is not None:
                buffers.done = first + done
                run.stop(pauses)

    def _check_sizes(self, batches: Batches) -> None:
        """Raise DataError where a rank would not come to where all meet in the program."""
        parallel, least = self._parallel, int(batches.sizes.min())
        if self._means is not None and parallel.data == "shared" and least < parallel.size:
            raise DataError(
                f"a batch has {least} samples, and with sync_batch_norm each of {parallel.size} "
                "ranks needs one: use larger batches, or drop_last=True."
            )

    def _agree(
        self,
        data: Arguments,
        order: NDArray[np.int64],
        batches: Batches,
        is_run: bool,
        checked: bool,
    ) -> None:
        """Compare with the other ranks; the first time take over the state of rank 0."""
        agreement = self._agreement
        if not agreement.made or (is_run and agreement.any_stale()):
            also, finish = list[Slot](), self._finishing()[0].graph
            if self._shards is not None:  # what an update reads depends on a rank's pieces
                also = [slot for slot, _ in finish.writes]
                also += self._shards.common(self._update_builder.optimizer)
            size = self._sizes(batches.sizes[:1].tolist())[0]
            graphs = [r.graph for r in self.updating.readies()]
            update = finish if self._shards is None else None
            traces = Traces(partial(self._traced, data, size), size, graphs, update)
            agreement.make(data, traces, self._own_slots(), also)
        if is_run:
            agreement.check_run(data, order, batches, checked)

    def _traced(self, data: Arguments, own: int, size: int) -> Graph:
        """The trace for pieces of so many samples."""
        if size == own:
            return self.ready(data, size, True).graph
        return self._trace_update(data.types(size), data.structure)[0]

    def _finishing(self) -> tuple[Ready, Single]:
        """The program that updates, bound."""
        ready = self.finishing.get((), self._signature())
        if self._bound is None or self._bound[0] is not ready:
            self._bound = ready, Single(ready, self.backend, [])
        return self._bound

    def _signature(self) -> list[tuple[bool, int]]:
        """What the update reads of the sums: traced again where that is other than before."""
        sums = self._update_builder.sums
        return [(term.counted, len(term.of)) for term in sums]

    def _own_slots(self) -> list[Slot]:
        """What the step keeps between batches, which is no module's state."""
        terms, waiting = self._update_builder.sums, self._update_builder.waiting
        sums = [s for t in terms for s in t.of.values()]
        found = [waiting, *[t.count for t in terms], *sums, *self._handed.tokens]
        if self._shards is not None:
            found += self._shards.slots(self._update_builder.optimizer)
        return found

    def _finish(self, ready: Ready, update: Single) -> None:
        """Update with the sums."""
        with self.running([ready]), self.scheduled(_ONE_UPDATE):
            update([])
        if self._shards is not None:
            self._shards.gather(self._update_builder.optimizer.parameters())

    def _gradient_sums(self) -> GradientSums:
        """The sums of gradients as they lie now; what is kept of pieces outlives calls."""
        slots = [slot for term in self._update_builder.sums for slot in term.of.values()]
        key = [id(slot) for slot in slots]
        if self._sums is None or self._sums[0] != key:
            terms = len(self._update_builder.sums)
            self._handed.exchange = self._exchange()
            made = GradientSums(self._parallel, slots, terms, self._handed.exchange)
            self._sums = key, made
        return self._sums[1]

    def _exchange(self) -> Exchange | None:
        """What sends the sums, where they are not summed whole and where they lie."""
        parallel, settings = self._parallel, self._settings
        if self._layout is None or parallel.deterministic:
            return None
        scatter = self._shards is not None and not settings.reads_all_gradients
        if not scatter and parallel.cap is None:
            return None
        return Exchange(parallel, self._stretches(), scatter)

    def _stretches(self) -> list[Stretch]:
        assert self._layout is not None
        params = self._update_builder.optimizer.parameters()
        return stretches(self._layout, params, self._update_builder.sums)

    def written_slots(self) -> list[Slot]:
        """Every slot that the compiled programs write; of a parameter in pieces the whole."""
        found = [slot for ready in self.finishing.readies() for slot, _ in ready.graph.writes]
        if self._shards is not None:  # pieces differ between ranks, and what is saved does not
            found = [slot for slot in found if not isinstance(slot, Piece)]
            found += self._update_builder.optimizer.parameters()
        return list({id(slot): slot for slot in [*super().written_slots(), *found]}.values())

    def shared_slots(self) -> list[Slot]:
        """See `StepPrograms.shared_slots`."""
        mine = {id(slot) for slot in self._own_slots()}
        return [slot for slot in self.written_slots() if id(slot) not in mine]


def _of_size(types: Types, size: int) -> Types:
    """The same types for another number of samples."""
    return tuple(
        t if isinstance(t, WholeType) else ArrayType((size, *t.shape[1:]), t.dtype) for t in types
    )
