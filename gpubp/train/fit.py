"""One call of `Trainer.fit`: epochs of a compiled step, and everything around them.

Comes in: a trainer, a checked plan and checked data. Goes out: the trainer's history.

Holds in between: Python runs between chunks of many steps, never between steps. After every chunk
the trainer's `epoch`, `position`, `losses` and `steps` say exactly where training stands, so a
checkpoint can be written there; where the chunks end has no influence on any result.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from gpubp.data.sources import Block, Blocks
from gpubp.totals import spoiled, together
from gpubp.train.callbacks import Callback
from gpubp.train.evaluation import training_mode
from gpubp.train.history import History
from gpubp.train.inputs import Data
from gpubp.train.interrupt import Interrupt
from gpubp.train.plan import Plan
from gpubp.train.progress import EpochProgress
from gpubp.train.scheduling import advance

if TYPE_CHECKING:
    from gpubp.train.trainer import Trainer

# How long Python stays away: with a bar to move, and without.
SECONDS_BETWEEN_UPDATES = 0.25
SECONDS_BETWEEN_LOOKS = 1.0
FIRST_CHUNK_BATCHES = 16
_NO_ORDER = np.zeros(0, np.int64)


class Fit:
    """Runs a plan.

    Args:
        trainer: whose state moves on.
        plan: what to do.
        data: what to do it on.
        callbacks: in the order in which they are called.
    """

    def __init__(
        self, trainer: Trainer, plan: Plan, data: Data, callbacks: Sequence[Callback]
    ) -> None:
        self.trainer = trainer
        self.plan = plan
        self.data = data
        trainer.callbacks = callbacks
        self._rate = 0.0
        self._seen: Any = None
        self._deadline = time.monotonic() + (plan.max_time or float("inf"))
        self._interrupt = Interrupt()
        self._last_epoch = 0

    def run(self) -> History:
        """Train to the end of the plan, or to what comes first."""
        trainer = self.trainer
        with training_mode(trainer.model):
            self._start()
            with self._interrupt:
                self._run_epochs()
        return trainer.history

    def _run_epochs(self) -> None:
        trainer = self.trainer
        for callback in trainer.callbacks:
            callback.on_train_begin(trainer)
        try:
            while trainer.stop_reason is None and trainer.epoch < self._last_epoch:
                self._epoch()
        finally:
            for callback in trainer.callbacks:
                callback.on_train_end(trainer)

    def _start(self) -> None:
        """Compile, and take over the state of the checkpoint to resume."""
        trainer, plan = self.trainer, self.plan
        self._compile()
        if plan.resume is not None or trainer.pending is not None:
            self._resume()
        else:
            trainer.resuming = False
            trainer.position, trainer.losses = 0, []
        if plan.resume is None:
            trainer.stop_reason = None
            trainer.fit_start, trainer.fit_steps = trainer.epoch, trainer.steps
        trainer.fit_facts = self._facts()
        self._last_epoch = trainer.fit_start + plan.epochs

    def _resume(self) -> None:
        """Go on from a checkpoint, or from a state that was loaded before."""
        from gpubp.train import state

        trainer, path = self.trainer, self.plan.resume
        if path is not None:
            state.load(trainer, path, self._facts())
        self._compile()  # restored options may have made the program stale
        state.put_pending(trainer, path or "the state that was loaded", self._facts())
        trainer.resuming = True

    def _compile(self) -> None:
        """Compile ahead, so that the first epoch's rate is the rate of training."""
        trainer, size = self.trainer, self.plan.batch_size
        size = min(size, self.data.samples or size)
        trainer.step.prepare(*self.data.source.types(size))

    def _facts(self) -> dict[str, Any]:
        """What must be as it was, to go on within an epoch."""
        if self.data.samples is None:
            return {"samples": None}
        return {
            "samples": self.data.samples,
            "batch_size": self.plan.batch_size,
            "shuffle": self.plan.shuffle,
            "split": None if self.data.rows is None else self.trainer.seed,
        }

    def _order(self) -> NDArray[np.int64]:
        """The order of this epoch's rows: a function of the trainer's random state at its start."""
        trainer = self.trainer
        if trainer.position:
            trainer.rng.bit_generator.state = trainer.epoch_rng
        trainer.epoch_rng = trainer.rng.bit_generator.state
        if self.data.samples is None:
            return _NO_ORDER
        rows = self.data.rows
        if rows is None:
            rows = np.arange(self.data.samples)
        return trainer.rng.permutation(rows) if self.plan.shuffle else rows

    def _epoch(self) -> None:
        trainer = self.trainer
        number = trainer.epoch + 1
        for callback in trainer.callbacks:
            callback.on_epoch_begin(trainer, number)
        samples, verbose = self.data.samples, self.plan.verbose
        with EpochProgress(number, self._last_epoch, samples, verbose) as progress:
            if self._train(self._order(), progress):
                record = {"epoch": number, "loss": self._mean_loss(), **self._measured()}
                self._end_epoch(record)
            else:
                record = self._leave_epoch()
            progress.finish({k: v for k, v in record.items() if k != "epoch"}, trainer.stop_reason)

    def _end_epoch(self, record: dict[str, float]) -> None:
        """Count the epoch as done, then let the schedule, callbacks and checkpoint follow."""
        trainer = self.trainer
        trainer.epoch += 1
        trainer.position, trainer.losses = 0, []
        if trainer.scheduler_every == "epoch":
            advance(trainer.scheduler, record)
        for callback in trainer.callbacks:
            callback.on_epoch_end(trainer, trainer.epoch, record)
        trainer.history.add(record)
        due = (trainer.epoch - trainer.fit_start) % self.plan.save_every == 0
        if due or trainer.stop_reason or trainer.epoch >= self._last_epoch:
            self._save()

    def _leave_epoch(self) -> dict[str, float]:
        """Save, and record the part of an epoch that was trained on."""
        trainer = self.trainer
        self._save()
        share = trainer.position / (self.data.samples or 2 * trainer.position)
        record = {"epoch": trainer.epoch + share, "loss": self._mean_loss()}
        if trainer.stop_reason != "interrupted":
            record.update(self._measured())
        trainer.history.add(record)
        return record

    def _train(self, order: NDArray[np.int64], progress: EpochProgress) -> bool:
        """Train on the rest of an epoch; False if there was a reason to stop before its end."""
        trainer, plan = self.trainer, self.plan
        progress.skip(trainer.position)
        blocks = self.data.source.blocks(order, plan.batch_size, trainer.position)
        with closing(blocks):
            for block, last in self._marked(blocks):
                start = 0
                while start < len(block.order):
                    size = self._chunk(progress) * block.batch_size
                    ends = last and start + size >= len(block.order)
                    self._run(block, block.order[start : start + size], ends, progress)
                    start += size
                    if self._must_stop() and trainer.position != self.data.samples:
                        return False
        return True

    def _marked(self, blocks: Blocks) -> Iterator[tuple[Block, bool]]:
        """Each block, and whether it is the epoch's last: a stream must look ahead for that."""
        samples, done = self.data.samples, self.trainer.position
        held: Block | None = None
        for block in blocks:
            if samples is not None:
                done += len(block.order)
                yield block, done >= samples
                continue
            if held is not None:
                yield held, False
            held = block
        if held is not None:
            yield held, True

    def _run(
        self, block: Block, chunk: NDArray[np.int64], ends: bool, progress: EpochProgress
    ) -> None:
        """Run the steps of a chunk and note where training stands then.

        With accumulated gradients, the batches that wait at the end of an epoch update too.
        """
        trainer, size = self.trainer, min(block.batch_size, len(chunk))
        checked = self._seen is block.arrays
        begin = time.perf_counter()
        losses = trainer.step.run(
            *block.arrays,
            batch_size=size,
            order=chunk,
            shuffle=False,
            flush=ends,
            checked=checked,
        )
        seconds = max(time.perf_counter() - begin, 1e-9)
        self._rate, self._seen = len(losses) / seconds, block.arrays
        rows = trainer.step.totals
        trainer.losses.append(rows)
        trainer.position += len(chunk)
        trainer.steps += len(losses)
        for callback in trainer.callbacks:
            callback.on_chunk_end(trainer, losses)
        shown = losses[~np.isnan(losses) | spoiled(rows)]  # without batches where nothing counts
        progress.advance(len(chunk), seconds, float(shown[-1]) if len(shown) else float("nan"))
        every = self.plan.save_every_steps
        if every and trainer.steps % every == 0:
            self._save()

    def _chunk(self, progress: EpochProgress) -> int:
        """Steps to run before Python looks around."""
        trainer, plan = self.trainer, self.plan
        seconds = SECONDS_BETWEEN_UPDATES if progress.live else SECONDS_BETWEEN_LOOKS
        seconds = min(seconds, max(0.0, self._deadline - time.monotonic()))
        steps = int(self._rate * seconds) if self._rate else FIRST_CHUNK_BATCHES
        if plan.max_steps is not None:
            steps = min(steps, trainer.fit_steps + plan.max_steps - trainer.steps)
        if plan.save_every_steps is not None:
            steps = min(steps, plan.save_every_steps - trainer.steps % plan.save_every_steps)
        return max(1, steps)

    def _must_stop(self) -> bool:
        """Whether there is a reason to stop; the trainer then knows it."""
        trainer, plan = self.trainer, self.plan
        if self._interrupt.asked:
            trainer.stop("interrupted")
        if plan.max_steps is not None and trainer.steps - trainer.fit_steps >= plan.max_steps:
            trainer.stop("max_steps")
        if time.monotonic() >= self._deadline:
            trainer.stop("max_time")
        return trainer.stop_reason is not None

    def _save(self) -> None:
        if self.plan.checkpoint is not None:
            self.trainer.save(self.plan.checkpoint, self.plan.extra)

    def _mean_loss(self) -> float:
        """The loss of the samples so far: one sum, so that where chunks end does not matter."""
        return together(np.concatenate(self.trainer.losses))

    def _measured(self) -> dict[str, float]:
        """Metrics on the training data, and everything on the held-out data."""
        data, found = self.data, {}
        measure, floating = self.trainer.evaluator.measure, self.trainer.floating
        if data.metrics and data.train is not None:
            rows = data.rows
            arrays = data.train if rows is None else tuple(a[rows] for a in data.train)
            values = measure(arrays, floating, data.metrics)
            found = {metric.name: values[metric.name] for metric in data.metrics}
        if data.held_out is not None:
            held = measure(data.held_out, floating, data.metrics)
            found.update({f"val_{key}": value for key, value in held.items()})
        return found
