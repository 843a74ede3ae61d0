"""Ranks as workers of Ray Train: Ray starts them, starts them anew, and keeps their checkpoints.

Comes in: a function that every worker runs, as for any of Ray's trainers. In it
`gp.distributed.init()` gives the communicator of the ranks (gloo), and `Report` is the callback
through which Ray sees records and checkpoints.
"""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gpubp.arguments import checked
from gpubp.distributed.communicator import TIMEOUT
from gpubp.errors import missing_extra
from gpubp.train.callbacks import Callback

if TYPE_CHECKING:
    from gpubp.train.trainer import Trainer

FILE = "run.ckpt"  # in a checkpoint of Ray's


def imported() -> Any:
    """The package ray, with ray.train.

    Raises:
        MissingExtraError: it is not installed.
    """
    try:
        import ray
        import ray.train
    except ImportError as error:
        raise missing_extra("ray", "ray", "gpubp.ray") from error
    return ray


@checked
def data_parallel_trainer(
    train_loop_per_worker: Callable[..., None], *, timeout: float = TIMEOUT, **options: Any
) -> Any:
    """A `DataParallelTrainer` of Ray Train whose workers are ranks.

    Args:
        train_loop_per_worker: run by each worker; calls `gp.distributed.init()`, and hands the
            communicator to a `Trainer` or a step.
        timeout: seconds that a rank waits for another.
        **options: Ray's: train_loop_config, scaling_config, run_config, datasets, ...

    Returns:
        The trainer; its `fit()` gives Ray's result.

    Raises:
        MissingExtraError: ray is not installed.
    """
    imported()
    from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer

    from gpubp.ray.workers import RanksConfig

    return DataParallelTrainer(
        train_loop_per_worker, backend_config=RanksConfig(timeout=timeout), **options
    )


class Report(Callback):
    """Tells Ray Train of each epoch, with the checkpoint that `fit` has written.

    `trainer.fit(..., checkpoint=report.checkpoint, resume=report.resume, callbacks=[report])`, on
    every rank: Ray goes on when all have reported. Rank 0's file is the one that is kept.

    Attributes:
        checkpoint: the file to write, in a folder of this worker's.
        resume: the file to go on from, if Ray has started the workers anew or has been given a
            checkpoint; else None.

    Raises:
        MissingExtraError: ray is not installed.
    """

    def __init__(self) -> None:
        self._train = imported().train
        self._folder = Path(tempfile.mkdtemp(prefix="gpubp-ray-"))
        self.checkpoint = str(self._folder / FILE)
        self.resume: str | None = None
        self._told = 0
        found = self._train.get_checkpoint()
        if found is not None:
            with found.as_directory() as folder:
                self.resume = str(self._folder / f"from-{FILE}")
                shutil.copyfile(Path(folder) / FILE, self.resume)

    def on_train_begin(self, trainer: Trainer) -> None:
        """What a checkpoint brought has been reported before."""
        self._told = trainer.epoch

    def on_epoch_begin(self, trainer: Trainer, epoch: int) -> None:
        """Tell of the epoch before, whose checkpoint is written by now."""
        self._tell(trainer)

    def on_train_end(self, trainer: Trainer) -> None:
        """Tell of the last epoch."""
        self._tell(trainer)

    def _tell(self, trainer: Trainer) -> None:
        if trainer.epoch == self._told:
            return
        self._told = trainer.epoch
        record = {k: float(v) for k, v in trainer.history.records[-1].items()}
        if not trainer.ranks.leads or not os.path.exists(self.checkpoint):
            self._train.report(record)
            return
        with tempfile.TemporaryDirectory() as folder:
            shutil.copyfile(self.checkpoint, Path(folder) / FILE)
            self._train.report(record, checkpoint=self._train.Checkpoint.from_directory(folder))
