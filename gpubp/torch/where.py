"""Which line of the user's code something comes from.

Comes in: what torch notes of a graph's node, or an exception. Goes out: "file.py, line 12: code".
"""

from __future__ import annotations

import linecache
import os
import re
from collections.abc import Iterator
from traceback import StackSummary, extract_stack
from types import TracebackType
from typing import Any

import torch

# Where the source is not known (`exec`), there is no line of code, and the next frame follows.
_FRAME = re.compile(
    r'File "(?P<file>[^"]+)", line (?P<line>\d+), in [^\n]+(?:\n(?! *File ")(?P<code>[^\n]*))?'
)
_OWN = (os.path.dirname(os.path.dirname(os.path.abspath(__file__))) + os.sep,)
_TORCH = (os.path.dirname(os.path.abspath(torch.__file__)) + os.sep,)


def of_node(node: Any) -> str:
    """The user's line that made a node of a graph; torch's own where there is no other."""
    frames = [m.groupdict() for m in _FRAME.finditer(node.meta.get("stack_trace") or "")]
    return _innermost([(f["file"], int(f["line"]), (f["code"] or "").strip()) for f in frames])


def kept(frames: StackSummary) -> StackSummary:
    """The innermost calls of the user's code; where there are none, those of torch's modules."""
    others = [f for f in frames if not f.filename.startswith((*_OWN, *_TORCH))]
    found = others or [f for f in frames if f.name == "forward" and not f.filename.startswith(_OWN)]
    return StackSummary.from_list(found[-3:])


def of_error(error: BaseException) -> str:
    """The user's line in which an exception was raised."""
    frames = _frames(error.__traceback__)
    return _innermost(
        [(file, line, linecache.getline(file, line).strip()) for file, line in frames]
    )


def of_caller() -> str:
    """The user's line that is being run."""
    return _innermost([(f.filename, f.lineno or 0, f.line or "") for f in extract_stack()])


def _frames(traceback: TracebackType | None) -> Iterator[tuple[str, int]]:
    while traceback is not None:
        yield traceback.tb_frame.f_code.co_filename, traceback.tb_lineno
        traceback = traceback.tb_next


def _innermost(frames: list[tuple[str, int, str]]) -> str:
    others = [f for f in frames if not f[0].startswith(_OWN)]
    users = [f for f in others if not f[0].startswith(_TORCH)] or others
    if not users:
        return "a line that torch does not tell"
    file, line, code = users[-1]
    return f"{file}, line {line}: {code}" if code else f"{file}, line {line}"
