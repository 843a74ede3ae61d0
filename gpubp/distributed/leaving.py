"""A rank that meets an error tells the others, so that none of them waits for it.

Comes in: an exception that ends what ranks do together. Goes out: either all ranks have one at the
same place (wrong arguments, say), and they may go on together; or this rank leaves: operations of
the others, those that wait too, are a `LostPeerError` that says who has left, and why.

Whether the others have an error too is waited for `PATIENCE` seconds. A rank's place is how many
operations it has started: where that is the same, no message is on its way.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Protocol, runtime_checkable

from gpubp.distributed.communicator import Communicator
from gpubp.errors import LostPeerError

PATIENCE = 1.0
LOOK_SECONDS = 0.002
SHOWN = 300  # characters of an error
_PASSED_ON = re.compile(r"LostPeerError: rank \d+: (.*\brank \d+ has .*)")
ALONE = -1  # the place of a rank that cannot go on with the others


@runtime_checkable
class Telling(Protocol):
    """A communicator through which a rank can tell that it has met an error."""

    def leave(self, why: str, alone: bool = False) -> None:
        """Tell the others that what ranks do together has ended here.

        Where all ranks come to `leave` at the same place, the communicator stays as it is; else it
        is closed, and the others' operations raise LostPeerError that says `why`.

        Args:
            why: for their errors.
            alone: the others cannot have the same error.
        """
        ...


@contextmanager
def telling(communicator: Communicator) -> Iterator[None]:
    """While open, ranks work together: an exception that leaves it is told to the others."""
    try:
        yield
    except BaseException as error:
        if isinstance(communicator, Telling):
            communicator.leave(_first_line(error), alone=isinstance(error, LostPeerError))
        raise


def note(place: int, why: str) -> str:
    """What is told."""
    return f"{place} {why}"


def all_left(
    size: int,
    place: int,
    told: Callable[[int], str | None],
    others_wait: Callable[[], bool] = lambda: False,
) -> bool:
    """Whether all ranks leave at this place, as soon as that is known.

    Args:
        size: how many ranks there are.
        place: of this rank.
        told: a rank's note, if it has told by now.
        others_wait: a rank is known to wait in an operation.
    """
    deadline = time.monotonic() + PATIENCE
    while True:
        found = [told(rank) for rank in range(size)]
        if any(text is not None and _place(text) != place for text in found):
            return False
        if None not in found:
            return True
        if others_wait() or time.monotonic() > deadline:
            return False
        time.sleep(LOOK_SECONDS)


def who_left(size: int, told: Callable[[int], str | None]) -> str:
    """Of those that have told, the one whose error came first; "" if nobody has."""
    found = [(text, rank) for rank in range(size) if (text := told(rank)) is not None]
    if not found:
        return ""
    text, rank = max(found, key=lambda pair: _place(pair[0]) != ALONE)
    why = text.partition(" ")[2]
    # One that left because another has may have told before that one's own note is here.
    passed_on = _PASSED_ON.match(why)
    return passed_on[1] if passed_on else f"rank {rank} has left: {why}"


def _place(text: str) -> int:
    return int(text.partition(" ")[0])


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    # Without the dot at its end: sentences go on behind it.
    shown = f"{type(error).__name__}: {lines[0].rstrip('.')}" if lines else type(error).__name__
    return shown if len(shown) <= SHOWN else f"{shown[:SHOWN]}..."
