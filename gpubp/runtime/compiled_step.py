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
from gpubp.errors import CopyError, DataError, GradientError
from gpubp.ops.random import checked_seed
from gpubp.runtime.batches import Batches, checked_data, orders
from gpubp.runtime.bound_call import Singles, key_of
from gpubp.runtime.epochs import Epochs
from gpubp.runtime.loss_scale import LossScale
from gpubp.runtime.nesting import nesting, require_not_running, turn
from gpubp.runtime.outputs import Room
from gpubp.runtime.pauses import Pauses
from gpubp.runtime.report import report
from gpubp.runtime.settings import Settings, StepOptimizer
from gpubp.runtime.step_programs import StepPrograms
from gpubp.runtime.update import Updater


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
        self._rng = np.random.default_rng(checked_seed(seed))
        self._programs = StepPrograms(fn, self._updater, backend, device, options)
        self._runner = self._programs.updating
        self._ran: Room | None = None
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
        return np.zeros(0, self._floating) if self._ran is None else self._ran.losses_so_far

    def forget_losses(self) -> None:
        """Let go of the losses of the last run."""
        self._ran = None

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
        return self._ran.totals()[: self._ran.done]

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
            programs = self._programs
            programs.require_own_weights()
            with programs.running([single.ready]), programs.scheduled(np.full(1, final)):
                return single(batch)[0][0]

    def _first_call(
        self, batch: Sequence[ArrayLike], key: tuple[Any, ...] | None, final: bool
    ) -> Any:
        data = checked_data(batch, self._floating, self.backend)
        size = len(data[0])
        one = Batches.one(size, final)
        room = self._programs.room(data, one, single=True)
        self._programs.execute(data, np.arange(size), one, room, finite=False)
        if self._runner.last is not None:
            singles = self._singles if final else self._adding_singles
            singles.add(key, self._runner.last, self.backend, data)
        return room.losses

    def _next_is_final(self) -> bool:
        accumulate = self._settings.accumulate
        return accumulate == 1 or self._updater.pending + 1 >= accumulate

    @checked
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
            rng = self._rng if seed is None else np.random.default_rng(checked_seed(seed))
            indices = orders(len(arrays[0]), epochs, shuffle, rng, order)
            try:
                run = Epochs(self._programs, arrays, indices, batch_size, drop_last, flush)
                room = self._ran = run.room()
                run.run(room, checked, progress, pauses)
            except BaseException:
                if before is not None:
                    self._draw_again(before, len(arrays[0]), len(indices))
                raise
        return room.losses

    def _draw_again(self, before: Mapping[str, Any], samples: int, epochs: int) -> None:
        """Let the stream of orders stand behind the epochs of a run that were begun."""
        self._rng.bit_generator.state = before
        ran = self._ran
        begun = 1 if ran is None else max(1, -(-ran.done // (ran.steps // epochs)))
        orders(samples, begun, True, self._rng, None)

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
        return self._programs.prepare(batch)

    def explain(self, *batch: Any, after: str = "memory_plan") -> str:
        """What one pass of the compiler makes of this step, as text; nothing is run or kept.

        Args:
            *batch: arrays, or anything with `shape` and `dtype`.
            after: "trace", "views", "fuse", "lower", "row_padding", "schedule", "memory_plan" (the
                program), or "encode" (what the backend makes of it).

        Raises:
            UnknownNameError: no such pass.
        """
        return self._programs.explain(batch, after)

    def written_slots(self) -> list[Slot]:
        """Every slot that the compiled programs write: parameters, state, counters; in order."""
        return self._programs.written_slots()

    def state_dict(self) -> dict[str, Any]:
        """What the step itself remembers: {"accumulated", "rng"}, nested numbers and arrays.

        "accumulated" is what waits for the next update, "rng" the state of the stream that orders
        are drawn from. Parameters, optimiser, schedule and averages have states of their own.
        """
        return {"accumulated": self._updater.state_dict(), "rng": self._rng.bit_generator.state}

    @reading("the state of a step")
    @checked
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Go on from a state; if it raises, nothing has changed.

        Raises:
            DataError, ShapeError: gradients that are not those of this step's parameters.
        """
        rng = np.random.default_rng()
        rng.bit_generator.state = state_dict["rng"]
        self._updater.load_state_dict(state_dict["accumulated"])
        self._rng = rng
