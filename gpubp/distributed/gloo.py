"""Ranks that talk through gloo, the library in torch that needs nothing but a network.

Torch is asked for its process group alone: no global group of torch's is made or touched, so a
program may have both.
"""

from __future__ import annotations

import contextlib
import datetime
import importlib
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.distributed.communicator import TIMEOUT, check_carried, check_root, check_summable
from gpubp.distributed.gloo_ends import end_group, watch
from gpubp.distributed.leaving import ALONE, PATIENCE, all_left, note, who_left
from gpubp.distributed.requests import Done, Request, check_rows
from gpubp.errors import DistributedError, LostPeerError, missing_extra

CLOSE_SECONDS = 5.0
LATE_SECONDS = 5.0  # torch ends an operation itself at the timeout
SLICE = datetime.timedelta(seconds=0.5)
STORE_SECONDS = 2.0  # for an answer of the store on rank 0


class GlooCommunicator:
    """A rank of a group that meets at an address.

    Args:
        rank: of this process.
        size: how many will come.
        address: "host:port" of rank 0, which listens there.
        timeout: seconds that a rank waits for another.

    Raises:
        MissingExtraError: torch is not installed.
        LostPeerError: not all ranks have come within the timeout.
    """

    name = "gloo"

    def __init__(self, rank: int, size: int, address: str, timeout: float = TIMEOUT) -> None:
        try:
            torch: Any = importlib.import_module("torch")
            torch_distributed: Any = importlib.import_module("torch.distributed")
        except ImportError as error:
            raise missing_extra("torch", "gloo", "the gloo backend") from error
        self.rank, self.size, self.timeout = rank, size, timeout
        self._torch = torch
        self._begun = self._partings = 0  # operations, and how often all ranks met errors together
        self._closed = "this communicator is closed"
        self._live: weakref.WeakSet[_Started] = weakref.WeakSet()
        host, _, port = address.rpartition(":")
        wait = datetime.timedelta(seconds=timeout)
        try:
            self._store = torch_distributed.TCPStore(host, int(port), size, rank == 0, wait)
            self._group: Any = torch_distributed.ProcessGroupGloo(self._store, rank, size, wait)
        except (RuntimeError, ValueError) as error:
            raise LostPeerError(
                f"rank {rank} of {size} could not meet the others at {address} within "
                f"{timeout:g} s: {_first_line(error)}."
            ) from error
        watch(self)

    def end(self) -> None:
        """Close what is open, without telling anybody."""
        if self._group is not None:
            self._let_go()

    def _do(self, start: Callable[[], Any]) -> None:
        self._start(start).wait()

    @property
    def is_open(self) -> bool:
        """See `Carrier`."""
        return self._group is not None

    def begin(self) -> None:
        """See `Carrier`."""
        self.require_open(self._group)
        self._begun += 1

    def require_all_there(self) -> None:
        """See `Carrier`."""
        left = _within(STORE_SECONDS, lambda: who_left(self.size, self._told))
        if left:
            raise LostPeerError(f"rank {self.rank}: {left}.")

    def _start(self, start: Callable[[], Any]) -> _Started:
        self.begin()
        try:
            started = _Started(self, start())
        except RuntimeError as error:
            raise self.lost(error) from error
        self._live.add(started)
        return started

    def require_open(self, held: Any) -> None:
        """Raise DistributedError where what torch had has been let go of."""
        if held is None:
            raise DistributedError(f"{self._closed}.")

    def lost(self, error: BaseException) -> LostPeerError:
        """What torch's error means."""
        left = _within(STORE_SECONDS, lambda: who_left(self.size, self._told))
        if left:
            return LostPeerError(f"rank {self.rank}: {left}.")
        return LostPeerError(
            f"rank {self.rank}: another rank is gone, or did not come within "
            f"{self.timeout:g} s: {_first_line(error)}."
        )

    def _bytes(self, array: NDArray[Any]) -> Any:
        return self._torch.from_numpy(array.reshape(-1).view(np.uint8))

    def all_reduce(self, array: NDArray[Any]) -> None:
        """See `Communicator`."""
        check_summable(array)
        if array.size:
            tensor = self._torch.from_numpy(array.reshape(-1))
            self._do(lambda: self._group.allreduce([tensor]))

    def start_all_reduce(self, array: NDArray[Any]) -> Request:
        """See `NonBlocking`."""
        check_summable(array)
        if not array.size:
            return Done()
        tensor = self._torch.from_numpy(array.reshape(-1))
        return self._start(lambda: self._group.allreduce([tensor]))

    def start_reduce_scatter(self, rows: NDArray[Any]) -> Request:
        """See `NonBlocking`."""
        check_rows(rows, self.size)
        if not rows.size:
            return Done()
        given = [self._torch.from_numpy(row) for row in rows]
        total = np.empty_like(rows[0])
        mine = self._torch.from_numpy(total)
        started = self._start(lambda: self._group.reduce_scatter([mine], [given]))
        started.put = rows[self.rank], total
        return started

    def broadcast(self, array: NDArray[Any], root: int = 0) -> None:
        """See `Communicator`."""
        check_carried(array)
        check_root(root, self.size)
        if array.size:
            tensor = self._bytes(array)
            self._do(lambda: self._group.broadcast(tensor, root))

    def gather(self, array: NDArray[Any]) -> NDArray[Any]:
        """See `Communicator`."""
        check_carried(array)
        found = np.empty((self.size, *array.shape), array.dtype)
        if array.size:
            rows = [self._bytes(row) for row in found.reshape(self.size, -1)]
            mine = self._bytes(np.array(array, order="C"))
            self._do(lambda: self._group.allgather([rows], [mine]))
        return found

    def barrier(self) -> None:
        """See `Communicator`."""
        self._do(self._group.barrier)

    def leave(self, why: str, alone: bool = False) -> None:
        """See `Telling`. Closed connections end what the others wait for; why that is so, they find
        in the store where all have met."""
        if self._group is None:
            return
        place = ALONE if alone else self._begun
        if _within(PATIENCE + STORE_SECONDS, lambda: self._part(place, why)):
            self._partings += 1
            return
        self._closed = f"this communicator is closed since this rank has left ({why})"
        self._let_go()
        if self.rank == 0:  # the store goes with this process
            deadline = time.monotonic() + PATIENCE
            while time.monotonic() < deadline and not all(map(self._told, range(self.size))):
                time.sleep(0.005)

    def _part(self, place: int, why: str) -> bool:
        """Tell the others; whether all of them leave at this place."""
        self._store.set(self._key(self.rank), note(place, why))
        return place != ALONE and all_left(self.size, place, self._told)

    def _key(self, rank: int) -> str:
        return f"left/{self._partings}/{rank}"

    def _told(self, rank: int) -> str | None:
        """What a rank has told of its error, if it has."""
        key = self._key(rank)
        return self._store.get(key).decode() if self._store.check([key]) else None

    def _let_go(self) -> None:
        """Close the connections, which the group holds, and every operation that is not done."""
        taken, self._group = [self._group], None
        works = [started.let_go() for started in list(self._live)]
        end_group(taken, [work for work in works if work is not None])

    def close(self) -> None:
        """Leave; rank 0, where the others have met, stays until they have gone, but not long."""
        if self._group is None:
            return
        self._group = None
        _within(STORE_SECONDS, lambda: self._store.add("gone", 1))
        deadline = time.monotonic() + min(CLOSE_SECONDS, self.timeout)
        while self.rank == 0 and time.monotonic() < deadline:
            if self._store.add("gone", 0) >= self.size:
                break
            time.sleep(0.005)


