"""One rank whose steps are timed, beside what the model of costs predicts for them.

Usage: rank_costs.py FILE [--width N] [--rounds N] (by rank_networks.py --times, or by
`python -m gpubp.distributed run -n 2 tests/rank_costs.py FILE`)

The network is described by two bare all-reduces, a small one and one of the gradients' size, or by
the environment: GPUBP_COSTS_NETWORK="LATENCY BANDWIDTH" in seconds and bytes a second. What a rank
computes is timed too, at the same time on all ranks, as they may share processors. Rank 0 writes
JSON: the network, the work, and for each way of sending, seconds a step, predicted and measured.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np

import gpubp as gp
from gpubp import nn, optim
from gpubp.distributed import Communicator, DataParallel
from gpubp.distributed.cost import Network, Work, measured_network, step_seconds
from gpubp.distributed.layout import Layout

WAYS: dict[str, dict[str, Any]] = {
    "one buffer": {},
    "buckets": {"bucket_cap_mb": 0.01},
    "divided": {"shard_optimizer": True},
    "averages": {"average_every": 4},
}


def best_seconds(communicator: Communicator, rounds: int, work: Callable[[], Any]) -> float:
    """Of the slowest rank, in the best round: what else the machine does only adds."""
    took = []
    for _ in range(rounds):
        communicator.barrier()
        start = time.perf_counter()
        work()
        took.append(time.perf_counter() - start)
    return float(communicator.gather(np.array(took)).max(0).min())


class Training:
    """A dense network, and steps of it.

    Args:
        communicator: of this rank.
        width: of the layers.
        batch: samples a step, of all ranks.

    Attributes:
        params: of the step that was made last.
    """

    STEPS = 4

    def __init__(self, communicator: Communicator, width: int, batch: int = 48) -> None:
        self._communicator, self._width, self._batch = communicator, width, batch
        rng = np.random.default_rng(0)
        self._x = rng.normal(size=(self.STEPS * batch, width)).astype(np.float32)
        self._y = rng.integers(0, 8, len(self._x))
        self.params: list[Any] = []

    def _model(self) -> nn.Module:
        gp.manual_seed(0)
        width = self._width
        layers = [nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU()]
        return nn.Sequential(*layers, nn.Linear(width, 8))

    @property
    def gradient_bytes(self) -> float:
        """Of all parameters."""
        return 4.0 * sum(p.size for p in self._model().parameters())

    def runner(self, communicator: Any, share: int = 1) -> Callable[[int], Any]:
        """So many epochs of the batch, or of a share of it."""
        model = self._model()
        self.params = list(model.parameters())
        step = gp.compile_step(
            lambda a, b: nn.CrossEntropyLoss()(model(a), b),
            optim.Adam(model.parameters()),
            communicator=communicator,
            backend="numba",
        )
        size = self._batch // share
        x, y = self._x[: self.STEPS * size], self._y[: self.STEPS * size]

        def run(epochs: int) -> None:
            step.run(x, y, batch_size=size, epochs=epochs)

        run(1)
        return run

    def step_seconds(self, run: Callable[[int], Any], rounds: int) -> float:
        """Of a step within a run: what a run itself sends is in both, and not in the difference."""
        times = [best_seconds(self._communicator, rounds, lambda n=n: run(n)) for n in (1, 4)]
        return (times[1] - times[0]) / (3 * self.STEPS)

    def work(self, rounds: int) -> Work:
        """What a step computes. A rank's share is timed, update included: gradients go to memory
        first where there are several ranks, so what is predicted is a bit too fast."""
        ranks = self._communicator.size
        alone = self.runner(None, ranks)
        seconds = max(0.0, self.step_seconds(alone, rounds))
        return Work(seconds * ranks, 0.0, self.gradient_bytes, moments=2)


def predicted(work: Work, network: Network, parallel: DataParallel, params: list[Any]) -> float:
    """By the model, with as many buckets as there are."""
    return step_seconds(
        work,
        network,
        parallel.size,
        parallel.average_every,
        shard_optimizer=parallel.shard_optimizer,
        buckets=len(Layout(parallel.size, parallel.cap).buckets(params)),
    )


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("file", type=Path)
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    communicator = gp.distributed.init()
    training = Training(communicator, options.width)
    given = os.environ.get("GPUBP_COSTS_NETWORK")
    if given:
        network = Network(*map(float, given.split()))
    else:
        network = measured_network(communicator, int(training.gradient_bytes), options.rounds)
    work = training.work(options.rounds)
    found = {}
    for name, how in WAYS.items():
        parallel = DataParallel(communicator, **how)
        run = training.runner(parallel)
        measured = training.step_seconds(run, options.rounds)
        guess = predicted(work, network, parallel, training.params)
        found[name] = {"predicted": guess, "measured": measured}
    if communicator.rank == 0:
        told = {"ranks": communicator.size, "network": asdict(network), "work": asdict(work)}
        options.file.write_text(json.dumps({**told, "ways": found}, indent=1))
    communicator.close()


if __name__ == "__main__":
    main()
