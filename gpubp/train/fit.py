"""One call of `Trainer.fit`: epochs of a compiled step, and everything around them.

Comes in: a run, a checked plan and checked data. Goes out: the trainer's history.

Holds in between: Python runs between chunks of many steps, never between steps. After every chunk
the state's `epoch`, `position`, `losses` and `steps` say exactly where training stands, so a
checkpoint can be written there; where the chunks end has no influence on any result.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.data.sources import Block, marked
from gpubp.errors import DataError
from gpubp.runtime.totals import spoiled
from gpubp.train import foresight, resumption
from gpubp.train.alone import alone
from gpubp.train.evaluation import training_mode
from gpubp.train.history import History
from gpubp.train.hooks import Hooks
from gpubp.train.inputs import Data
from gpubp.train.interrupt import Interrupt
from gpubp.train.plan import Plan
from gpubp.train.progress import EpochProgress, shown
from gpubp.train.rank_facts import facts_of_fit
from gpubp.train.recording import measures_all, part_of_epoch
from gpubp.train.run import Run
from gpubp.train.saving import Saver
from gpubp.train.scheduling import advance

# How long Python stays away: with a bar to move, and without.
SECONDS_BETWEEN_UPDATES = 0.25
SECONDS_BETWEEN_LOOKS = 1.0
FIRST_CHUNK_BATCHES = 16
_LOG = logging.getLogger(__name__)


class Fit:
    """Runs a plan.

    Args:
        trainer: whose state moves on; callbacks are called with it.
        plan: what to do.
        data: what to do it on.
        callbacks: in the order in which they are called.
    """

    def __init__(self, trainer: Run, plan: Plan, data: Data, callbacks: Sequence[Hooks]) -> None:
        self.trainer = trainer
        self.state = trainer.state
        self.plan = plan
        self.data = data
        self._callbacks = callbacks
        self._rate = 0.0
        self._due = False  # a checkpoint is, as soon as the state can be saved
        self._seen: Any = None
        self._deadline = time.monotonic() + (plan.max_time or float("inf"))
        self._interrupt = Interrupt(trainer.ranks.together)
        self._saver = Saver(trainer, plan)
        self._last_epoch = 0
        self._stream_samples: int | None = None  # of a stream's epoch, once one has ended

    def run(self) -> History:
        """Train to the end of the plan, or to what comes first.

        Raises:
            NestingError: the trainer is in a fit already.
        """
        trainer = self.trainer
        with alone(trainer), training_mode(trainer.model):
            self.state.callbacks = self._callbacks
            self._start()
            trainer.ranks.agree(facts_of_fit(trainer, self.plan, self.data, self._last_epoch))
            _LOG.info("training from epoch %d to %d", self.state.epoch + 1, self._last_epoch)
            foresight.check(trainer, self.plan, self.data)
            with self._interrupt:
                self._run_epochs()
                self._saver.after_end()
        _LOG.info("ended after %d steps: %s", self.state.steps, self.state.stop_reason or "done")
        return self.state.history

    def _run_epochs(self) -> None:
        trainer = self.trainer
        begun: list[Hooks] = []
        try:
            for callback in self.state.callbacks:
                callback.on_train_begin(trainer)
                begun.append(callback)
            with trainer.ranks.telling():  # before callbacks end, which may wait for other ranks
                self._saver.check()
                self._epochs()
                self._saver.before_end()
        finally:
            for callback in begun:
                callback.on_train_end(trainer)

    def _epochs(self) -> None:
        trainer = self.trainer
        over = self.state.resuming and self.plan.is_used_up(self.state)
        if over and self.state.stop_reason is None:
            trainer.stop("max_steps")
            if self.state.position:
                self.state.history.add(part_of_epoch(trainer, self.plan, self.data, None))
        while self.state.stop_reason is None and self.state.epoch < self._last_epoch:
            self._epoch()

    def _start(self) -> None:
        """Compile, and take over the state of the checkpoint to resume."""
        trainer, plan = self.trainer, self.plan
        if trainer.ema is not None and trainer.ema.applied:
            raise DataError(
                "the parameters hold their averages: leave `with ema.apply():` before training."
            )
        now = resumption.options_of(trainer, plan)
        self._compile()
        if plan.resume is not None or self.state.pending is not None:
            self._resume(now)
        else:
            self.state.begin(now)
        if plan.resume is None:
            self.state.stop_reason = None
            self.state.diverged = False
            self.state.fit_start, self.state.fit_steps = self.state.epoch, self.state.steps
        self.state.fit_facts = resumption.facts_of(trainer, plan, self.data)
        self._last_epoch = self.state.fit_start + plan.epochs

    def _resume(self, now: dict[str, Any]) -> None:
        """Go on from a checkpoint, or from a state that was loaded before."""
        from gpubp.train import checkpoint

        trainer, path = self.trainer, self.plan.resume
        facts = resumption.facts_of(trainer, self.plan, self.data)
        if path is not None:
            checkpoint.load(trainer, path, facts)
        self._compile()  # restored options may have made the program stale
        checkpoint.put_pending(trainer, path, facts)
        if path is not None:
            self.state.made = resumption.compared(path, self.state.made, now)
        self.state.resuming = True

    def _compile(self) -> None:
        """Compile ahead, so that the first epoch's rate is the rate of training."""
        trainer, size = self.trainer, self.plan.batch_size
        size = min(size, self.data.samples or size)
        trainer.step.prepare(*self.data.source.types(size))

    def _order(self) -> NDArray[np.int64]:
        """The order of this epoch's rows: a function of the trainer's random state at its start."""
        self.state.start_order()
        return self.data.order(self.state.rng, self.plan.shuffle)

    def _epoch(self) -> None:
        trainer = self.trainer
        number = self.state.epoch + 1
        for callback in self.state.callbacks:
            callback.on_epoch_begin(trainer, number)
        samples, verbose = self.data.samples, self.plan.verbose
        whole = False
        with EpochProgress(number, self._last_epoch, samples, verbose) as progress:
            if self._train(self._order(), progress):
                record = {"epoch": number, **self.state.means}
                whole = measures_all(self.trainer, self.data, self._interrupt, record)
            if whole:
                self._end_epoch(record)
            else:
                self._must_stop()
                record = self._leave_epoch()
            progress.finish(
                {k: v for k, v in record.items() if k != "epoch"}, self.state.stop_reason
            )

    def _end_epoch(self, record: dict[str, float]) -> None:
        """Count the epoch as done, then let the schedule, callbacks and checkpoint follow."""
        trainer = self.trainer
        wrong = self.state.is_spoiled
        self._stream_samples = self.state.position
        self.state.end_epoch()
        if trainer.scheduler_every == "epoch":
            advance(trainer.scheduler, self.state.watched, record)
        for callback in self.state.callbacks:
            callback.on_epoch_end(trainer, self.state.epoch, record)
        self.state.history.add(record)
        _LOG.info("epoch %d of %d: %s", self.state.epoch, self._last_epoch, shown(record))
        due = (self.state.epoch - self.state.fit_start) % self.plan.save_every == 0
        # What was asked for while metrics were measured is heard before the next epoch.
        if self.state.epoch >= self._last_epoch or self._must_stop() or due:
            self._saver.save(wrong)

    def _leave_epoch(self) -> dict[str, float]:
        """Let ranks be alike, save, and record the part of an epoch that was trained on."""
        self.trainer.step.meet()
        self.state.unbegin()
        self._saver.save(self.state.is_spoiled)
        record = part_of_epoch(self.trainer, self.plan, self.data, self._stream_samples)
        if self.state.position:  # nothing of the epoch may have been trained on
            self.state.history.add(record)
        return record

    def _train(self, order: NDArray[np.int64], progress: EpochProgress) -> bool:
        """Train on the rest of an epoch; False if there was a reason to stop before its end."""
        plan = self.plan
        progress.skip(self.state.position)
        blocks = self.data.source.blocks(order, plan.batch_size, self.state.position)
        with closing(blocks):
            for block, last in marked(blocks, self.data.samples, self.state.position):
                start = 0
                while start < len(block.order):
                    left = -(-(len(block.order) - start) // block.batch_size)
                    size = self._chunk(progress, left, last) * block.batch_size
                    ends = last and start + size >= len(block.order)
                    whole = self._run(block, block.order[start : start + size], ends, progress)
                    start += size
                    if self._must_stop() and not (ends and whole):
                        return False
        return True

    def _run(
        self, block: Block, chunk: NDArray[np.int64], ends: bool, progress: EpochProgress
    ) -> bool:
        """Run the steps of a chunk, or as many as Ctrl-C lets, and note where training stands then.

        With accumulated gradients, the batches that wait at the end of an epoch update too.

        Returns:
            Whether all of them were run.
        """
        trainer, size = self.trainer, min(block.batch_size, len(chunk))
        checked = self._seen is block.arrays
        begin = time.perf_counter()
        trainer.step.forget_losses()
        with self._interrupt.leaving():
            trainer.step.run(
                *block.arrays.given(),
                batch_size=size,
                order=chunk,
                shuffle=False,
                flush=ends,
                checked=checked,
            )
        losses = trainer.step.losses
        if not len(losses):
            return False
        whole = size * len(losses) >= len(chunk)
        chunk = chunk[: size * len(losses)]
        seconds = max(time.perf_counter() - begin, 1e-9)
        self._rate, self._seen = len(losses) / seconds, block.arrays
        rows = trainer.step.totals
        numbers = trainer.step.outputs[1] if trainer.numbers_of_loss else {}
        self.state.add(rows, numbers, size, len(chunk))
        self.state.position += len(chunk)
        self.state.steps += len(losses)
        for callback in self.state.callbacks:
            callback.on_chunk_end(trainer, losses)
        counted = losses[~np.isnan(losses) | spoiled(rows)]  # without batches of which nothing does
        progress.advance(len(chunk), seconds, float(counted[-1]) if len(counted) else float("nan"))
        every = self.plan.save_every_steps
        self._due = self._due or bool(every and self.state.steps % every == 0)
        if self._due and not trainer.step.apart:
            self._due = False
            self._saver.save(self.state.is_spoiled)
        return whole

    def _chunk(self, progress: EpochProgress, left: int, last: bool) -> int:
        """Steps to run before Python looks around, of those that are left of a block; `last`: of
        the epoch."""
        plan = self.plan
        seconds = SECONDS_BETWEEN_UPDATES if progress.live else SECONDS_BETWEEN_LOOKS
        seconds = min(seconds, max(0.0, self._deadline - time.monotonic()))
        steps = int(self._rate * seconds) if self._rate else FIRST_CHUNK_BATCHES
        if plan.max_steps is not None:
            steps = min(steps, self.state.fit_steps + plan.max_steps - self.state.steps)
        if plan.save_every_steps is not None:
            steps = min(steps, plan.save_every_steps - self.state.steps % plan.save_every_steps)
        if self._due:
            steps = min(steps, self.trainer.step.apart or steps)
        return self.trainer.ranks.steps(max(1, steps), left, last)

    def _must_stop(self) -> bool:
        """Whether there is a reason to stop; the trainer then knows it."""
        trainer, late = self.trainer, time.monotonic() >= self._deadline
        stopped = self.state.stop_reason is not None
        asked, late, stopped = trainer.ranks.any(self._interrupt.asked, late, stopped)
        if asked:
            trainer.stop("interrupted")
        if self.plan.is_used_up(self.state):
            trainer.stop("max_steps")
        if late:
            trainer.stop("max_time")
        if stopped:
            trainer.stop("another rank stopped")  # of a rank that has a reason, that one stays
        return self.state.stop_reason is not None
