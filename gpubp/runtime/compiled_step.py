"""A compiled training step: what `gp.compile_step` returns, and users call."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gpubp.arguments import checked, reading
from gpubp.backends.base import Backend
from gpubp.compiler.pipeline import Options
from gpubp.compiler.program import Program
from gpubp.core.store import Slot
from gpubp.errors import CopyError, GradientError
from gpubp.runtime.arguments import Arguments, checked_arguments
from gpubp.runtime.batches import Batches
from gpubp.runtime.bound_call import Single, Singles, key_of
from gpubp.runtime.epochs import Epochs
from gpubp.runtime.loss_scale import LossScale
from gpubp.runtime.nesting import nesting, require_not_running, turn
from gpubp.runtime.orders import OrderStream
from gpubp.runtime.pauses import Pauses
from gpubp.runtime.ran import Ran
from gpubp.runtime.report import Report, report
from gpubp.runtime.search import SearchPrograms
from gpubp.runtime.settings import Settings, StepOptimizer, searches
from gpubp.runtime.step_programs import StepPrograms
from gpubp.runtime.update import UpdateBuilder

_NOT_COPIED = """a Step cannot be copied or pickled: its function refers to the model it was made \
with. Copy the parts together, as in `model, optimizer = copy.deepcopy((model, optimizer))` (with \
schedule, EMA and loss scale, if there are any), and call gp.compile_step on the copies."""


def _of_ranks(settings: Settings) -> type[StepPrograms]:
    """The programs of a step that ranks share; imported by those who have ranks alone."""
    from gpubp.runtime import rank_averages, rank_programs

    return rank_programs.RankPrograms if settings.reduced else rank_averages.AveragingPrograms


class Step(Ran):
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
        kind: type[StepPrograms] = StepPrograms
        if searches(optimizer):
            kind, self._settings = SearchPrograms, replace(self._settings, keep_grads=True)
        elif self._settings.parallel is not None:
            kind = _of_ranks(self._settings)
        self._fn, self._options = fn, options
        self._update_builder = UpdateBuilder(optimizer, self._settings)
        self._orders = OrderStream(seed)
        self._programs = kind(fn, self._update_builder, backend, device, options)
        self._runner = self._programs.updating
        self._singles, self._adding_singles = Singles(), Singles()
        if not optimizer.parameters():
            raise GradientError("the optimizer has no parameters to train.")
        super().__init__(optimizer.parameters()[0].dtype)

    def __reduce_ex__(self, protocol: Any) -> Any:
        raise CopyError(_NOT_COPIED)

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
        return self._settings

    def unscheduled(self) -> Step:
        """A step of the same function and optimiser that moves no schedule.

        Gradients that wait for an update of one are not seen by the other.
        """
        still, optimizer = replace(self._settings, scheduler=None), self._update_builder.optimizer
        return Step(self._fn, optimizer, self.backend, None, still, 0, self._options)

    @property
    def grads(self) -> list[NDArray[Any]]:
        """With keep_grads: the last update's gradients, one a parameter (before clipping)."""
        return self._update_builder.grads

    @property
    def pending(self) -> int:
        """With accumulate: batches whose gradients wait for the next update."""
        return self._update_builder.pending

    @property
    def apart(self) -> int:
        """Batches until all ranks have the same state, at the latest; 0 if they have it now."""
        return self._programs.apart

    def meet(self) -> None:
        """Let ranks that update by themselves have the same state now; all of them call."""
        self._programs.meet()

    def __call__(self, *batch: Any) -> Any:
        """Run one step on one batch; with accumulate, every so many calls update.

        Args:
            *batch: arrays of equal first size, tuples and dicts of such, as fn has them; what has
                no samples is marked by `gp.whole`. Floats get the parameters' dtype.

        Returns:
            What fn returns, from before the update: the loss, a NumPy scalar; or a tuple that
            begins with it. Arrays are on the device if part of the batch is there.
        """
        key = key_of(batch)
        with turn(self._runner) if nesting.possible else self._runner.lock:
            final = self._next_is_final()
            singles = self._singles if final else self._adding_singles
            single = singles.find(key)
            if single is None:
                return self._first_call(batch, key, final)
            self._runner.last = single.ready
            if self._settings.plain and not nesting.possible and single.alone:
                return single(batch)[0][0]
            return self._call(single, batch, final)

    def _call(self, single: Single, batch: Sequence[Any], final: bool) -> Any:
        programs, ready = self._programs, single.ready
        programs.require_own_weights()
        with programs.running([ready]), programs.scheduled(np.full(1, final)):
            found = single(batch)
        if single.alone:
            return found[0][0]
        return ready.structure.of([rows[0].copy() for rows in found])

    def _first_call(self, batch: Sequence[Any], key: tuple[Any, ...] | None, final: bool) -> Any:
        with self._programs.telling():
            return self._called(batch, key, final)

    def _called(self, batch: Sequence[Any], key: tuple[Any, ...] | None, final: bool) -> Any:
        data = checked_arguments(batch, self._floating, self.backend)
        singles = self._singles if final else self._adding_singles
        if key is None:
            key = data.key
            single = singles.find(key)
            if single is not None:
                self._runner.last = single.ready
                return self._call(single, data.arrays, final)
        size = data.samples
        one = Batches.one(size, final)
        buffers = self._programs.output_buffers(data, one, single=True)
        self._programs.execute(data, np.arange(size), one, buffers, finite=False)
        if self._runner.last is not None and self._programs.binds:
            singles.add(key, self._runner.last, self.backend, data.arrays)
        return buffers.value

    def _next_is_final(self) -> bool:
        accumulate = self._settings.accumulate
        return accumulate == 1 or self._update_builder.pending + 1 >= accumulate

    @checked
    def run(
        self,
        *data: Any,
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
            *data: arrays of equal first size, and tuples and dicts of such, in the order of fn's
                arguments; what has no samples, and each step reads whole, is marked by `gp.whole`.
                Host arrays that exceed a device's memory go there in chunks, with the same results.
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
            The loss of every batch, in order; on the device if part of the data is there. NaN where
            nothing counts (all labels ignored): the gradient is 0. If fn returns a tuple, which
            begins with the loss, such a tuple, each array with an axis of steps in front.

        Ctrl-C ends a run in the main thread within about 0.1 s (or at the end of a longer step),
        with KeyboardInterrupt. All state is then as after as many steps of an uninterrupted run,
        `losses` has what was returned, and the stream of orders stands behind the epochs begun; so
        it is with what `progress` raises. A run that is refused uses up no order.

        Raises:
            DataError: empty data, NaN or infinity, indices out of range, labels out of range.
            NestingError: called by a custom op inside of a run of this step.
        """
        if nesting.possible:
            require_not_running(self._runner)
        with self._programs.telling():
            arrays: Arguments = checked_arguments(data, self._floating, self.backend)
            self.forget_losses()
            with Pauses(self._programs.together) as pauses:
                drawn = self._orders.draw(arrays.samples, epochs, shuffle, seed, order)
                try:
                    run = Epochs(self._programs, arrays, drawn.orders, batch_size, drop_last, flush)
                    buffers = self._ran = run.output_buffers()
                    run.run(buffers, checked, progress, pauses)
                except BaseException:
                    drawn.keep(0 if self._ran is None else self._ran.begun_of(len(drawn.orders)))
                    raise
            return buffers.value

    def report(self, profile: bool = False) -> Report:
        """Instructions, fusion, arithmetic, bytes moved fused and unfused, arena size.

        Args:
            profile: also run each part alone and show its time beside its roofline bound;
                parameters and state stay as they are. For backends that can.
        """
        return report(self._runner, profile)

    def prepare(self, *batch: Any) -> Program:
        """Trace and compile for a batch of these types without running; returns the program.

        Args:
            *batch: as of a call; or of anything with `shape` and `dtype` in the place of arrays.
        """
        return self._programs.prepare(batch)

    def explain(self, *batch: Any, after: str = "memory_plan") -> str:
        """What one pass of the compiler makes of this step, as text; nothing is run or kept.

        Args:
            *batch: as of a call; or of anything with `shape` and `dtype` in the place of arrays.
            after: "trace", "views", "fuse", "lower", "row_padding", "schedule", "memory_plan" (the
                program), or "encode" (what the backend makes of it).

        Raises:
            UnknownNameError: no such pass.
        """
        return self._programs.explain(batch, after)

    def written_slots(self) -> list[Slot]:
        """Every slot that the compiled programs write, in order."""
        return self._programs.written_slots()

    def shared_slots(self) -> list[Slot]:
        """Those of them that all ranks have alike between two updates; with one rank, all."""
        return self._programs.shared_slots()

    def state_dict(self) -> dict[str, Any]:
        """{"accumulated": what waits for the next update, "rng": the stream of orders}.

        Parameters, optimiser, schedule and averages have states of their own.
        """
        return {"accumulated": self._update_builder.state_dict(), "rng": self._orders.state}

    @reading("the state of a step")
    @checked
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state; if it raises, nothing has changed.

        Raises:
            DataError, ShapeError: gradients that are not those of this step's parameters.
        """
        orders = OrderStream.standing_at(state_dict["rng"])
        self._update_builder.load_state_dict(state_dict["accumulated"])
        self._orders = orders
