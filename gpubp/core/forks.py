"""What a forked child must make anew: locks that a thread held which the child has not.

`os.fork` copies one thread. A lock that another one held at that moment stays locked in the child
for ever, and what that thread was in the middle of stays half done. So whoever owns locks, or
memory that a run leaves in an unknown state, makes them anew in the child.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol


class Owner(Protocol):
    """What owns locks or memory of runs."""

    def start_anew(self) -> None:
        """Called in a forked child, before anything else runs there."""
        ...


_owners: weakref.WeakSet[Owner] = weakref.WeakSet()


def anew_in_child(owner: Owner) -> None:
    """Call `owner.start_anew()` in every child that is forked while `owner` lives."""
    _owners.add(owner)


def _start_anew() -> None:
    for owner in list(_owners):
        owner.start_anew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_anew)
