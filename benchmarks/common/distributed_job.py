"""One rank of the benchmark `distributed`: all contenders in turn, round by round.

Usage: python -m common.distributed_job ROW OPTIMIZER ROUNDS CONTENDER,... GLOO_HOST:PORT

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
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

import gpubp as gp
from common.rows import Task, check_order, find_row, make_order, make_weights
from gpubp.distributed import Communicator
from gpubp.distributed.gloo import GlooCommunicator

PAUSE_SECONDS = 0.02  # what the turn before has left to threads is done by then
Made = tuple[Callable[[], Any], list[float]]  # one turn, and the losses of the check


@dataclass(frozen=True)
class Ranks:
    """How this process reaches the others.

    Attributes:
        started: as `init()` gives it: through shared memory, where ranks have that.
        gloo: through gloo, at an address.
        mpi: through MPI, if that started the ranks.
        torch_address: where torch's own group meets.
    """

    started: Communicator
    gloo: Communicator
    mpi: Communicator | None
    torch_address: str

    @classmethod
    def met(cls, address: str) -> Ranks:
        """Wait for the others."""
        started = gp.distributed.init()
        host, _, port = address.rpartition(":")
        carrier = getattr(started, "carrier", started)
        gloo = carrier
        if carrier.name != "gloo":
            gloo = GlooCommunicator(started.rank, started.size, address)
        mpi = carrier if carrier.name == "mpi" else None
        return cls(started, gloo, mpi, f"{host}:{int(port) + 1}")


def main() -> None:
    """Run the rounds."""
    row, optimizer, rounds, names, address = sys.argv[1:]
    task = Task(find_row(row), optimizer)
    ranks = Ranks.met(address)
    made = {name: _MAKE[name](task, ranks) for name in names.split(",")}
    for run, _ in made.values():
        run()
    found: dict[str, list[float]] = {name: [] for name in made}
    for _ in range(int(rounds)):
        for name, (run, _) in made.items():
            found[name].append(_turn(run, ranks.started) / task.row.steps)
    if ranks.started.rank == 0:
        losses = {name: values for name, (_, values) in made.items()}
        print(json.dumps({"rounds": found, "losses": losses, "versions": _versions(ranks)}))
    ranks.gloo.close()
    ranks.started.close()


def _turn(run: Callable[[], Any], communicator: Communicator) -> float:
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


def _gpubp(carrier: str, **options: Any) -> Callable[[Task, Ranks], Made]:
    """A step with one of the communicators, and options of `DataParallel`."""

    def make(task: Task, ranks: Ranks) -> Made:
        from common.peers_gpubp import GpubpCase

        parallel = gp.distributed.DataParallel(getattr(ranks, carrier), **options)
        case = GpubpCase(task, parallel)
        losses = case.check()[: task.row.batches].tolist()
        case.reset()
        return case.run, losses

    return make


def _compute(task: Task, ranks: Ranks) -> Made:
    """A rank's share of every batch, alone: the fused step of one rank, with nothing sent."""
    from common.peers_gpubp import GpubpCase

    share = replace(task.row, batch=task.row.batch // ranks.started.size)
    case = GpubpCase(replace(task, row=share))
    case.reset()
    return case.run, []


def _all_reduce(carrier: str) -> Callable[[Task, Ranks], Made]:
    """Nothing but an all-reduce of the gradients' bytes for each step."""

    def make(task: Task, ranks: Ranks) -> Made:
        count = sum(a.size for arrays in make_weights(task.row) for a in arrays)
        gradients, all_reduce = np.zeros(count, np.float32), getattr(ranks, carrier).all_reduce

        def run() -> None:
            for _ in range(task.row.steps):
                all_reduce(gradients)

        return run, []

    return make


def _ddp(**options: Any) -> Callable[[Task, Ranks], Made]:
    """DistributedDataParallel with such options; each rank gets an equal share of each batch."""

    def make(task: Task, ranks: Ranks) -> Made:
        from common.peers_torch import EagerCase

        rank, size, row = ranks.started.rank, ranks.started.size, task.row
        case = EagerCase(task, fused=True)
        case.reset()
        if size > 1:
            case._model = _wrapped(case._model, ranks, options)
        share = row.batch // size

        def batches(order: Any) -> list[Any]:
            return [index[rank * share : (rank + 1) * share] for index in case._batches(order)]

        losses = np.array(case._run(batches(check_order(row))), np.float64)
        ranks.started.all_reduce(losses)
        case.reset()
        order = batches(make_order(row))
        return lambda: case._run(order), (losses / size).tolist()

    return make


def _wrapped(model: Any, ranks: Ranks, options: dict[str, Any]) -> Any:
    import torch
    from torch.nn.parallel import DistributedDataParallel

    if not torch.distributed.is_initialized():
        torch.distributed.init_process_group(
            "gloo",
            init_method=f"tcp://{ranks.torch_address}",
            rank=ranks.started.rank,
            world_size=ranks.started.size,
        )
    torch.set_num_threads(1)
    return DistributedDataParallel(model, **options)


def _versions(ranks: Ranks) -> dict[str, str]:
    from importlib.metadata import version

    found = {
        "torch": version("torch"),
        "gpubp backend": gp.default_backend_name(),
        "shared memory": "yes" if hasattr(ranks.started, "carrier") else "no",
        "threads of a rank": os.environ.get("OMP_NUM_THREADS", "not said"),
    }
    if ranks.mpi is not None:
        from mpi4py import MPI

        found["MPI"] = MPI.Get_library_version().partition("\n")[0].strip()
    return found


# What is said of DDP: views save a copy, a static graph the search for unused parameters; small
# buckets are sent while the backward pass goes on.
_VIEWS = {"gradient_as_bucket_view": True, "static_graph": True, "broadcast_buffers": False}
_MAKE = {
    "gpubp": _gpubp("started"),
    "gpubp-divided": _gpubp("started", shard_optimizer=True),
    "gpubp-gloo": _gpubp("gloo"),
    "gpubp-gloo-buckets": _gpubp("gloo", bucket_cap_mb=1),
    "gpubp-mpi": _gpubp("mpi"),
    "compute": _compute,
    "all-reduce": _all_reduce("started"),
    "all-reduce-gloo": _all_reduce("gloo"),
    "all-reduce-mpi": _all_reduce("mpi"),
    "ddp": _ddp(),
    "ddp-views": _ddp(**_VIEWS),
    "ddp-buckets": _ddp(**_VIEWS, bucket_cap_mb=1),
}

if __name__ == "__main__":
    main()
