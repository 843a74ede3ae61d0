"""Encoding of transposed convolutions that are spread instead of gathered."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.encode_chain import Encoded, place
from gpubp.backends.numba_cpu.target import lanes
from gpubp.backends.numba_cpu.windows import Axis, three
from gpubp.compiler.parts import Compute, Operand
from gpubp.core.spec import dtype_name
from gpubp.core.store import round_up

WASTE = 1.4  # spread where gathering would take so many times the products
LEAST_FILTERS = 8  # of which a tile's additions are few beside its products
CONV = words.CONV


def is_spread(compute: Compute, w: Operand, axes: Sequence[Axis]) -> bool:
    """The results of a conv_input are better made by spreading the cotangents."""
    if compute.attrs["groups"] != 1 or w.shape[0] < LEAST_FILTERS or axes[0].size < 2:
        return False
    exact = math.prod(axis.size * axis.kernel for axis in axes)
    made = math.prod(sum(p.count * len(p.taps) for p in axis.phases) for axis in axes)
    return made > WASTE * exact


def encode_spread(
    compute: Compute,
    dy: Operand,
    w: Operand,
    stored: Operand | None,
    axes: Sequence[Axis],
    chain: Encoded | None,
) -> tuple[list[int], int, list[tuple[int, str]]]:
    """(words, scratch bytes, needs) of a conv_input, and of what follows it."""
    dtype = dtype_name(compute.dtype)
    geometry = _Geometry.of(compute, w, axes)
    code = _described(geometry, axes, w)
    code[words.MM_A : words.MM_A + 2], code[words.MM_B : words.MM_B + 2] = place(dy), place(w)
    code[words.MM_A_ORDER], code[words.MM_N] = -1, w.shape[1]
    code[words.MM_C_SCRATCH] = int(stored is None)
    if stored is not None:
        code[words.MM_C : words.MM_C + 2] = place(stored)
    scratch = _lines(code, geometry, w.shape[0], 2 * lanes(dtype))
    needs = [(words.MM_TILES, f"windows_add_{dtype}")]
    if chain is not None:
        code[words.MM_CHAIN] = len(code)
        needs += [(words.MM_CHAIN_KERNEL, f"chain_{dtype}"), *chain.needs_at(len(code))]
        code += chain.words
        scratch += chain.scratch
    return code, scratch, needs


@dataclass(frozen=True)
class _Geometry:
    """Sizes along the three axes, and lengths in bytes.

    Attributes:
        stride, spread, before, kernel: of the convolution; `spread` is its dilation.
        found: sizes of the result.
        wide: the same with what is cut off around it.
        pixel, line, plane: of what the cotangents are added to.
        run: taps that lie back to back.
    """

    stride: tuple[int, ...]
    spread: tuple[int, ...]
    before: tuple[int, ...]
    kernel: tuple[int, ...]
    found: tuple[int, ...]
    wide: tuple[int, ...]
    pixel: int

    @classmethod
    def of(cls, compute: Compute, w: Operand, axes: Sequence[Axis]) -> _Geometry:
        attrs = compute.attrs
        stride, spread = three(attrs["stride"], 1), three(attrs["dilation"], 1)
        before = three([lo for lo, _ in attrs["padding"]], 0)
        kernel = three(w.shape[2:], 1)
        steps = zip(axes, stride, kernel, spread)
        wide = tuple((a.size - 1) * s + (k - 1) * d + 1 for a, s, k, d in steps)
        found = tuple(axis.found for axis in axes)
        pixel = w.shape[1] * compute.dtype.itemsize
        return cls(stride, spread, before, kernel, found, wide, pixel)

    @property
    def copied(self) -> bool:
        return self.wide != self.found or any(self.before)

    @property
    def line(self) -> int:
        return self.wide[2] * self.pixel

    @property
    def plane(self) -> int:
        return self.wide[1] * self.line

    @property
    def run(self) -> int:
        return self.kernel[2] if self.spread[2] == 1 else 1


def _described(geometry: _Geometry, axes: Sequence[Axis], w: Operand) -> list[int]:
    """The words of sizes and lengths."""
    filters, channels, taps = w.shape[0], w.shape[1], math.prod(geometry.kernel)
    sizes = [axis.size for axis in axes]
    row = filters * w.dtype.itemsize
    named = {
        **{"image": math.prod(sizes) * row, "plane": sizes[1] * sizes[2] * row},
        **{"line": sizes[2] * row, "row": row, "pixel": geometry.pixel},
        **{"wide_plane": geometry.plane, "wide_line": geometry.line},
        **{"wide0": geometry.wide[0], "wide1": geometry.wide[1]},
        **{"copied": int(geometry.copied), "filters": filters, "channels": channels},
        **{"w_filter": channels * taps, "w_channel": taps, "taps": geometry.run, "block": 1},
    }
    each = {"before": geometry.before, "in": sizes, "out": geometry.found, "step": geometry.stride}
    for name, values in each.items():
        named |= {f"{name}{i}": value for i, value in enumerate(values)}
    code = [0] * len(CONV)
    for name, value in named.items():
        code[CONV[name]] = value
    return code


def _lines(code: list[int], geometry: _Geometry, filters: int, panel: int) -> int:
    """Append the records of the lines of taps; returns the bytes of scratch."""
    kernel, spread, run = geometry.kernel, geometry.spread, geometry.run
    lines = list(itertools.product(range(kernel[0]), range(kernel[1]), range(0, kernel[2], run)))
    size = geometry.pixel // code[CONV["channels"]]
    panels = filters * round_up(run * code[CONV["channels"]], panel) * size
    in_scratch = math.prod(geometry.found) * geometry.pixel if code[words.MM_C_SCRATCH] else 0
    wide = geometry.wide[0] * geometry.plane if geometry.copied else 0
    ends = [0]
    for nbytes in (8 * words.TILE_PARAMS, in_scratch, wide, panels * len(lines)):
        ends.append(ends[-1] + round_up(nbytes, words.ALIGN))
    code[words.MM_SCRATCH_C], code[CONV["scratch_wide"]] = ends[1:3]
    code[words.MM_SCRATCH_CHAIN] = ends[-1]
    code[CONV["reach"]] = len(code)
    code.append(0)  # the one segment of k begins where A does
    code[CONV["passes"]], code[CONV["first_pass"]] = len(lines), len(code)
    lengths = geometry.plane, geometry.line, geometry.pixel
    for i, taps in enumerate(lines):
        reach = sum(t * d * n for t, d, n in zip(taps, spread, lengths))
        first = (taps[0] * kernel[1] + taps[1]) * kernel[2] + taps[2]
        code += words.SPREAD.pack(first=first, reach=reach, weights=ends[3] + i * panels)
    return ends[-1]
