"""Programs that are run from inside of a running one: from the Python function of a custom op.

A program has memory of its own for temporaries, and the slots that it reads and writes are shared.
So what runs inside of it must be another program that does not write what the outer one uses, nor
use what that one writes; everything else is refused before any work, as are threads that would
wait for each other for ever. Programs without custom ops cannot have others inside of them: until
the first one with a custom op is made, nothing here costs anything.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any, NamedTuple, Protocol

from gpubp.core import Graph
from gpubp.core.forks import anew_in_child
from gpubp.errors import NestingError

LOOK_SECONDS = 0.05  # between two looks whether a wait can end


class Programs(Protocol):
    """What is needed of a `Runner`."""

    name: str
    backend: Any
    lock: Any


class _Frame(NamedTuple):
    """A run of programs with custom ops, in one thread."""

    programs: Programs
    graphs: Sequence[Graph]


class _Here(threading.local):
    frames: tuple[_Frame, ...] = ()


class _Nesting:
    """Who runs what, and who waits for whom.

    Attributes:
        possible: there is a program with a custom op.
        holders: the threads that are in runs with custom ops, by id(programs).
        waits: the programs that threads inside of runs wait for.
    """

    def __init__(self) -> None:
        self.possible = False
        self.here = _Here()
        self.holders: dict[int, int] = {}
        self.waits: dict[int, int] = {}
        anew_in_child(self)

    def start_anew(self) -> None:
        """In a forked child there is this thread alone."""
        me = threading.get_ident()
        self.waits = {}
        self.holders = {key: me for key, holder in self.holders.items() if holder == me}


nesting = _Nesting()


def turn(programs: Programs) -> AbstractContextManager[Any]:
    """The right to run these programs, for the time of a `with` block.

    Raises:
        NestingError: this thread is running them, or waiting for them would never end.
    """
    if nesting.possible and nesting.here.frames:
        return _turn_inside(programs)
    lock: AbstractContextManager[Any] = programs.lock
    return lock


@contextmanager
def _turn_inside(programs: Programs) -> Iterator[None]:
    require_not_running(programs)
    if not programs.lock.acquire(blocking=False):
        _wait(programs)
    try:
        yield
    finally:
        programs.lock.release()


def require_not_running(programs: Programs) -> None:
    """Raise NestingError if this thread is in a run of these programs, or in one whose backend can
    run nothing else meanwhile."""
    for frame in nesting.here.frames:
        if frame.programs is programs:
            raise NestingError(
                f"{programs.name} was called by a custom op inside of its own run, whose memory it "
                "would overwrite. Use the plain function there (not the compiled one), or call it "
                "between two runs."
            )
        if frame.programs.backend is programs.backend and not programs.backend.nests:
            raise NestingError(
                f"{programs.name} was called by a custom op inside of a run of "
                f"{frame.programs.name} on the same device, which can run nothing else meanwhile. "
                "Compute with NumPy there, or compile the inner function with device='cpu'."
            )


def _wait(programs: Programs) -> None:
    """Wait for the lock; another thread that runs these programs may be waiting for ours."""
    me = threading.get_ident()
    nesting.waits[me] = id(programs)
    try:
        while not programs.lock.acquire(timeout=LOOK_SECONDS):
            if _waits_for(id(programs), me):
                raise NestingError(
                    f"{programs.name} was called by a custom op while another thread runs it and "
                    "waits for what this thread runs: neither would ever go on. Let the custom ops "
                    "of both use plain functions."
                )
    finally:
        nesting.waits.pop(me, None)


def _waits_for(programs: int, me: int) -> bool:
    """Whoever runs these programs waits, in the end, for what this thread runs."""
    seen: set[int] = set()
    key: int | None = programs
    while key is not None and key not in seen:
        seen.add(key)
        holder = nesting.holders.get(key)
        if holder == me:
            return True
        key = None if holder is None else nesting.waits.get(holder)
    return False


@contextmanager
def running(programs: Programs, graphs: Sequence[Graph]) -> Iterator[None]:
    """While open, this thread runs programs made from these graphs.

    Raises:
        NestingError: they share slots with a run that this one is inside of, and one writes them.
    """
    if not nesting.possible:
        yield
        return
    frames = nesting.here.frames
    for frame in frames:
        _require_apart(programs, graphs, frame)
    if not any(graph.calls_python() for graph in graphs):
        yield
        return
    key = id(programs)
    nesting.here.frames = (*frames, _Frame(programs, graphs))
    nesting.holders[key] = threading.get_ident()
    try:
        yield
    finally:
        nesting.here.frames = frames
        del nesting.holders[key]


def _require_apart(programs: Programs, graphs: Sequence[Graph], outer: _Frame) -> None:
    require_not_running(programs)
    mine, mine_written = _slots(graphs)
    theirs, theirs_written = _slots(outer.graphs)
    shared = {**_common(mine_written, theirs), **_common(mine, theirs_written)}
    if shared:
        raise NestingError(
            f"{programs.name} was called by a custom op inside of a run of {outer.programs.name}, "
            f"and both use {', '.join(sorted(shared.values()))}, which one of them writes: what "
            "the other reads would depend on the order of its parts. Call it between two runs."
        )


def _slots(graphs: Sequence[Graph]) -> tuple[dict[int, str], dict[int, str]]:
    """(names of all slots, of those that are written), by id."""
    written = {id(slot): slot.name for graph in graphs for slot, _ in graph.writes}
    read = {id(slot): slot.name for graph in graphs for slot in graph.slots()}
    return {**read, **written}, written


def _common(a: dict[int, str], b: dict[int, str]) -> dict[int, str]:
    return {key: name for key, name in a.items() if key in b}
