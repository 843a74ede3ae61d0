"""How torch's process groups end: neither too early, nor after Python.

Where torch ends a group it waits for operations that are on their way, and lets no other thread of
Python's go on. So a group ends when they have ended, in a thread of its own. And where Python ends
first, torch 2.13 now and then aborts the process: whatever is open is let go of before.
"""

from __future__ import annotations

import atexit
import ctypes
import os
import threading
import time
import weakref
from typing import Any, Protocol

JOIN_SECONDS = 5.0


class _Open(Protocol):
    def end(self) -> None:
        """Close what is open, without telling anybody."""


_open: weakref.WeakKeyDictionary[_Open, int] = weakref.WeakKeyDictionary()  # and its process
_ending: list[threading.Thread] = []
_exiting: list[bool] = []  # holds something once Python is about to end


def watch(communicator: _Open) -> None:
    """Let it end before Python does, in the process that made it."""
    _open[communicator] = os.getpid()


def end_group(taken: list[Any], works: list[Any]) -> None:
    """Close a group's connections once these operations are done; at the latest with the process.

    Args:
        taken: the group, which nobody else holds any more; taken out of the list.
        works: the operations, which are taken out too.
    """
    group = taken.pop()
    ctypes.pythonapi.Py_IncRef(ctypes.py_object(group))
    held: list[Any] = [group, [works.pop() for _ in range(len(works))]]
    del group

    def end() -> None:
        while not all(work.is_completed() for work in held[1]):
            if _exiting:
                return
            time.sleep(0.005)
        held.pop().clear()
        ctypes.pythonapi.Py_DecRef(ctypes.py_object(held[0]))
        held.clear()

    _ending.append(threading.Thread(target=end, daemon=True))
    _ending[-1].start()


@atexit.register
def _end_before_python() -> None:
    _exiting.append(True)
    for communicator, process in list(_open.items()):
        if process == os.getpid():  # a forked child has none of torch's threads
            communicator.end()
    for thread in _ending:
        thread.join(JOIN_SECONDS)
