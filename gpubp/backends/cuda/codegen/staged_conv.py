"""Convolutions whose images and filters are rounded once, in memory (`kernels/conv_staged.cuh`).

Comes in: a part built around a convolution or one of its transposes. Goes out: whether that is
worth it, the copies, and the lines that declare the factors. Copies are made and shared as those of
products are (`staged.py`); filters are turned, so that their channels are neighbours.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from gpubp.backends.cuda.codegen.conv_geometry import Geometry
from gpubp.backends.cuda.codegen.encode_copy import copy
from gpubp.backends.cuda.codegen.staged import (
    CELL_BYTES,
    PRODUCT_SAVES,
    WINDOWS_SAVE,
    form_of,
    kept_as,
    worth,
)
from gpubp.backends.cuda.codegen.tiles import plan
from gpubp.backends.cuda.codegen.writer import Writer
from gpubp.backends.cuda.copies import of_filters, size_of
from gpubp.backends.cuda.launch import Context, Launch
from gpubp.compiler.parts import Operand, Part


@dataclass(frozen=True)
class Rounded:
    """The copies that a convolution reads.

    Attributes:
        launches: that make those which are not current.
        pointers: to its operands' copies.
        type: of their elements.
    """

    launches: list[Launch]
    pointers: tuple[str, str]
    type: str

    def conv(self, shape: Geometry) -> list[str]:
        """The factors of the convolution of the group `batch`."""
        x, w = self.pointers
        images = f"{x} + batch * p.channels"
        a = self._rows("a", images, "p.channels * p.groups", True)
        if not shape.pointwise:
            windows = f"gp::windows<{shape.coordinates}>(shape)"
            a = self._windows("a", "Patches", shape, images, windows)
        return [a, self._rows("b", f"{w} + batch * p.n * p.k", "p.k", True)]

    def conv_input(self, shape: Geometry, turned: str) -> list[str]:
        """Those of its transpose by images; `turned`: declares which windows they have."""
        dy, w = self.pointers
        images, taps = f"{dy} + batch * p.filters", "gp::after(shape.kernel, -1)"
        filters = f"{w} + batch * p.filters * p.channels"
        if shape.pointwise:
            return [
                self._rows("a", images, "p.filters * p.groups", True),
                self._rows("b", filters, "p.channels", False),
            ]
        return [
            turned,
            self._windows("a", "Patches", shape, images, "turned.windows"),
            f"const auto b = gp::stored_filters(shape, turned, {filters} * {taps});",
        ]

    def weights(self, shape: Geometry, pixels: str, rows: str) -> list[str]:
        """Those of its transpose by weights; where its images start, and the results'."""
        b = self._rows("b", rows, "p.filters * p.groups", False)
        if shape.pointwise:
            return [self._rows("a", pixels, "p.channels * p.groups", False), b]
        images = (
            f"{self.pointers[0]} + group * p.channels + "
            "image * gp::after(shape.size, -1) * p.channels * p.groups"
        )
        windows = f"gp::windows<{shape.coordinates}>(shape)"
        return [self._windows("a", "Columns", shape, images, windows), b]

    def _rows(self, name: str, start: str, pitch: str, along: bool) -> str:
        """Declare a factor that lies in memory as a matrix, in rows of neighbours."""
        kind = f"gp::Stored<{self.type}, {'true' if along else 'false'}>"
        return f"const {kind} {name} = {{{start}, {pitch}}};"

    def _windows(self, name: str, kind: str, shape: Geometry, start: str, windows: str) -> str:
        """Declare a factor that is read out of images."""
        axes, i = len(shape.size), shape.coordinates
        found = f"gp::Stored{kind}<{self.type}, {axes}, {i}>"
        return f"const {found} {name} = {{{start}, {windows}}};"


def rounded(
    part: Part, context: Context, shape: Geometry, writer: Writer, sizes: tuple[int, int, int, int]
) -> Rounded | None:
    """The copies, if they are worth it; `sizes`: how many products, and their m, n and k.

    Either way the same numbers are multiplied and added in the same order: the same bits.
    """
    compute = part.body[part.anchor or 0]
    form = form_of(context, compute.dtype.name)
    operands = tuple(part.inputs[i] for i in compute.args)
    if not form or min(sizes) < 1 or not _whole(compute.spec.name, shape, operands, form):
        return None
    batches, m, n, k = sizes
    found = plan(*sizes, compute.dtype.itemsize, context.processors, context.precision)
    read = batches * k * (m * found.columns + n * found.rows)
    if not worth(context, form, read, PRODUCT_SAVES if shape.pointwise else WINDOWS_SAVE, operands):
        return None
    turned = of_filters(form, shape.channels, math.prod(shape.kernel))
    forms = (form, form if compute.spec.name == "conv_weight" else turned)
    pairs = list(zip(operands, forms))
    launches = [made for o, one in pairs for made in copy(part, context, o, one)]
    first, second = (_pointer(writer, context, f"copy{i}", *pair) for i, pair in enumerate(pairs))
    return Rounded(launches, (first, second), kept_as(context))


def _whole(name: str, shape: Geometry, operands: Sequence[Operand], form: str) -> bool:
    """What is copied together are whole cells: channels, and filters where they are neighbours."""
    cell = CELL_BYTES // size_of(operands[0], form)
    counts = [shape.channels, *(o.offset for o in operands)]
    if name != "conv":
        counts.append(shape.filters)
    return not any(n % cell for n in counts)


def _pointer(writer: Writer, context: Context, name: str, operand: Operand, form: str) -> str:
    address = context.copies.address(operand, form)
    place = writer.params.add(name, address, "gp::u64")
    return f"gp::fixed<const {kept_as(context)}>({place})"
