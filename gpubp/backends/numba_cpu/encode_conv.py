"""Encoding of convolutions: passes, blocks of planes, and what follows them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

from gpubp.backends.epilogues import find_epilogue
from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.encode_chain import ChainEncoder, Encoded, place
from gpubp.backends.numba_cpu.encode_matmul import describe_epilogue
from gpubp.backends.numba_cpu.encode_spread import encode_spread, is_spread
from gpubp.backends.numba_cpu.indexed_operands import IndexedOperand
from gpubp.backends.numba_cpu.target import lanes
from gpubp.backends.numba_cpu.windows import (
    Axis,
    Lengths,
    Phase,
    axes_of,
    lengths_of,
    passes_of,
    segments_of,
    taps_of,
)
from gpubp.compiler.parts import Operand, Part
from gpubp.core.store import round_up

# What should stay in a cache; see docs/design/cpu.md.
WIDE_BYTES = 96 << 10  # planes of an image with zeros around them
CHAIN_BYTES = 32 << 10  # results that a chain follows
K_BYTES = 32 << 10  # cotangents of a block, as wide as a tile, beside weight gradients
CONV = words.CONV
# What lines of results do themselves, and no chain after them.
_FOLLOWING = {"depthwise": (), "pixels": ("bias", "bias_relu")}
Encoding = tuple[str, list[int], int, list[tuple[int, str]]]


def encode_conv(part: Part, indexed: Mapping[int, IndexedOperand]) -> Encoding:
    """(kernel, words, scratch bytes, needs) of a part built around conv or conv_input."""
    assert part.anchor is not None
    compute = part.body[part.anchor]
    x, w = (part.inputs[i] for i in compute.args)
    backward = compute.spec.name == "conv_input"
    axes = axes_of(x.shape, compute.shape, w.shape[2:], compute.attrs, backward)
    groups, dtype = compute.attrs["groups"], compute.dtype.name
    made = len(part.inputs) + part.anchor
    code, lengths = _images(x, compute.shape, axes, indexed)
    _weights(code, w, groups, backward)
    own = _lines_of(code, x.shape[-1], axes, dtype)
    known = words.epilogues(dtype) if own is None else _FOLLOWING[own]
    epilogue = find_epilogue(part, known)
    chain = _chain(part, made) if epilogue is None and len(part.body) > 1 else None
    stored = next((o for v, o in part.outputs if v == made), None)
    stored = epilogue.target if epilogue is not None else stored
    code[words.MM_B : words.MM_B + 2] = place(w)
    code[words.MM_C_SCRATCH] = int(stored is None)
    if stored is not None:
        code[words.MM_C : words.MM_C + 2] = place(stored)
    followed = chain is not None or stored is None
    code[CONV["block"]] = _block(code, axes, CHAIN_BYTES if followed else 0)
    describe_epilogue(code, epilogue)
    scratch = _passes(code, axes, lengths, own is not None)
    name = words.EPILOGUES[code[words.MM_EPILOGUE]]
    needs = [] if own is not None else [(words.MM_TILES, f"windows_{name}_{dtype}")]
    if chain is not None:
        code[words.MM_CHAIN] = len(code)
        needs += [(words.MM_CHAIN_KERNEL, f"chain_{dtype}"), *chain.needs_at(len(code))]
        code += chain.words
        scratch += chain.scratch
    return own or "conv", code, scratch, needs


def _lines_of(code: list[int], images: int, axes: Sequence[Axis], dtype: str) -> str | None:
    """The kernel that does a line of results at a time; None: register tiles do.

    Args:
        code: where groups, channels and filters are known.
        images: channels of an image.
        axes: three.
        dtype: "float32" or "float64".
    """
    groups, channels, filters = (code[CONV[n]] for n in ("groups", "channels", "filters"))
    if channels == filters == 1 and images == groups > 1:
        return "depthwise"  # each channel has one filter of its own
    shortest = min((p.count for p in axes[2].phases), default=0)
    neighbours = groups == channels == axes[2].step == 1
    return "pixels" if neighbours and pays(shortest, filters, lanes(dtype)) else None


def pays(line: int, filters: int, width: int) -> bool:
    """Whether more lanes of vectors are used by the pixels of a line than by filters."""
    if line < width:
        return False
    return line * round_up(filters, width) >= filters * round_up(line, width)


def encode_conv_input(part: Part, indexed: Mapping[int, IndexedOperand]) -> Encoding:
    """The same of a conv_input, which may be spread."""
    assert part.anchor is not None
    compute = part.body[part.anchor]
    dy, w = (part.inputs[i] for i in compute.args)
    axes = axes_of(dy.shape, compute.shape, w.shape[2:], compute.attrs, backward=True)
    if not is_spread(compute, w, axes):
        return encode_conv(part, indexed)
    made = len(part.inputs) + part.anchor
    stored = next((o for v, o in part.outputs if v == made), None)
    chain = _chain(part, made) if len(part.body) > 1 else None
    return "conv_spread", *encode_spread(compute, dy, w, stored, axes, chain)


def encode_conv_weight(part: Part, indexed: Mapping[int, IndexedOperand]) -> Encoding:
    """(kernel, words, scratch bytes, needs) of a part that is conv_weight."""
    compute = part.body[0]
    x, dy = (part.inputs[i] for i in compute.args)
    kernel, dtype, out = compute.attrs["kernel"], compute.dtype.name, part.outputs[0][1]
    axes = axes_of(x.shape, dy.shape, kernel, compute.attrs, backward=False)
    code, lengths = _images(x, dy.shape, axes, indexed)
    groups = compute.attrs["groups"]
    code[CONV["groups"]], code[CONV["channels"]] = groups, x.shape[-1] // groups
    code[CONV["filters"]] = dy.shape[-1] // groups
    code[CONV["chunk"]], code[CONV["images"]] = compute.attrs["chunk"], x.shape[0]
    code[words.MM_B : words.MM_B + 2] = place(dy)
    code[words.MM_C : words.MM_C + 2] = place(out)
    own = _lines_of(code, x.shape[-1], axes, dtype)
    wide, line = lanes(dtype) * dy.dtype.itemsize, axes[2].found
    positions = axes[1].found * line * 2 * wide
    if own == "pixels":
        line = round_up(line, lanes(dtype)) * dy.dtype.itemsize
        positions = axes[1].found * line * code[CONV["filters"]]
    code[CONV["block"]] = min(_block(code, axes, 0), max(1, K_BYTES // positions))
    phases = next(passes_of(axes))
    taps = taps_of(phases, axes, lengths, bool(code[CONV["copied"]]))
    code[CONV["taps"]], code[CONV["reach"]] = len(taps), len(code)
    code += [at for _, at in taps]
    lines = code[CONV["block"]] * axes[1].found
    rows = 8 * (len(taps) * code[CONV["channels"]] + lines)
    if own == "pixels":
        sums = len(taps) * code[CONV["filters"]] * wide
        scratch = _scratch(code, axes, [rows, sums, code[CONV["block"]] * positions])
        at = code[CONV["scratch_rows"]] + round_up(rows, words.ALIGN)
        code[CONV["scratch_sums"]] = at
        code[CONV["scratch_turned"]] = at + round_up(sums, words.ALIGN)
    else:
        scratch = _scratch(code, axes, [rows])
    if own is not None:
        return f"{own}_weight", code, scratch, []
    return "conv_weight", code, scratch, [(words.MM_TILES, f"windows_add_{dtype}")]


def _images(
    x: Operand, results: Sequence[int], axes: Sequence[Axis], indexed: Mapping[int, IndexedOperand]
) -> tuple[list[int], Lengths]:
    """The code with all that is known of images and results, and distances in what is read."""
    size = x.dtype.itemsize
    code = [0] * len(CONV)
    memory = lengths_of(axes, x.shape[-1] * size, copied=False)
    copied = any(axis.copied for axis in axes)
    read = lengths_of(axes, x.shape[-1] * size, copied)
    code[words.MM_A : words.MM_A + 2] = place(x)
    source = indexed.get(x.value)
    code[words.MM_A_ORDER] = -1 if source is None else source.order
    if source is not None:
        code[words.MM_A : words.MM_A + 2] = source.place(x)
    code[words.MM_N], code[words.MM_C + 2] = results[-1], results[-1] * size
    code[CONV["image"]] = memory.plane * axes[0].size
    code[CONV["plane"]], code[CONV["line"]], code[CONV["pixel"]] = (
        memory.plane,
        memory.line,
        memory.pixel,
    )
    code[CONV["wide_plane"]], code[CONV["wide_line"]] = read.plane, read.line
    code[CONV["copied"]] = int(copied)
    reach = [at for p in axes[0].phases for _, at in p.taps]
    code[CONV["planes"]] = max(reach, default=0) + axes[0].before + 1
    for i, axis in enumerate(axes):
        code[CONV["before0"] + i], code[CONV["in0"] + i] = axis.before, axis.size
        code[CONV["out0"] + i], code[CONV["step0"] + i] = axis.found, axis.step
        code[CONV["grow0"] + i] = axis.grow
    code[CONV["positions"]] = max((p.count for p in axes[0].phases), default=0)
    return code, read


def _weights(code: list[int], w: Operand, groups: int, backward: bool) -> None:
    """Which weight belongs to a filter and channel of the product."""
    filters, channels, taps = w.shape[0] // groups, w.shape[1], math.prod(w.shape[2:])
    steps = channels * taps, taps
    code[CONV["w_group"]] = filters * channels * taps
    if backward:
        filters, channels, steps = channels, filters, steps[::-1]
    code[CONV["groups"]], code[CONV["filters"]], code[CONV["channels"]] = groups, filters, channels
    code[CONV["w_filter"]], code[CONV["w_channel"]] = steps


def _block(code: list[int], axes: Sequence[Axis], room: int) -> int:
    """Outer positions at a time. `room`: for their results, in bytes; 0: as many as there are."""
    block = max(code[CONV["positions"]], 1)
    if code[CONV["copied"]]:
        planes = WIDE_BYTES // max(code[CONV["wide_plane"]], 1) - code[CONV["planes"]]
        block = min(block, max(planes // axes[0].step + 1, 1))
    if room:
        plane = axes[0].grow * axes[1].found * axes[2].found * code[words.MM_C + 2]
        block = min(block, max(room // max(plane, 1), 1))
    return block


def _passes(code: list[int], axes: Sequence[Axis], lengths: Lengths, own: bool) -> int:
    """Append the records of all passes and their tables; returns the bytes of scratch."""
    found = list(passes_of(axes))
    code[CONV["passes"]], code[CONV["first_pass"]] = len(found), len(code)
    first = len(code)
    code += [0] * (len(found) * len(words.PASS))
    sizes: list[int] = []
    for i, phases in enumerate(found):
        record, nbytes = _pass(code, phases, axes, lengths, own)
        at = first + i * len(words.PASS)
        code[at : at + len(words.PASS)] = record
        sizes += nbytes
    scratch = _scratch(code, axes, sizes)
    at = code[CONV["scratch_rows"]]
    for i, table in enumerate(sizes):
        name = "weights" if i % 2 == 0 else "rows"
        code[first + i // 2 * len(words.PASS) + words.PASS[name]] = at
        at += round_up(table, words.ALIGN)
    return scratch


def _pass(
    code: list[int], phases: Sequence[Phase], axes: Sequence[Axis], lengths: Lengths, own: bool
) -> tuple[list[int], tuple[int, int]]:
    """The record of a pass, and bytes of its weights and rows. `own`: channels have filters."""
    groups, channels = code[CONV["groups"]], code[CONV["channels"]]
    size = lengths.pixel // max(groups * channels, 1)
    taps = taps_of(phases, axes, lengths, bool(code[CONV["copied"]]))
    starts, run = segments_of([at for _, at in taps], lengths.pixel, joined=groups == 1 and not own)
    by_lines = own or any(axis.grow > 1 for axis in axes)
    order = len(code)
    code += [number for number, _ in taps]
    beginning = len(code)
    code += starts
    record = words.PASS.pack(
        **{f"start{i}": p.start for i, p in enumerate(phases)},
        **{f"count{i}": p.count for i, p in enumerate(phases)},
        taps=len(taps),
        order=order,
        segments=len(starts),
        length=run * channels,
        starts=beginning,
        by_lines=int(by_lines),
    )
    panel = 2 * lanes("float32" if size == 4 else "float64")
    weights = groups * len(taps) * channels * round_up(code[CONV["filters"]], panel) * size
    lines = 1 if by_lines else min(code[CONV["block"]], phases[0].count) * phases[1].count
    return record, (weights, 8 * lines * phases[2].count)


def _scratch(code: list[int], axes: Sequence[Axis], tables: Sequence[int]) -> int:
    """Lay out the scratch; returns its size before the chain."""
    block = code[CONV["block"]]
    plane = axes[0].grow * axes[1].found * axes[2].found * code[words.MM_C + 2]
    planes = (block - 1) * axes[0].step + code[CONV["planes"]]
    sizes = (
        8 * words.TILE_PARAMS,
        block * plane if code[words.MM_C_SCRATCH] else 0,
        planes * code[CONV["wide_plane"]] if code[CONV["copied"]] else 0,
        sum(round_up(n, words.ALIGN) for n in tables),
    )
    ends = [0]
    for nbytes in sizes:
        ends.append(ends[-1] + round_up(nbytes, words.ALIGN))
    code[words.MM_SCRATCH_C], code[CONV["scratch_wide"]] = ends[1:3]
    code[CONV["scratch_rows"]], code[words.MM_SCRATCH_CHAIN] = ends[3:]
    return ends[-1]


def _chain(part: Part, made: int) -> Encoded:
    positions = [i for i in range(len(part.body)) if i != part.anchor]
    compute = part.body[made - len(part.inputs)]
    dtype = compute.dtype.name
    return ChainEncoder(part, positions, compute.shape, dtype, made, whole_rows=True).encode(1)
