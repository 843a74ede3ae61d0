"""One rank of the benchmark `distributed`; rank 0 prints its results as JSON.

Usage: python -m common.distributed_job CONTENDER ROW OPTIMIZER REPEATS
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np

import gpubp as gp
from common.rows import Task, check_order, find_row, make_order, make_weights
from gpubp.distributed.starting import ADDRESS


def main() -> None:
    """Run one contender."""
    name, row, optimizer, repeats = sys.argv[1:]
    task = Task(find_row(row), optimizer)
    communicator = gp.distributed.init()
    run, losses = _MAKE[name](task, communicator)
    run()  # warm
    seconds = []
    for _ in range(int(repeats)):
        communicator.barrier()
        start = time.perf_counter()
        run()
        seconds.append((time.perf_counter() - start) / task.row.steps)
    if communicator.rank == 0:
        print(json.dumps({"seconds": seconds, "losses": losses}))
    communicator.close()


def _gpubp(task: Task, communicator: Any) -> tuple[Callable[[], Any], list[float]]:
    from common.peers_gpubp import GpubpCase

    case = GpubpCase(task, communicator)
    losses = case.check()[: task.row.batches].tolist()
    case.reset()
    return case.run, losses


def _ddp(task: Task, communicator: Any) -> tuple[Callable[[], Any], list[float]]:
    """Each rank gets an equal share of each batch; losses are averaged over ranks."""
    import torch
    from torch.nn.parallel import DistributedDataParallel

    from common.peers_torch import EagerCase

    rank, size, row = communicator.rank, communicator.size, task.row
    host, _, port = os.environ.get(ADDRESS, "127.0.0.1:29518").rpartition(":")
    torch.distributed.init_process_group(
        "gloo", init_method=f"tcp://{host}:{int(port) + 1}", rank=rank, world_size=size
    )
    torch.set_num_threads(1)
    case = EagerCase(task, fused=True)
    case.reset()
    if size > 1:
        case._model = DistributedDataParallel(case._model)
    share = row.batch // size

    def batches(order: Any) -> list[Any]:
        return [index[rank * share : (rank + 1) * share] for index in case._batches(order)]

    losses = np.array(case._run(batches(check_order(row))), np.float64)
    communicator.all_reduce(losses)
    case.reset()
    order = batches(make_order(row))
    return lambda: case._run(order), (losses / size).tolist()


def _bare(task: Task, communicator: Any) -> tuple[Callable[[], Any], list[float]]:
    """Nothing but an all-reduce of the gradients' bytes for each step."""
    count = sum(a.size for arrays in make_weights(task.row) for a in arrays)
    gradients = np.zeros(count, np.float32)

    def run() -> None:
        for _ in range(task.row.steps):
            communicator.all_reduce(gradients)

    return run, []


_MAKE = {"gpubp": _gpubp, "torch-ddp": _ddp, "all-reduce": _bare}

if __name__ == "__main__":
    main()
