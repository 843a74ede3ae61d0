"""Proof that every part writes all that it promises: run alone, on outputs that hold poison.

Comes in: a program, and a backend's way to run one part of it and to reach its memory. A part is
run once, after those before it, on inputs of zeros; no element of what it writes may be as before.
An output in the place of an input (an update) is left as it is: that its encoder has not forgotten
it is checked where parts are encoded. Loops whose length the program finds out are not run: on
zeros they may never end.
"""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np
from numpy.lib.stride_tricks import as_strided
from numpy.typing import NDArray

from gpubp.compiler.parts import Operand, Part
from gpubp.compiler.program import Program
from gpubp.errors import VerificationError

# Two bytes, again and again: NaN in both float types, huge as an integer, neither False nor True.
_PATTERN = b"\xf0\x7f"


class Trial(Protocol):
    """A program on a backend, ready to run part by part."""

    def run(self, position: int) -> bool:
        """Run a part; False if it was not run, or met a label or index out of range."""
        ...

    def fetch(self, operand: Operand) -> NDArray[np.uint8]:
        """The bytes of an operand's `extent`: the memory itself, or a copy."""
        ...

    def put(self, operand: Operand, content: NDArray[np.uint8]) -> None:
        """Write back what `fetch` gave."""
        ...


def check_writes(program: Program, trial: Trial) -> None:
    """Run all parts, one by one, on poisoned outputs.

    Raises:
        VerificationError: a part leaves an output, or some of it, as it was.
    """
    for position, part in enumerate(program.parts):
        outputs = [o for o in _apart(part) if 0 not in o.shape]
        for operand in outputs:
            _fill(trial, operand, _PATTERN)
        if _may_not_end(part) or not trial.run(position):
            for operand in outputs:
                _fill(trial, operand, bytes(2))
            continue
        for operand in outputs:
            if (_elements(trial.fetch(operand), operand) == _word(operand, _PATTERN)).any():
                raise VerificationError(
                    f"{part.name} does not write all of %{operand.value}, one of its results."
                )


def _may_not_end(part: Part) -> bool:
    """A loop goes on for as long as its own values say: on zeros that can be for ever."""
    if part.body_program is None:
        return False
    loop = part.body[0].attrs["loop"]
    asks = loop.until >= 0 and loop.length > 1
    return asks or any(map(_may_not_end, part.body_program.program.parts))


def _apart(part: Part) -> list[Operand]:
    """The outputs that share no memory with an input."""
    return [o for _, o in part.outputs if not any(o.meets(i) for i in part.inputs)]


def _word(operand: Operand, pattern: bytes) -> Any:
    """One element made of the pattern, as an unsigned integer."""
    size = operand.dtype.itemsize
    return np.frombuffer((pattern * 4)[:size], f"u{size}")[0]


def _elements(content: NDArray[np.uint8], operand: Operand) -> NDArray[Any]:
    size = operand.dtype.itemsize
    start = operand.offset - operand.extent[0] // size
    strides = tuple(s * size for s in operand.strides)
    return as_strided(content.view(f"u{size}")[start:], operand.shape, strides)


def _fill(trial: Trial, operand: Operand, pattern: bytes) -> None:
    content = trial.fetch(operand)
    _elements(content, operand)[...] = _word(operand, pattern)
    trial.put(operand, content)
