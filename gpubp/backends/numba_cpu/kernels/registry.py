"""All kernels by name; `<name>_<dtype>` for those of one arithmetic type."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

from gpubp.backends.numba_cpu.kernels import (
    conv_lines,
    loop,
    meeting,
    move,
    rounds,
    scalar,
    team,
)
from gpubp.backends.numba_cpu.kernels.attention import make_attention
from gpubp.backends.numba_cpu.kernels.attention_grad import make_attention_grad
from gpubp.backends.numba_cpu.kernels.chain import make_chain, make_ops
from gpubp.backends.numba_cpu.kernels.conv import make_conv
from gpubp.backends.numba_cpu.kernels.conv_spread import make_conv_spread
from gpubp.backends.numba_cpu.kernels.conv_weight import make_conv_weight
from gpubp.backends.numba_cpu.kernels.language import types
from gpubp.backends.numba_cpu.kernels.matmul import make_matmul
from gpubp.backends.numba_cpu.kernels.microkernel import tiles_module
from gpubp.backends.numba_cpu.kernels.pool import make_pools, make_unpool
from gpubp.backends.numba_cpu.kernels.reduce import make_reduce
from gpubp.backends.numba_cpu.kernels.rowwise import make_rowwise
from gpubp.backends.numba_cpu.kernels.scatter import make_scatter_add
from gpubp.backends.numba_cpu.kernels.translate import kernel_module
from gpubp.backends.numba_cpu.kernels.window_tiles import window_tiles_module

_TYPES = {"float32": types.float32, "float64": types.float64, "int64": types.int64}
_COMMON = {
    "loop": loop.loop,
    "lead": team.lead,
    "serve": team.serve,
    "ranks_arrive": meeting.ranks_arrive,
    "ranks_wait": meeting.ranks_wait,
    "ranks_tell": meeting.ranks_tell,
    "load_batch": move.load_batch,
    "gather": move.gather,
    "concat": move.concat,
    "unslice": move.unslice,
    "custom": move.custom,
    "rounds": rounds.rounds,
    "scalar": scalar.scalar,
}


@cache
def _family(dtype: str) -> SimpleNamespace:
    if dtype == "int32":
        pools = make_pools(types.int32)
        return SimpleNamespace(scatter_add=make_scatter_add(types.int32), **vars(pools))
    kind = _TYPES[dtype]
    family = SimpleNamespace(
        ops=make_ops(kind),
        chain=make_chain(kind),
        reduce=make_reduce(kind),
        scatter_add=make_scatter_add(kind),
        **vars(make_pools(kind)),
    )
    if dtype != "int64":
        rows = make_rowwise(kind)
        family.unpool = make_unpool(kind)
        family.matmul = make_matmul(kind)
        family.conv = make_conv(kind)
        family.depthwise = make_conv(kind, conv_lines.lines_of_channels(kind))
        family.depthwise_weight = make_conv_weight(kind, conv_lines.sums_of_channels(kind))
        family.pixels = make_conv(kind, conv_lines.lines_of_pixels(kind))
        family.pixels_weight = make_conv_weight(kind, conv_lines.sums_of_pixels(kind))
        family.conv_spread = make_conv_spread(kind)
        family.conv_weight = make_conv_weight(kind)
        family.attention = make_attention(kind)
        family.attention_grad = make_attention_grad(kind)
        family.softmax = rows.softmax
        family.cross_entropy = rows.cross_entropy
    return family


def module(name: str, symbol: str) -> Any:
    """An LLVM module that exports a kernel, or a table of register tiles, as `symbol`."""
    base, _, dtype = name.rpartition("_")
    if base.startswith("tiles_"):
        return tiles_module(base.removeprefix("tiles_"), dtype, symbol)
    if base.startswith("windows_"):
        return window_tiles_module(base.removeprefix("windows_"), dtype, symbol)
    return kernel_module(build(name), symbol)


def build(name: str) -> Any:
    """The function of a kernel."""
    if name in _COMMON:
        return _COMMON[name]
    base, _, dtype = name.rpartition("_")
    return getattr(_family(dtype), base)
