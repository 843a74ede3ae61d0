"""The work of compiling a program grows with its length, not with a power of it."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

import gpubp as gp
from gpubp import nn, ops
from gpubp.compiler.byte_ranges import ByteRanges


def _calls(work: Any) -> int:
    """How many functions are called, of Python and of C."""
    count = 0

    def seen(_frame: Any, event: str, _arg: Any) -> None:
        nonlocal count
        count += event in ("call", "c_call")

    sys.setprofile(seen)
    try:
        work()
    finally:
        sys.setprofile(None)
    return count


def _recurrent(steps: int) -> Any:
    """A training step of an unrolled recurrent network, ready to be compiled."""
    gp.manual_seed(0)
    wide, narrow = nn.Linear(6, 6), nn.Linear(3, 6)
    optimizer = gp.optim.Adam([*wide.parameters(), *narrow.parameters()])

    def loss(x: Any) -> Any:
        hidden = ops.tanh(narrow(x[:, 0]))
        for t in range(1, steps):
            hidden = ops.tanh(wide(hidden) + narrow(x[:, t]))
        return ops.mean(ops.square(hidden))

    step = gp.compile_step(loss, optimizer, backend="numpy")
    return lambda: step(np.zeros((4, steps, 3), np.float32))


def _deep(layers: int) -> Any:
    """A training step of a deep network with a parameter of its own for each layer."""
    gp.manual_seed(0)
    model = nn.Sequential(*[m for _ in range(layers) for m in (nn.Linear(5, 5), nn.Tanh())])
    optimizer = gp.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    step = gp.compile_step(lambda x: ops.mean(ops.square(model(x))), optimizer, backend="numpy")
    return lambda: step(np.zeros((4, 5), np.float32))


def test_compiling_takes_calls_in_proportion_to_the_length() -> None:
    for program in (_recurrent, _deep):
        _calls(program(4))  # what is done once a process
        short, long = _calls(program(16)), _calls(program(64))
        assert long < 4.8 * short, (program.__name__, short, long)


_RANGES = st.lists(st.tuples(st.integers(0, 60), st.integers(0, 12)), max_size=12)


@given(_RANGES, st.integers(-2, 65), st.integers(0, 20))
def test_ranges_that_overlap(ranges: list[tuple[int, int]], low: int, size: int) -> None:
    found: ByteRanges[int] = ByteRanges()
    for i, (start, length) in enumerate(ranges):
        found.add(start, start + length, i)
    expected = {
        i
        for i, (start, length) in enumerate(ranges)
        if set(range(start, start + length)) & set(range(low, low + size))
    }
    assert set(found.overlapping(low, low + size)) == expected
