"""What Ray Train does when it has started workers: they are told which ranks they are."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import Any

import ray
from ray.train.backend import Backend, BackendConfig

from gpubp.distributed.communicator import TIMEOUT
from gpubp.distributed.launch import free_port
from gpubp.distributed.starting import ADDRESS, BACKEND, RANK, SIZE, WAIT


def place(rank: int, size: int, address: str, timeout: float) -> None:
    """Tell `gp.distributed.init()`, on a worker, which rank it is."""
    found = {RANK: str(rank), SIZE: str(size), ADDRESS: address, WAIT: str(timeout)}
    os.environ.update({**found, BACKEND: "gloo" if size > 1 else "local"})


def meeting_point() -> str:
    """host:port of this worker, where the others can meet."""
    return f"{ray.util.get_node_ip_address()}:{free_port()}"


@dataclass
class RanksConfig(BackendConfig):  # type: ignore[misc]
    """How workers meet.

    Attributes:
        timeout: seconds that a rank waits for another.
    """

    timeout: float = TIMEOUT

    @property
    def backend_cls(self) -> type[Any]:
        """Ray's hook."""
        return _Ranks


class _Ranks(Backend):  # type: ignore[misc]
    def on_start(self, worker_group: Any, backend_config: RanksConfig) -> None:
        """Ray's hook: called when all workers are there, after each new start too."""
        size = len(worker_group)
        address = worker_group.execute_single(0, meeting_point)
        told = [
            worker_group.execute_single_async(
                rank, place, rank, size, address, backend_config.timeout
            )
            for rank in range(size)
        ]
        ray.get(told)
