"""The rows of convolutions: one list of geometries, from which each of the three ops has its cases.

The list has one to three axes, steps of 1 to 4, spread taps with and without a common divisor of
the step, padding that differs from side to side and is negative after, groups, one channel a group,
few and odd channels, and batches that do not divide into equal chunks.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from rows import Attrs, Row, Shapes, draws, number

from gpubp.core import Shape
from gpubp.ops.spatial import Padding, windows_along


class Geometry(NamedTuple):
    """One convolution; `chunk`: images whose weight gradient is one sum."""

    images: Shape
    weight: Shape
    stride: Shape
    padding: Padding
    dilation: Shape
    groups: int
    chunk: int

    @property
    def shared(self) -> Attrs:
        """The attributes that all three ops have."""
        names = ("stride", "padding", "dilation", "groups")
        return {name: getattr(self, name) for name in names}

    @property
    def result(self) -> Shape:
        """The shape of the convolution's result."""
        sizes, kernel = self.images[1:-1], self.weight[2:]
        found = windows_along("conv", sizes, kernel, self.stride, self.padding, self.dilation)
        return (self.images[0], *found, self.weight[0])

    def arguments(self, op: str) -> tuple[Shapes, Attrs]:
        """Shapes and attributes of one of the three ops."""
        if op == "conv":
            return (self.images, self.weight), self.shared
        if op == "conv_input":
            return (self.result, self.weight), {**self.shared, "sizes": self.images[1:-1]}
        more = {"kernel": self.weight[2:], "chunk": self.chunk}
        return (self.images, self.result), {**self.shared, **more}


def geometry(
    images: Shape,
    weight: Shape,
    stride: Any = 1,
    padding: Any = 0,
    dilation: Any = 1,
    groups: int = 1,
    chunk: int = 1,
) -> Geometry:
    """One number stands for all axes."""
    axes = len(images) - 2
    steps, spread = ((x,) * axes if isinstance(x, int) else x for x in (stride, dilation))
    around = ((padding, padding),) * axes if isinstance(padding, int) else padding
    return Geometry(images, weight, steps, around, spread, groups, chunk)


OPS = ("conv", "conv_input", "conv_weight")
GEOMETRIES = (
    # small enough for central differences
    geometry((1, 4, 1), (1, 1, 2)),
    geometry((2, 3, 2), (2, 1, 2), groups=2),
    geometry((3, 3, 1), (2, 1, 2), stride=2, padding=((1, 0),), chunk=2),
    geometry((1, 5, 1), (1, 1, 2), stride=2, padding=((2, -1),), dilation=3),
    geometry((1, 3, 3, 1), (1, 1, 2, 2)),
    geometry((2, 2, 3, 1), (1, 1, 2, 2), stride=(2, 1), padding=((1, 0), (0, 1))),
    geometry((1, 2, 2, 2, 1), (1, 1, 2, 2, 2), padding=((0, 0), (1, 0), (0, 0))),
    # one axis
    geometry((1, 9, 5), (3, 5, 3), stride=2, padding=((2, 1),), dilation=2),
    geometry((9, 17, 6), (4, 3, 3), stride=3, padding=1, groups=2, chunk=2),
    geometry((5, 33, 16), (17, 16, 5), padding=2, chunk=3),
    geometry((4, 11, 17), (34, 1, 3), padding=1, groups=17, chunk=3),
    geometry((3, 0, 2), (3, 2, 3), padding=2, chunk=2),
    geometry((0, 6, 3), (2, 3, 3)),
    geometry((2, 40, 3), (35, 3, 12), stride=5, padding=((3, -2),)),
    geometry((2, 4, 5), (3, 5, 3), stride=3, padding=((1, 0),)),
    # two axes
    geometry((2, 7, 6, 3), (16, 3, 3, 3), padding=1),
    geometry((9, 5, 5, 16), (17, 16, 3, 3), stride=2, padding=1, chunk=4),
    geometry((1, 9, 8, 5), (6, 5, 2, 3), (3, 2), ((3, -1), (0, 2)), (2, 1)),
    geometry((7, 4, 4, 6), (6, 1, 3, 3), padding=1, groups=6, chunk=2),
    geometry((3, 6, 5, 5), (10, 1, 2, 3), stride=2, padding=((1, 0), (2, -1)), groups=5, chunk=2),
    geometry((2, 6, 6, 16), (32, 8, 3, 3), padding=1, groups=2),
    geometry((3, 8, 8, 3), (6, 3, 4, 4), stride=4, chunk=2),
    geometry((8, 5, 4, 16), (5, 16, 1, 1), chunk=3),
    geometry((3, 2, 5, 10), (12, 5, 1, 1), groups=2, chunk=2),
    geometry((2, 7, 6, 6), (9, 6, 1, 1), stride=2),
    geometry((6, 7, 7, 1), (5, 1, 7, 7), padding=3, chunk=5),
    geometry((2, 6, 5, 3), (3, 3, 2, 2), stride=3, dilation=3),
    geometry((2, 9, 9, 2), (4, 2, 3, 2), stride=(2, 4), padding=((1, 2), (0, 0)), dilation=(4, 2)),
    # one channel, few filters and lines that fill vectors, forwards and (the last) backwards
    geometry((5, 6, 28, 1), (6, 1, 5, 5), padding=2, chunk=2),
    geometry((3, 7, 33, 1), (9, 1, 3, 2), (2, 1), ((1, 0), (0, 3)), (2, 3), chunk=2),
    geometry((4, 40, 1), (13, 1, 4), padding=1, chunk=3),
    geometry((2, 2, 3, 17, 1), (3, 1, 1, 2, 3), padding=((0, 0), (1, 0), (1, 1)), chunk=2),
    geometry((2, 5, 36, 5), (1, 5, 3, 3), stride=2),
    # windows that begin inside of the image along one axis, and before it along another
    geometry((2, 7, 7, 15), (80, 3, 3, 1), (1, 2), 1, (3, 1), groups=5),
    # windows of zeros alone, far from the image
    geometry((2, 1, 3, 2), (3, 2, 1, 2), (1, 40), ((0, 0), (30, 30))),
    # three axes
    geometry((2, 4, 5, 3, 3), (5, 3, 3, 2, 2), (1, 2, 1), ((1, 1), (0, 1), (1, -1)), (1, 2, 1)),
    geometry((5, 3, 4, 4, 6), (6, 1, 2, 3, 3), stride=(2, 1, 2), padding=1, groups=6, chunk=2),
    geometry((3, 3, 3, 4, 16), (16, 8, 3, 3, 3), padding=1, groups=2, chunk=2),
    geometry((1, 5, 6, 7, 1), (3, 1, 2, 2, 2), stride=(2, 3, 1), dilation=(1, 1, 2)),
)


def conv_row(op: str, geometries: Sequence[Geometry] = GEOMETRIES) -> Row:
    """A row with the attributes that stand beside each pair of shapes."""
    made = [g.arguments(op) for g in geometries]

    def attrs(shapes: Shapes) -> list[Attrs]:
        return [a for s, a in made if s == shapes]

    return Row(op, draws(number), tuple(dict.fromkeys(s for s, _ in made)), attrs, wrt=(0, 1))


def conv_rows() -> list[Row]:
    """Of `conv`, `conv_input` and `conv_weight`."""
    return [conv_row(op) for op in OPS]
