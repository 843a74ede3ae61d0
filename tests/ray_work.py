"""What workers of Ray run in the tests, and the program that starts Ray for them.

Usage: ray_work.py train|shards|both FOLDER WORKERS FAILURES

"both" trains, and then searches with Ray Tune, a population in each trial: one start of Ray for all
that CI sees of it.

Ray starts and ends with this process. Everything in it has an end: as Ray comes, workers that are
not there after a minute are started anew for ever, and a worker waits for the others for ever.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

# Read by Ray when it is imported; seconds.
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "400")
os.environ.setdefault("RAY_TRAIN_COLLECTIVE_TIMEOUT_S", "300")
os.environ.setdefault("RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S", "300")

import numpy as np
from rank_work import X, Y, classifier

import gpubp as gp
import gpubp.ray
from gpubp import nn, optim
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


def trial(config):
    """Train a population of one width; report its best member."""
    from ray import tune

    def make():
        layers = nn.Linear(6, config["width"]), nn.Tanh(), nn.Linear(config["width"], 3)
        return nn.Sequential(*layers)

    model, rates = make(), np.geomspace(1e-3, 3e-1, 4)
    population = gp.compile_population(
        lambda a, b: nn.CrossEntropyLoss()(model(a), b), optim.SGD(model.parameters()), n=4,
        model=model, initial=make, lr=rates, backend="numba",
    )  # fmt: skip
    losses = population.run(X.astype(np.float32), Y, batch_size=10, epochs=8)[:, -5:].mean(1)
    best = int(np.argmin(losses))
    tune.report({"loss": float(losses[best]), "lr": float(rates[best])})


def searched(folder):
    """The trials of a search over widths."""
    from ray import tune

    tuner = tune.Tuner(
        trial,
        param_space={"width": tune.grid_search([2, 16])},
        tune_config=tune.TuneConfig(metric="loss", mode="min"),
        run_config=tune.RunConfig(name="search", storage_path=str(folder / "storage"), verbose=0),
    )
    results = tuner.fit()
    if results.errors:
        raise results.errors[0]
    return [{**r.config, "loss": r.metrics["loss"], "lr": r.metrics["lr"]} for r in results]


def data_set():
    """48 rows of Ray Data: columns x0 to x5, and y."""
    import ray.data

    rows = [
        {**{f"x{i}": np.float32(X[row, i]) for i in range(6)}, "y": int(Y[row])}
        for row in range(48)
    ]
    return {"train": ray.data.from_items(rows)}


def main():
    """Run a loop on workers; the metrics and the checkpoint's path go to stdout as JSON."""
    import ray
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    what, folder, workers, failures = sys.argv[1], Path(sys.argv[2]), *map(int, sys.argv[3:])
    tests = Path(__file__).parent
    paths = [str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")]
    environment = {"PYTHONPATH": os.pathsep.join(p for p in paths if p), "GPUBP_NUM_THREADS": "1"}
    ray.init(
        num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000,
        runtime_env={"env_vars": environment},
    )  # fmt: skip
    trainer = gpubp.ray.data_parallel_trainer(
        train_on_shards if what == "shards" else train,
        timeout=120.0,
        train_loop_config={"folder": str(folder), "kills": failures},
        scaling_config=ScalingConfig(num_workers=workers),
        run_config=RunConfig(
            name="run",
            storage_path=str(folder / "storage"),
            failure_config=FailureConfig(max_failures=failures, controller_failure_limit=2),
        ),
        datasets=data_set() if what == "shards" else None,
    )
    result = trainer.fit()
    found = result.checkpoint.path if result.checkpoint is not None else None
    trials = searched(folder) if what == "both" else []
    print(json.dumps({"metrics": result.metrics, "checkpoint": found, "trials": trials}))
    ray.shutdown()


if __name__ == "__main__":
    main()
