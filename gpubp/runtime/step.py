"""`gp.compile_step`: forward, loss, backward and update of one training step as one program."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.backends import get_backend
from gpubp.backends.base import Backend, Feed
from gpubp.backends.device_array import DeviceArray
from gpubp.compiler.pipeline import Options
from gpubp.compiler.program import Program
from gpubp.compiler.trace import trace
from gpubp.core import ArrayType, ConcreteArray, Graph, tracing
from gpubp.core.store import Slot
from gpubp.errors import CopyError, DataError, GradientError
from gpubp.runtime.batches import (
    Batches,
    check_values,
    checked_data,
    epoch_batches,
    orders,
    updates_after,
)
from gpubp.runtime.bound_call import Singles, key_of
from gpubp.runtime.loss_scale import LossScale, as_loss_scale
from gpubp.runtime.nesting import nesting, require_not_running, running, turn
from gpubp.runtime.outputs import Results
from gpubp.runtime.pauses import Pauses
from gpubp.runtime.program_cache import Ready, Runner
from gpubp.runtime.report import report
from gpubp.runtime.totals import NO_COUNT, terms_of
from gpubp.runtime.update import (
    Settings,
    StepAverage,
    StepOptimizer,
    StepScheduler,
    Updater,
    require_count,
)

__all__ = ["Step", "compile_step"]


class Step:
    """A compiled training step; made by `gp.compile_step`.

    The parameters, the optimiser's state and the random-number counter live outside of it: several
    steps may update the same parameters.
    """

    def __init__(
        self,
        fn: Callable[..., Any],
        optimizer: StepOptimizer,
        backend: str | Backend | None = None,
        device: str | None = None,
        settings: Settings | None = None,
        seed: int = 0,
        options: Options | None = None,
    ) -> None:
        self._settings = settings or Settings()
        self._settings.check(optimizer)
        self._fn, self._options = fn, options
        self._updater = Updater(optimizer, self._settings)
        self._rng = np.random.default_rng(seed)
        self._runner = Runner(self._trace_update, backend, device, True, options, "a step")
        self._adding = Runner(self._trace_adding, self._runner.backend, None, True, options)
        self._ran: _Room | None = None
        self._done = 0
        self._singles, self._adding_singles = Singles(), Singles()
        if not optimizer.parameters():
            raise GradientError("the optimizer has no parameters to train.")
        self._floating = optimizer.parameters()[0].dtype

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise CopyError(
            "a Step cannot be copied or pickled: its function refers to the model it was made "
            "with. Copy the parts together, as in `model, optimizer = copy.deepcopy((model, "
            "optimizer))` (with schedule, EMA and loss scale, if there are any), and call "
            "gp.compile_step on the copies."
        )

    @property
    def backend(self) -> Backend:
        return self._runner.backend

    @property
    def loss_scale(self) -> LossScale | None:
        """What scales the loss before its gradients are taken, if anything does."""
        return self._settings.loss_scale

    @property
    def program(self) -> Program | None:
        """The program that ran last."""
        return None if self._runner.last is None else self._runner.last.program

    @property
    def settings(self) -> Settings:
        """How it updates."""
        return self._settings

    def unscheduled(self) -> Step:
        """A step of the same function and optimiser that moves no schedule.

        Gradients that wait for an update of one are not seen by the other.
        """
        settings = replace(self._settings, scheduler=None)
        return Step(
            self._fn, self._updater.optimizer, self.backend, None, settings, 0, self._options
        )

    @property
    def grads(self) -> list[NDArray[Any]]:
        """With keep_grads: the last update's gradients, one a parameter (before clipping)."""
        return self._updater.grads

    @property
    def losses(self) -> Any:
        """The loss of every batch of the last `run`, as far as it came: what an exception kept it
        from returning. While it goes on, as far as is known."""
        result, done = self._ran, self._done
        if result is None:
            return np.zeros(0, self._floating)
        return result.losses if done == result.steps else result.losses[:done]

    def forget_losses(self) -> None:
        """Let go of the losses of the last run."""
        self._ran, self._done = None, 0

    @property
    def pending(self) -> int:
        """With accumulate: batches whose gradients wait for the next update."""
        return self._updater.pending

    @property
    def totals(self) -> NDArray[np.float64]:
        """(batches, terms, 2): the sums and counts that the losses of the last `run` are made of.

        A loss that is a mean over samples is one term, whose count is the batch's size; a sum
        counts NaN. `gpubp.runtime.totals.together` makes one loss of them.

        Raises:
            DataError: `run` has not been called.
        """
        if self._ran is None:
            raise DataError("there are no totals before the first run: call step.run(...).")
        return self._ran.totals()[: self._done]

    def __call__(self, *batch: ArrayLike) -> Any:
        """Run one step on one batch; with accumulate, every so many calls update.

        Args:
            *batch: arrays of equal first size, in the order of fn's arguments. Float arrays are
                converted to the parameters' dtype.

        Returns:
            The loss before the update: a NumPy scalar, or an array of shape () on the device if
            part of the batch is there.
        """
        key = key_of(batch)
        with turn(self._runner) if nesting.possible else self._runner.lock:
            final = self._next_is_final()
            singles = self._singles if final else self._adding_singles
            single = singles.find(key)
            if single is None:
                return self._first_call(batch, key, final)
            self._runner.last = single.ready
            if self._settings.plain and not nesting.possible:
                return single(batch)[0][0]
            self._require_own_weights()
            with self._running([single.ready]), self._scheduled(np.full(1, final)):
                return single(batch)[0][0]

    def _first_call(
        self, batch: Sequence[ArrayLike], key: tuple[Any, ...] | None, final: bool
    ) -> Any:
        data = checked_data(batch, self._floating, self.backend)
        size = len(data[0])
        one = Batches.one(size, final)
        room = self._room(data, one, single=True)
        self._execute(data, np.arange(size), one, room, finite=False)
        if self._runner.last is not None:
            singles = self._singles if final else self._adding_singles
            singles.add(key, self._runner.last, self.backend, data)
        return room.losses

    def _next_is_final(self) -> bool:
        accumulate = self._settings.accumulate
        return accumulate == 1 or self._updater.pending + 1 >= accumulate

    def run(
        self,
        *data: ArrayLike,
        batch_size: int = 32,
        epochs: int = 1,
        shuffle: bool = True,
        seed: int | None = None,
        drop_last: bool = False,
        order: ArrayLike | None = None,
        progress: Callable[[int, int], None] | None = None,
        flush: bool = True,
        checked: bool = False,
    ) -> Any:
        """Run whole epochs on resident data, without Python between steps.

        Args:
            *data: arrays of equal first size, in the order of fn's arguments. Host arrays that
                exceed the memory of a device go there in chunks, with the same results.
            batch_size: samples a step; the last batch of an epoch is shorter unless `drop_last`.
            epochs: passes over the data.
            shuffle: a new random order each epoch.
            seed: of the order; default continues the step's own stream.
            order: int array of sample indices to use for one epoch instead, or of one row of them
                for each epoch (then `epochs` is their number); overrides `shuffle`.
            progress: called after each epoch with (epochs done, epochs).
            flush: with accumulate, update at the end of each epoch with the batches that have
                come together, be they fewer. Else they wait for the next epoch, run or call.
            checked: the data passed the checks of an earlier run and have not changed.

        Returns:
            The loss of every batch, in order; on the device if part of the data is there. NaN for
            a batch in which nothing counts (all labels ignored), whose gradient is 0.

        Ctrl-C ends a run in the main thread within about 0.1 s (or at the end of the step, if that
        takes longer) with KeyboardInterrupt. Whole steps are done then: parameters, optimiser,
        schedule and averages are as after as many steps of an uninterrupted run, `losses` has what
        was returned so far, and the stream of orders stands behind the epochs that were begun (one,
        at least). The same holds for what `progress` raises.

        Raises:
            DataError: empty data, NaN or infinity, indices out of range, labels out of range.
            NestingError: called by a custom op inside of a run of this step.
        """
        if nesting.possible:
            require_not_running(self._runner)
        arrays = checked_data(data, self._floating, self.backend)
        self.forget_losses()
        with Pauses() as pauses:
            many = epochs != 1 and shuffle and seed is None and order is None
            before = self._rng.bit_generator.state if many else None
            rng = self._rng if seed is None else np.random.default_rng(seed)
            indices = orders(len(arrays[0]), epochs, shuffle, rng, order)
            try:
                room = self._run_orders(
                    arrays, indices, batch_size, drop_last, flush, checked, progress, pauses
                )
            except BaseException:
                if before is not None:
                    self._draw_again(before, len(arrays[0]), len(indices))
                raise
        return room.losses

    def _run_orders(
        self,
        arrays: list[ConcreteArray],
        indices: list[NDArray[np.int64]],
        batch_size: int,
        drop_last: bool,
        flush: bool,
        checked: bool,
        progress: Callable[[int, int], None] | None,
        pauses: Pauses,
    ) -> _Room:
        """Run epochs of checked arrays in these orders."""
        size = len(indices[0])
        require_count("batch_size", batch_size)
        if batch_size > size:
            raise DataError(f"batch_size is {batch_size}, but there are only {size} samples.")

        def batches(count: int) -> Batches:
            steps = size // batch_size if drop_last else -(-size // batch_size)
            each = self._settings.accumulate
            final = updates_after(steps, count, each, self._updater.pending, flush)
            return epoch_batches(size, batch_size, drop_last, count, final)

        whole = batches(len(indices))
        room = self._ran = self._room(arrays, whole)
        if progress is None:
            order = np.concatenate(indices)
            self._execute(arrays, order, whole, room, checked=checked, pauses=pauses)
            return room
        for i, chosen in enumerate(indices):
            first, known = self._done, checked or i > 0
            self._execute(arrays, chosen, batches(1), room, first, checked=known, pauses=pauses)
            with pauses.open():
                progress(i + 1, len(indices))
        return room

    def _draw_again(self, before: Mapping[str, Any], samples: int, epochs: int) -> None:
        """Let the stream of orders stand behind the epochs of a run that were begun."""
        self._rng.bit_generator.state = before
        each = 1 if self._ran is None else self._ran.steps // epochs
        orders(samples, max(1, -(-self._done // each)), True, self._rng, None)

    def report(self, profile: bool = False) -> str:
        """Instructions, fusion, arithmetic, bytes moved fused and unfused, arena size.

        Args:
            profile: also run each part alone and show its time beside its roofline bound;
                parameters and state stay as they are. For backends that can.
        """
        return report(self._runner, profile)

    def prepare(self, *batch: Any) -> Program:
        """Trace and compile for a batch of these types without running; returns the program.

        Args:
            *batch: arrays, or anything with `shape` and `dtype`.
        """
        types = _types_of(batch)
        with turn(self._runner):
            if self._settings.accumulate > 1:
                self._adding.get(types)
            return self._runner.get(types).program

    def explain(self, *batch: Any, after: str = "memory_plan") -> str:
        """What one pass of the compiler makes of this step, as text; nothing is run or kept.

        Args:
            *batch: arrays, or anything with `shape` and `dtype`.
            after: "trace", "views", "fuse", "lower", "row_padding", "schedule", "memory_plan" (the
                program), or "encode" (what the backend makes of it).

        Raises:
            UnknownNameError: no such pass.
        """
        with turn(self._runner):
            return self._runner.explain(_types_of(batch), after)

    def _room(self, data: list[ConcreteArray], batches: Batches, single: bool = False) -> _Room:
        """Room for losses, sums and counts, on the device if part of the data is there."""
        with turn(self._runner):
            size, final = batches.kinds()[0][0]
            ready = self._ready(data, size, final)
        device = any(isinstance(a, DeviceArray) for a in data)
        steps, types = len(batches.starts), ready.program.output_types
        results = [Results(self.backend, steps, *kind, device, single) for kind in types]
        return _Room(results, batches.sizes, ready.structure)

    def _execute(
        self,
        data: list[ConcreteArray],
        order: NDArray[np.int64],
        batches: Batches,
        room: _Room,
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
            self._done = first + start + done
            if pauses is not None:
                pauses.look()

        with turn(self._runner):
            self._require_own_weights()
            kinds, which = batches.kinds()
            readies = [self._ready(data, size, final) for size, final in kinds]
            self._runner.last = readies[0]
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
                with self._running(readies), self._scheduled(batches.final[start:stop]):
                    self.backend.run(loaded, schedule[start:stop], feed)
                if pauses is not None:
                    self._done = first + stop

    def written_slots(self) -> list[Slot]:
        """Every slot that the compiled programs write: parameters, state, counters; in order."""
        readies = [*self._runner.readies(), *self._adding.readies()]
        found = [slot for ready in readies for slot, _ in ready.graph.writes]
        return list({id(slot): slot for slot in found}.values())

    def state_dict(self) -> dict[str, Any]:
        """What the step itself remembers: {"accumulated", "rng"}, nested numbers and arrays.

        "accumulated" is what waits for the next update, "rng" the state of the stream that orders
        are drawn from. Parameters, optimiser, schedule and averages have states of their own.
        """
        return {"accumulated": self._updater.state_dict(), "rng": self._rng.bit_generator.state}

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state; if it raises, nothing has changed.

        Raises:
            DataError, ShapeError: gradients that are not those of this step's parameters.
        """
        rng = np.random.default_rng()
        rng.bit_generator.state = state_dict["rng"]
        self._updater.load_state_dict(state_dict["accumulated"])
        self._rng = rng

    def _ready(self, data: Sequence[ConcreteArray], size: int, final: bool) -> Ready:
        types = tuple(ArrayType((size, *a.shape[1:]), a.dtype) for a in data)
        return (self._runner if final else self._adding).get(types)

    def _segments(self, batches: Batches) -> Iterator[tuple[int, int]]:
        """Runs of steps with no more updates than the schedule looks ahead."""
        scheduler = self._settings.scheduler
        if scheduler is None:
            return batches.segments(None)
        scheduler.require(scheduler.last_epoch + int(batches.final.sum()))
        return batches.segments(scheduler.table.capacity)

    def _scheduled(self, final: NDArray[np.bool_]) -> AbstractContextManager[None]:
        """While open, a run may make these updates, with the schedule's rates for each."""
        scheduler = self._settings.scheduler
        return nullcontext() if scheduler is None else scheduler.table.moving(int(final.sum()))

    def _running(self, readies: Sequence[Ready]) -> AbstractContextManager[None]:
        """While open, this thread runs these programs."""
        if not nesting.possible:
            return nullcontext()
        return running(self._runner, [ready.graph for ready in readies])

    def _require_own_weights(self) -> None:
        ema = self._settings.ema
        if ema is not None and ema.applied:
            raise DataError(
                "the parameters hold their averages: leave `with ema.apply():` before training."
            )

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
    return tuple(ArrayType(tuple(b.shape), np.dtype(b.dtype)) for b in batch)


@dataclass(frozen=True)
class _Room:
    """What a run returns: the loss of each batch, and the sums and counts of its terms.

    Attributes:
        results: the program's outputs: losses; for each term its sum, and its count if it has one.
        sizes: of the batches.
        counts: for each term, whether it has a count.
    """

    results: Sequence[Results]
    sizes: NDArray[np.int64]
    counts: Sequence[bool]

    def rows(self, start: int, stop: int) -> list[Any]:
        """Where some of the batches put theirs, as a `Feed` takes it."""
        return [result.rows(start, stop) for result in self.results]

    @property
    def steps(self) -> int:
        """How many batches it has room for."""
        return len(self.sizes)

    @property
    def losses(self) -> Any:
        """One number a batch, as the user gets them."""
        return self.results[0].value

    def totals(self) -> NDArray[np.float64]:
        """See `Step.totals`."""
        columns = [_on_host(result.value) for result in self.results]
        if not self.counts:
            sizes = self.sizes.astype(np.float64)
            return np.stack([columns[0] * sizes, sizes], axis=-1)[:, np.newaxis]
        found = np.full((len(self.sizes), len(self.counts), 2), NO_COUNT)
        rest = iter(columns[1:])
        for i, has_count in enumerate(self.counts):
            found[:, i, 0] = next(rest)
            if has_count:
                found[:, i, 1] = next(rest)
        return found


def _on_host(values: Any) -> NDArray[np.float64]:
    held = values if isinstance(values, np.ndarray) else values.get()
    return np.asarray(held, np.float64)


def compile_step(
    fn: Callable[..., Any],
    optimizer: StepOptimizer,
    *,
    backend: str | Backend | None = None,
    device: str | None = None,
    max_grad_norm: float | None = None,
    max_grad_value: float | None = None,
    keep_grads: bool = False,
    accumulate: int = 1,
    scheduler: StepScheduler | None = None,
    ema: StepAverage | None = None,
    loss_scale: LossScale | str | float | None = None,
    seed: int = 0,
    options: Options | None = None,
) -> Step:
    """Compile a training step.

    Args:
        fn: takes a batch (one array an argument, samples along the first axis) and returns a scalar
            loss; it is traced, so it may be any traceable Python. The loss is taken for a mean over
            samples, but for what losses of `gpubp.nn` and `gp.ops.mean_over` say they are.
        optimizer: an optimiser of `gpubp.optim`; every parameter in it must reach the loss.
        backend: "numba", "numpy" or an instance; default from GPUBP_BACKEND, else the best.
        device: "cpu", "cuda" or "cuda:N"; default from GPUBP_DEVICE, else the CPU.
        max_grad_norm: clip the gradients' global norm. Gradients are kept in a buffer then.
        max_grad_value: clip each element of the gradients to [-max_grad_value, max_grad_value],
            before the norm.
        keep_grads: keep the gradients of the last update in `step.grads`.
        accumulate: update once for so many batches, with the gradient that one batch of all their
            samples would give.
        scheduler: a schedule of `gpubp.optim.lr_scheduler` for this optimiser, which moves on by
            one after each update, inside the program: do not call its `step` as well.
        ema: an average of the weights (`gpubp.optim.EMA`), moved on after each update.
        loss_scale: "dynamic", a number, or a `gp.LossScale`: gradients are taken of the scaled loss
            and scaled back; an update with one that is not finite is skipped as a whole. Default is
            "dynamic" where products are computed in float16, else none.
        seed: of the order in which `run` shuffles.
        options: for tests: switch fusion or memory reuse off.

    Returns:
        The step: call it with one batch, or `run` whole epochs.

    Raises:
        DataError: an argument out of its range, or a scheduler of another optimiser.
    """
    target = get_backend(backend, device)
    if loss_scale is None and target.precision == "float16":
        loss_scale = "dynamic"
    scale = as_loss_scale(loss_scale)
    settings = Settings(
        max_grad_norm, max_grad_value, keep_grads, accumulate, scheduler, ema, scale
    )
    return Step(fn, optimizer, target, None, settings, seed, options)
