"""What convolutions forwards and backwards share: images copied with zeros around them."""

from __future__ import annotations

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.language import native, types
from gpubp.backends.numba_cpu.kernels.move import copy_bytes

load_i64 = low.load_i64
_strip_load, _strip_store = low.make_strip_access(types.int32)
_PLANE, _LINE, _PIXEL = words.CONV.at.plane, words.CONV.at.line, words.CONV.at.pixel
_WIDE_PLANE, _WIDE_LINE = words.CONV.at.wide_plane, words.CONV.at.wide_line
_BEFORE, _IN = words.CONV.at.before0, words.CONV.at.in0


@native
def clear(target, n):
    """n bytes of zeros; n is a multiple of 4."""
    for i in range(n // 4):
        _strip_store(target, i, 0)
    return 0


@native
def widen(code, source, first, planes, target):
    """Copy planes of an image with zeros around them. `first`: the number of the first one, zeros
    before the image included.
    """
    plane, line, pixel = load_i64(code, _PLANE), load_i64(code, _LINE), load_i64(code, _PIXEL)
    wide_plane, wide_line = load_i64(code, _WIDE_PLANE), load_i64(code, _WIDE_LINE)
    lines = wide_plane // wide_line
    before = load_i64(code, _BEFORE + 2) * pixel
    used = min(load_i64(code, _IN + 2) * pixel, wide_line - before)
    for p in range(planes):
        at = first + p - load_i64(code, _BEFORE)
        out = target + p * wide_plane
        if at < 0 or at >= load_i64(code, _IN):
            clear(out, wide_plane)
        else:
            for q in range(lines):
                row, to = q - load_i64(code, _BEFORE + 1), out + q * wide_line
                if row < 0 or row >= load_i64(code, _IN + 1):
                    clear(to, wide_line)
                else:
                    clear(to, before)
                    copy_bytes(source + at * plane + row * line, to + before, used)
                    clear(to + before + used, wide_line - before - used)
    return 0


@native
def planes_of(code, image, position, count, scratch):
    """Where the windows of some outer positions begin: in the image, or in a copy with zeros."""
    step = load_i64(code, words.CONV.at.step0)
    if load_i64(code, words.CONV.at.copied) == 0:
        return image + position * step * load_i64(code, _PLANE)
    planes = (count - 1) * step + load_i64(code, words.CONV.at.planes)
    wide = scratch + load_i64(code, words.CONV.at.scratch_wide)
    widen(code, image, position * step, planes, wide)
    return wide
