"""Where windows of convolutions are: whatever the geometry, they stay within what is copied."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from registered import MAKERS
from tolerances import assert_same

import gpubp as gp
from gpubp import ops
from gpubp.backends.numba_cpu.windows import Axis, backward_axis, forward_axis


def _drawn(rng: np.random.Generator, backward: bool) -> Axis | None:
    """An axis of a convolution or of its transpose; None where there are no results."""
    size, kernel, stride, dilation = (int(rng.integers(1, n)) for n in (9, 5, 6, 4))
    low, high = (int(n) for n in rng.integers(0, 12, 2))
    found = (size + low + high - (kernel - 1) * dilation - 1) // stride + 1
    if found < 1:
        return None
    if backward:
        return backward_axis(found, size, kernel, stride, low, dilation)
    return forward_axis(size, found, kernel, stride, low, dilation)


@pytest.mark.parametrize("backward", [False, True])
def test_every_tap_is_read_within_the_copy_with_zeros_around(backward: bool) -> None:
    rng = np.random.default_rng(0)
    axes = [axis for _ in range(1000) if (axis := _drawn(rng, backward))]
    for axis in axes:
        reads = [
            at + i * axis.step for p in axis.phases for _, at in p.taps for i in range(p.count)
        ]
        assert axis.before >= 0, axis
        assert axis.wide > axis.before, axis  # an element of the image is copied, at least
        assert all(0 <= at + axis.before < axis.wide for at in reads), axis
        assert axis.copied or all(0 <= at < axis.size for at in reads), axis
    # There are axes of both kinds that were once counted wrongly.
    taps = [[at for p in axis.phases for _, at in p.taps] for axis in axes]
    assert any(min(at, default=0) > 0 or max(at, default=0) < 0 for at in taps)


@pytest.mark.parametrize("name", MAKERS)
def test_windows_that_begin_inside_of_a_copied_line_leave_the_rest_of_the_memory_alone(
    name: str,
) -> None:
    # The copy of the first line once began before its place, over what the tiles are told.
    rng = np.random.default_rng(0)
    shapes = ((2, 80, 13, 13), (80, 3, 5, 1), (15,))
    # Small whole numbers, whose sums are exact in any order.
    arrays = [rng.integers(-3, 4, shape).astype(np.float32) for shape in shapes]

    def upwards(x: Any, w: Any, b: Any) -> Any:
        y = ops.conv_transpose2d(x, w, b, (1, 2), 1, groups=5, dilation=(3, 1))
        return ops.relu(y)

    found = gp.compile(upwards, backend=MAKERS[name]())(*arrays)
    assert_same(found, upwards(*arrays), name)
