"""All kernels by name; `<name>_<dtype>` for those of one arithmetic type."""

from __future__ import annotations

from functools import cache
from types import SimpleNamespace
from typing import Any

from gpubp.backends.numba_cpu.kernels import loop, move, scalar, team
from gpubp.backends.numba_cpu.kernels.chain import make_chain, make_ops
from gpubp.backends.numba_cpu.kernels.language import types
from gpubp.backends.numba_cpu.kernels.matmul import make_matmul
from gpubp.backends.numba_cpu.kernels.microkernel import tiles_module
from gpubp.backends.numba_cpu.kernels.move import make_scatter_add
from gpubp.backends.numba_cpu.kernels.reduce import make_reduce
from gpubp.backends.numba_cpu.kernels.rowwise import make_rowwise
from gpubp.backends.numba_cpu.kernels.translate import kernel_module

_TYPES = {"float32": types.float32, "float64": types.float64, "int64": types.int64}
_COMMON = {
    "loop": loop.loop,
    "lead": team.lead,
    "serve": team.serve,
    "load_batch": move.load_batch,
    "gather": move.gather,
    "concat": move.concat,
    "unslice": move.unslice,
    "custom": move.custom,
    "scalar": scalar.scalar,
}


@cache
def _family(dtype: str) -> SimpleNamespace:
    if dtype == "int32":
        return SimpleNamespace(scatter_add=make_scatter_add(types.int32))
    kind = _TYPES[dtype]
    family = SimpleNamespace(
        ops=make_ops(kind),
        chain=make_chain(kind),
        reduce=make_reduce(kind),
        scatter_add=make_scatter_add(kind),
    )
    if dtype != "int64":
        rows = make_rowwise(kind)
        family.matmul = make_matmul(kind)
        family.softmax = rows.softmax
        family.cross_entropy = rows.cross_entropy
    return family


def module(name: str, symbol: str) -> Any:
    """An LLVM module that exports a kernel, or a table of register tiles, as `symbol`."""
    base, _, dtype = name.rpartition("_")
    if base.startswith("tiles_"):
        return tiles_module(base.removeprefix("tiles_"), dtype, symbol)
    return kernel_module(build(name), symbol)


def build(name: str) -> Any:
    """The function of a kernel."""
    if name in _COMMON:
        return _COMMON[name]
    base, _, dtype = name.rpartition("_")
    return getattr(_family(dtype), base)