class _Started:
    """An operation that torch's threads are at."""

    def __init__(self, communicator: GlooCommunicator, work: Any) -> None:
        self._communicator, self._work = communicator, work
        self.put: tuple[NDArray[Any], NDArray[Any]] | None = None

    def wait(self) -> None:
        """See `Request`."""
        self._communicator.require_open(self._work)
        try:
            self._wait()
        except RuntimeError as error:
            self.let_go()  # an error's traceback keeps this object
            raise self._communicator.lost(error) from error
        except BaseException as error:  # Ctrl-C, which leaves an operation without an end
            self._communicator.leave(type(error).__name__, alone=True)
            raise
        self.let_go()
        if self.put is not None:
            target, found = self.put
            target[...] = found

    def _wait(self) -> None:
        """Return when it is done, and raise what went wrong; Python hears of Ctrl-C meanwhile."""
        deadline = time.monotonic() + self._communicator.timeout + LATE_SECONDS
        while True:
            try:
                self._work.wait(SLICE)
                return
            except RuntimeError:
                if self._work.is_completed():
                    self._work.wait()  # raises, unless it has just been done
                    return
                if time.monotonic() > deadline:
                    raise

    def let_go(self) -> Any:
        """Of what torch has for the operation, which holds connections; returns it."""
        work, self._work = self._work, None
        return work


def _within(seconds: float, ask: Callable[[], Any]) -> Any:
    """What the store answers, or None: rank 0 may be gone, and its machine may be cut off, which
    torch would wait for without an end."""
    found: list[Any] = []

    def work() -> None:
        with contextlib.suppress(RuntimeError):  # rank 0 is gone, and with it the store
            found.append(ask())

    asking = threading.Thread(target=work, daemon=True)
    asking.start()
    asking.join(seconds)
    return found[0] if found else None


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return lines[0].rstrip(".") if lines else type(error).__name__
