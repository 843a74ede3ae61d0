"""One rank of the benchmark `distributed`: all contenders in turn, round by round.

Usage: python -m common.distributed_job ROW OPTIMIZER ROUNDS CONTENDER,...

Every contender is built, checked and run once before the first round. A turn begins at a barrier,
and its time is that of the rank that took longest. Rank 0 prints the results as JSON.
"""

from __future__ import annotations

import gc
import json
import os
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np

import gpubp as gp
from common.rows import Task, check_order, find_row, make_order, make_weights
from gpubp.distributed.starting import ADDRESS

PAUSE_SECONDS = 0.02  # what the turn before has left to threads is done by then
Made = tuple[Callable[[], Any], list[float]]  # one turn, and the losses of the check


def main() -> None:
    """Run the rounds."""
    row, optimizer, rounds, names = sys.argv[1:]
    task = Task(find_row(row), optimizer)
    communicator = gp.distributed.init()
    made = {name: _MAKE[name](task, communicator) for name in names.split(",")}
    for run, _ in made.values():
        run()
    found: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(int(rounds)):
        for name, (run, _) in made.items():
            found[name].append(_turn(run, communicator) / task.row.steps)
    if communicator.rank == 0:
        losses = {name: values for name, (_, values) in made.items()}
        print(json.dumps({"rounds": found, "losses": losses, "versions": _versions(names)}))
    communicator.close()


def _turn(run: Callable[[], Any], communicator: Any) -> float:
    """Seconds of the slowest rank."""
    gc.collect()
    gc.disable()
    time.sleep(PAUSE_SECONDS)
    communicator.barrier()
    start = time.perf_counter()
    run()
    took = time.perf_counter() - start
    gc.enable()
    return float(communicator.gather(np.array([took])).max())


def _gpubp(**options: Any) -> Callable[[Task, Any], Made]:
    """A step with the communicator, and options of `DataParallel`."""

    def make(task: Task, communicator: Any) -> Made:
        from common.peers_gpubp import GpubpCase

        case = GpubpCase(task, gp.distributed.DataParallel(communicator, **options))
        losses = case.check()[: task.row.batches].tolist()
        case.reset()
        return case.run, losses

    return make


def _compute(task: Task, communicator: Any) -> Made:
    """A rank's share of every batch, alone: the fused step of one rank, with nothing sent."""
    from common.peers_gpubp import GpubpCase

    share = replace(task.row, batch=task.row.batch // communicator.size)
    case = GpubpCase(replace(task, row=share))
    case.reset()
    return case.run, []


def _all_reduce(task: Task, communicator: Any) -> Made:
    """Nothing but an all-reduce of the gradients' bytes for each step."""
    count = sum(a.size for arrays in make_weights(task.row) for a in arrays)
    gradients = np.zeros(count, np.float32)

    def run() -> None:
        for _ in range(task.row.steps):
            communicator.all_reduce(gradients)

    return run, []


def _ddp(**options: Any) -> Callable[[Task, Any], Made]:
    """DistributedDataParallel with such options; each rank gets an equal share of each batch."""

    def make(task: Task, communicator: Any) -> Made:
        from common.peers_torch import EagerCase

        rank, row = communicator.rank, task.row
        case = EagerCase(task, fused=True)
        case.reset()
        if communicator.size > 1:
            case._model = _wrapped(case._model, communicator, options)
        share = row.batch // communicator.size

        def batches(order: Any) -> list[Any]:
            return [index[rank * share : (rank + 1) * share] for index in case._batches(order)]

        losses = np.array(case._run(batches(check_order(row))), np.float64)
        communicator.all_reduce(losses)
        case.reset()
        order = batches(make_order(row))
        return lambda: case._run(order), (losses / communicator.size).tolist()

    return make


def _wrapped(model: Any, communicator: Any, options: dict[str, Any]) -> Any:
    import torch
    from torch.nn.parallel import DistributedDataParallel

    if not torch.distributed.is_initialized():
        host, _, port = os.environ[ADDRESS].rpartition(":")
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"tcp://{host}:{int(port) + 1}",
            rank=communicator.rank,
            world_size=communicator.size,
        )
    torch.set_num_threads(1)
    return DistributedDataParallel(model, **options)


def _versions(names: str) -> dict[str, str]:
    from importlib.metadata import version

    return {
        "torch": version("torch"),
        "gpubp backend": gp.default_backend_name(),
        "threads of a rank": os.environ.get("OMP_NUM_THREADS", "not said"),
    }


# What is said of DDP: views save a copy, a static graph the search for unused parameters; small
# buckets are sent while the backward pass goes on.
_VIEWS = {"gradient_as_bucket_view": True, "static_graph": True, "broadcast_buffers": False}
_MAKE = {
    "gpubp": _gpubp(),
    "gpubp-buckets": _gpubp(bucket_cap_mb=1),
    "compute": _compute,
    "all-reduce": _all_reduce,
    "ddp": _ddp(),
    "ddp-views": _ddp(**_VIEWS),
    "ddp-buckets": _ddp(**_VIEWS, bucket_cap_mb=1),
}

if __name__ == "__main__":
    main()
