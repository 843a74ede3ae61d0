"""Starts the ranks of a program on this machine, watches them, and starts them anew if one dies.

Comes in: a command and how many ranks. Goes out: an exit code. Ranks meet at a port of rank 0's
machine. What rank 0 prints is shown; of the others only what they write to stderr.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from types import FrameType

from gpubp.distributed.starting import ADDRESS, BACKEND, RANK, SIZE, WAIT

LOOK_SECONDS = 0.05
# How long the others may take to notice by themselves that one has died, and to end when asked to.
GRACE_SECONDS = 5.0


@dataclass(frozen=True)
class Launch:
    """What to start.

    Attributes:
        command: of a rank.
        ranks: on this machine.
        backend: of `gpubp.distributed.init`.
        timeout: seconds that ranks wait for each other; None for the default.
        restarts: how often all are started anew after one has failed.
        machines, machine: how many machines do this, and which of them this is.
        address: "host:port" of the first machine; "" for a free port of this one.
        all_output: show what every rank prints.
        starter: MPI's, with its arguments, which starts the ranks and tells them who they are.
    """

    command: Sequence[str]
    ranks: int
    backend: str = "auto"
    timeout: float | None = None
    restarts: int = 0
    machines: int = 1
    machine: int = 0
    address: str = ""
    all_output: bool = False
    starter: Sequence[str] = ()

    @property
    def processes(self) -> int:
        """How many are started here: one a rank, or the starter that starts them."""
        return 1 if self.starter else self.ranks

    def environment(self, local: int, address: str) -> dict[str, str]:
        """Of one rank; the machine's processors are divided between them."""
        workers = max(1, (os.cpu_count() or 1) // self.ranks)
        made = {"GPUBP_NUM_THREADS": str(workers), **os.environ}
        made[BACKEND] = self.backend
        if not self.starter:
            made[RANK] = str(self.machine * self.ranks + local)
            made[SIZE] = str(self.machines * self.ranks)
            made[ADDRESS] = address
        if self.timeout is not None:
            made[WAIT] = str(self.timeout)
        return made


@dataclass
class _Ranks:
    """The processes of one start."""

    launch: Launch
    processes: list[subprocess.Popen[bytes]] = field(default_factory=list)

    def start(self) -> None:
        launch = self.launch
        address = launch.address or f"127.0.0.1:{free_port()}"
        for local in range(launch.processes):
            silent = local + launch.machine > 0 and not launch.all_output
            process = subprocess.Popen(
                [*launch.starter, *launch.command],
                env=launch.environment(local, address),
                stdout=subprocess.DEVNULL if silent else None,
                stdin=subprocess.DEVNULL if local else None,
            )
            self.processes.append(process)

    def wait(self) -> int:
        """Wait for all; the exit code of the first that failed, else 0."""
        failed, deadline = 0, float("inf")
        while any(p.poll() is None for p in self.processes):
            codes = [code for p in self.processes if (code := p.poll()) not in (None, 0)]
            if codes and not failed:
                failed, deadline = _exit_code(codes[0] or 0), time.monotonic() + GRACE_SECONDS
            if time.monotonic() > deadline:
                self.end()
            time.sleep(LOOK_SECONDS)
        codes = [p.returncode for p in self.processes if p.returncode]
        return failed or (_exit_code(codes[0]) if codes else 0)

    def end(self) -> None:
        """Ask those that still run to end; after a while, end them."""
        for process in self.processes:
            if process.poll() is None:
                process.terminate()
        deadline = time.monotonic() + GRACE_SECONDS
        for process in self.processes:
            try:
                process.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def launched(launch: Launch) -> int:
    """Start the ranks, and wait until all have ended.

    Returns:
        0 if all did; else the exit code of the first rank that failed (128 + signal if one ended
        it), after as many new starts as were asked for.
    """
    for attempt in range(launch.restarts + 1):
        ranks = _Ranks(launch)
        with _Signals(ranks) as signals:
            ranks.start()
            code = ranks.wait()
        if code == 0 or signals.heard or attempt == launch.restarts:
            return code
        print(
            f"a rank ended with exit code {code}: starting all {launch.ranks} anew "
            f"({attempt + 1} of {launch.restarts})",
            file=sys.stderr,
        )
    return 0


class _Signals:
    """While open, Ctrl-C is left to the ranks (a terminal sends it to them too), and a request to
    end is passed on."""

    def __init__(self, ranks: _Ranks) -> None:
        self._ranks, self.heard = ranks, False

    def __enter__(self) -> _Signals:
        self._before = {
            number: signal.signal(number, self._on) for number in (signal.SIGINT, signal.SIGTERM)
        }
        return self

    def _on(self, number: int, frame: FrameType | None) -> None:
        self.heard = True
        if number == signal.SIGTERM:
            for process in self._ranks.processes:
                process.terminate()

    def __exit__(self, *_: object) -> None:
        for number, before in self._before.items():
            signal.signal(number, before)


def free_port() -> int:
    """A port of this machine that nobody listens at."""
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])


def _exit_code(code: int) -> int:
    return code if code >= 0 else 128 - code
