"""Where the windows of a convolution are, axis by axis: the geometry that its encoders share.

Three axes: outer, middle, inner; an image of two has a middle one of size 1, one of one axis has
only an inner one. Results along an axis that meet the same taps of the kernel make a phase.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from gpubp.core import Shape


@dataclass(frozen=True)
class Phase:
    """Results start, start + grow, ...: `count` of them.

    Attributes:
        taps: (number, where the first result reads it, in elements of the image), ascending there.
    """

    start: int
    count: int
    taps: tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Axis:
    """One axis of images and results.

    Attributes:
        size, found: elements of the image, results.
        step: elements from window to window of a phase.
        grow: results from one of a phase to the next.
        kernel: taps.
        phases: all results.
    """

    size: int
    found: int
    step: int
    grow: int
    kernel: int
    phases: tuple[Phase, ...]

    @property
    def before(self) -> int:
        """Zeros that are read before the image; none where windows begin inside it."""
        return max([0, *(-at for p in self.phases for _, at in p.taps)])

    @property
    def wide(self) -> int:
        """Zeros before the image, and its elements up to the last that is read, but one at least:
        windows may read nothing but zeros.
        """
        ends = [(p.count - 1) * self.step + at for p in self.phases for _, at in p.taps]
        return self.before + max([0, *ends]) + 1

    @property
    def copied(self) -> bool:
        """Zeros are read, before or after the image."""
        return self.before > 0 or self.wide > self.size


def forward_axis(
    size: int, found: int, kernel: int, stride: int, before: int, dilation: int
) -> Axis:
    """Of a convolution."""
    taps = tuple((t, t * dilation - before) for t in range(kernel))
    return Axis(size, found, stride, 1, kernel, (Phase(0, found, taps),))


def backward_axis(
    size: int, found: int, kernel: int, stride: int, before: int, dilation: int
) -> Axis:
    """Of its transpose, whose images are the results of the convolution."""
    phases = []
    for start in range(min(stride, found)):
        taps = [
            (t, (start + before - t * dilation) // stride)
            for t in reversed(range(kernel))
            if (start + before - t * dilation) % stride == 0
        ]
        phases.append(Phase(start, -(-(found - start) // stride), tuple(taps)))
    return Axis(size, found, 1, stride, kernel, tuple(phases))


def three(values: Sequence[Any], default: Any) -> tuple[Any, Any, Any]:
    """(outer, middle, inner) from one to three values."""
    if len(values) == 3:
        return tuple(values)
    if len(values) == 2:
        return values[0], default, values[1]
    return default, default, values[0]


def axes_of(
    images: Shape, results: Shape, kernel: Shape, attrs: dict[str, Any], backward: bool
) -> list[Axis]:
    """The three axes.

    Args:
        images, results: (N, *sizes, C).
        kernel: its sizes.
        attrs: of the op.
        backward: whether it is conv_input.
    """
    make = backward_axis if backward else forward_axis
    before = [lo for lo, _ in attrs["padding"]]
    given = (images[1:-1], results[1:-1], kernel, attrs["stride"], before, attrs["dilation"])
    columns = zip(*(three(v, d) for v, d in zip(given, (1, 1, 1, 1, 0, 1))))
    return [make(*column) for column in columns]


def passes_of(axes: Sequence[Axis]) -> Iterator[tuple[Phase, Phase, Phase]]:
    """Phases of all axes, combined."""
    yield from itertools.product(*(axis.phases for axis in axes))


@dataclass(frozen=True)
class Lengths:
    """Bytes from one element to the next along each axis of what windows are read from."""

    plane: int
    line: int
    pixel: int

    def of(self, at: Sequence[int]) -> int:
        """Bytes to an element."""
        return at[0] * self.plane + at[1] * self.line + at[2] * self.pixel


def lengths_of(axes: Sequence[Axis], pixel: int, copied: bool) -> Lengths:
    """Of images in memory, or of their copies with zeros around."""
    sizes = [axis.wide if copied else axis.size for axis in axes]
    line = sizes[2] * pixel
    return Lengths(sizes[1] * line, line, pixel)


def taps_of(
    phases: Sequence[Phase], axes: Sequence[Axis], lengths: Lengths, copied: bool
) -> list[tuple[int, int]]:
    """(number, distance in bytes from a window's start) of all taps of a pass, ascending."""
    found = []
    before = [axis.before if copied else 0 for axis in axes]
    for taps in itertools.product(*(p.taps for p in phases)):
        number = 0
        for (t, _), axis in zip(taps, axes):
            number = number * axis.kernel + t
        at = [at + b for (_, at), b in zip(taps, before)]
        found.append((number, lengths.of(at)))
    return found


def segments_of(starts: Sequence[int], nbytes: int, joined: bool) -> tuple[list[int], int]:
    """Runs of taps that lie back to back: where each begins, and taps a run (the same for all).

    Args:
        starts: of taps, in bytes.
        nbytes: of what is read at a tap.
        joined: whether taps may lie back to back: that is, one group has all channels.
    """
    runs: list[list[int]] = []
    for at in starts:
        if joined and runs and runs[-1][-1] + nbytes == at:
            runs[-1].append(at)
        else:
            runs.append([at])
    sizes = {len(run) for run in runs}
    if len(sizes) == 1:
        return [run[0] for run in runs], sizes.pop()
    return list(starts), 1
