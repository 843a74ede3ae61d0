"""A child process: holds the cases of one contender and does what the parent asks, one by one.

Requests and answers are pickles over stdin and stdout; what libraries print goes to stderr.
"""

from __future__ import annotations

import importlib
import os
import pickle
import signal
import sys
from typing import Any, BinaryIO

from common.case import Case, NotSupportedError, device_turn, turn
from common.resident import forget_peak, peak, resident

_cases: dict[str, Case] = {}


def _private_stdout() -> BinaryIO:
    """The pipe to the parent; whatever else writes to stdout from now on goes to stderr."""
    pipe = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    return pipe


def bind_to_processors(count: int) -> None:
    """Leave this process `count` of its processors, where the system can do that."""
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:count])


def _open(key: str, module: str, variant: str, task: Any) -> None:
    _cases[key] = importlib.import_module(module).build(variant, task)


def _warm(key: str) -> None:
    _cases[key].reset()
    _cases[key].run()


_COMMANDS = {
    "bind": bind_to_processors,
    "open": _open,
    "check": lambda key: _cases[key].check(),
    "warm": _warm,
    "turn": lambda key: turn(_cases[key]),
    "device": lambda key: device_turn(_cases[key]),
    "versions": lambda module: importlib.import_module(module).versions(),
    "clear": _cases.clear,
    "resident": resident,
    "peak": peak,
    "forget_peak": forget_peak,
}


def _answer(command: str, arguments: tuple[Any, ...]) -> tuple[str, Any]:
    try:
        return "ok", _COMMANDS[command](*arguments)
    except NotSupportedError as reason:
        return "left out", str(reason)
    except ImportError as error:
        return "missing", f"{error}"
    except Exception as error:  # whatever a library raises is reported to the parent, in words
        first_line = (str(error).strip() or "no message").splitlines()[0]
        return "failed", f"{type(error).__name__}: {first_line}"


def main() -> None:
    """Serve until the parent closes the pipe."""
    pipe = _private_stdout()
    # Ctrl-C reaches the whole group; the parent ends its children itself.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    while True:
        try:
            command, arguments = pickle.load(sys.stdin.buffer)
        except EOFError:
            return
        pickle.dump(_answer(command, arguments), pipe)
        pipe.flush()


if __name__ == "__main__":
    main()
