"""What a convolution is, for the encoder: sizes without those that say nothing."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

from gpubp.backends.cuda.codegen.writer import Writer
from gpubp.compiler.parts import Part
from gpubp.core import Shape

# Groups of at most so many channels and filters are computed element by element: of the smallest
# tile, of 32 columns, they would use an eighth. It has not been measured on hardware.
FEW = 4
_FIT = 2**31 - 2**16  # coordinates below are counted with 32 bits; a tile reaches beyond an image


@dataclass(frozen=True)
class Geometry:
    """A convolution: of `images`, in `groups` of `channels` and `filters` each.

    Attributes:
        size, found: of an image, of its result.
        kernel, stride, before, dilation: along each axis.
        chunk: images whose weight gradient is one sum.
    """

    images: int
    channels: int
    filters: int
    groups: int
    size: Shape
    found: Shape
    kernel: Shape
    stride: Shape
    before: Shape
    dilation: Shape
    chunk: int = 1

    @property
    def common(self) -> Shape:
        """Greatest common divisors of stride and dilation."""
        return tuple(map(math.gcd, self.stride, self.dilation))

    @property
    def coordinates(self) -> str:
        """The C type of coordinates."""
        reach = (n * s for n, s in zip(self.found, self.stride))
        spread = ((k + 128) * d for k, d in zip(self.kernel, self.dilation))
        sizes = (n + p for n, p in zip(self.size, self.before))
        most = max(self.images, *sizes, *map(sum, zip(reach, spread)))
        return "int" if max(most, self.channels, self.filters) < _FIT else "gp::i64"

    @property
    def few(self) -> bool:
        """Its groups are too small for tiles."""
        return self.groups > 1 and max(self.channels, self.filters) <= FEW

    @property
    def pointwise(self) -> bool:
        """Its windows are single elements, each in its turn: matrices as they lie in memory."""
        same = self.size == self.found and not any(self.before)
        return same and all(n == 1 for n in (*self.kernel, *self.stride))

    def without_idle_axes(self) -> Geometry:
        """First axes along which nothing is joined count as more images; the last one stays."""
        if len(self.size) == 1 or self.size[0] != self.found[0] or self.before[0]:
            return self
        if self.kernel[0] != 1 or self.stride[0] != 1:
            return self
        rest = {
            name: getattr(self, name)[1:]
            for name in ("size", "found", "kernel", "stride", "before", "dilation")
        }
        n = self.size[0]
        return replace(
            self, images=self.images * n, chunk=self.chunk * n, **rest
        ).without_idle_axes()

    def declare(self, writer: Writer) -> str:
        """The line that makes `shape`, a Geometry of windows.cuh."""
        fields = []
        for name in ("images", "channels", "filters", "groups"):
            fields.append(writer.params.add(name, getattr(self, name)))
        for name in ("size", "found", "kernel", "stride", "before", "dilation", "common"):
            numbers = [
                writer.params.add(f"{name}{i}", n) for i, n in enumerate(getattr(self, name))
            ]
            fields.append(f"{{{', '.join(numbers)}}}")
        return f"const gp::Geometry<{len(self.size)}> shape = {{{', '.join(fields)}}};"


def geometry_of(part: Part) -> Geometry:
    """What the part's convolution is, with as few axes as say it.

    Where a window has one place only, or one tap, the stride or dilation says nothing: it is 1.
    """
    compute = part.body[part.anchor or 0]
    first, second = (part.inputs[i].shape for i in compute.args)
    name, attrs, out = compute.spec.name, compute.attrs, compute.shape
    images = out if name == "conv_input" else first
    weight = (out[-1], out[-2], *out[1:-2]) if name == "conv_weight" else second
    found = {"conv": out, "conv_input": first, "conv_weight": second}[name][1:-1]
    kernel, groups = weight[2:], attrs["groups"]
    return Geometry(
        *(images[0], weight[1], weight[0] // groups, groups),
        *(images[1:-1], found, kernel),
        tuple(s if n > 1 else 1 for s, n in zip(attrs["stride"], found)),
        tuple(before for before, _ in attrs["padding"]),
        tuple(d if k > 1 else 1 for d, k in zip(attrs["dilation"], kernel)),
        attrs.get("chunk", 1),
    ).without_idle_axes()
