"""What workers and trials of Ray run, in the tests."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
from rank_work import X, Y, classifier

import gpubp as gp
import gpubp.ray
from gpubp import nn
from gpubp.distributed import DataParallel
from gpubp.train import Callback, Trainer


class Kill(Callback):
    """Ends this process where it was asked for."""

    def __init__(self, epoch):
        self.epoch = epoch

    def on_epoch_end(self, trainer, epoch, record):
        if epoch == self.epoch:
            os.kill(os.getpid(), signal.SIGKILL)


def train(config):
    """Train on ranks; the first one writes what came out."""
    communicator = gp.distributed.init()
    rank, folder = communicator.rank, Path(config["folder"])
    starts = folder / f"starts-{rank}"
    start = len(starts.read_text()) if starts.exists() else 0
    starts.write_text("x" * (start + 1))
    # Of the starts, the ranks die in turns, each a bit later.
    dies = start < config["kills"] and rank == start % communicator.size
    model, optimizer = classifier()
    trainer = Trainer(
        model, nn.CrossEntropyLoss(), optimizer, backend="numba",
        communicator=DataParallel(communicator, shard_optimizer=True),
    )  # fmt: skip
    report = gpubp.ray.Report()
    trainer.fit(
        X, Y, epochs=6, batch_size=8, verbose=False, validation_split=0.2,
        checkpoint=report.checkpoint, resume=report.resume,
        callbacks=[report, Kill(start + 2 if dies else -1)],
    )  # fmt: skip
    if rank == 0:
        history = {k: np.array(v) for k, v in trainer.history.items()}
        np.savez(folder / "found.npz", **history, **model.state_dict())
    communicator.close()


def train_on_shards(config):
    """Train on this worker's share of a data set."""
    import ray.train

    communicator = gp.distributed.init()
    model, optimizer = classifier(dtype="float32")
    trainer = Trainer(
        model, nn.CrossEntropyLoss(), optimizer, communicator=DataParallel(communicator, data="own")
    )
    shard = ray.train.get_dataset_shard("train")
    source = gpubp.ray.batches(shard, [f"x{i}" for i in range(6)], "y", batch_size=8)
    report = gpubp.ray.Report()
    trainer.fit(source, epochs=3, verbose=False, callbacks=[report], checkpoint=report.checkpoint)
    np.savez(Path(config["folder"]) / f"rank{communicator.rank}.npz", **model.state_dict())
    communicator.close()
