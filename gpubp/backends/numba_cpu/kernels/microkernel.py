"""The heart of the matrix product: one register tile of C, accumulated over all of K, finished in
registers.

A tile (see `tile`) is written as LLVM vectors. What follows the product (bias and ReLU, the
gradient of a ReLU, an optimiser's update) is done before it leaves the registers, see `epilogues`;
sigmoid, tanh and GELU row by row right after. Each element of C is the same chain of operations
whatever tile it falls into (k ascending, one accumulator), so results do not depend on tiling.

A tile is a C function `void (params, a, b, c, offset)` of int64 words; `words.TILE_*` says what is
in `params`. `offset` is the distance in bytes from the first column of C. The functions of one
epilogue and arithmetic type are listed in a table in memory: by rows from 1 on, then kind.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir

from gpubp.backends.numba_cpu.kernels.epilogues import EMITTERS, FETCHED
from gpubp.backends.numba_cpu.kernels.tile import Emitter, Tile
from gpubp.backends.numba_cpu.kernels.tilevectors import I64
from gpubp.backends.numba_cpu.target import tile_kinds, tile_rows

_TILE = ir.FunctionType(ir.VoidType(), [I64] * 5)


def tiles_module(epilogue: str, dtype: str, symbol: str) -> Any:
    """An LLVM module with all tiles of one epilogue and dtype, and their table under the name
    `symbol`.
    """
    follow = (EMITTERS[epilogue], *FETCHED.get(epilogue, (0, False)))
    return table_of(Tile, follow, f"{epilogue} {dtype}", dtype, symbol)


def table_of(
    tile: type[Tile], follow: tuple[Emitter, int, bool], name: str, dtype: str, symbol: str
) -> Any:
    """The module of `tiles_module`, of one family of tiles. `follow`: arguments of `Tile.emit`."""
    module = ir.Module(f"gpubp tiles {name}")
    table = []
    for rows in range(1, tile_rows() + 1):
        for kind in range(tile_kinds()):
            function = ir.Function(module, _TILE, f"tile_{rows}_{kind}")
            function.linkage = "internal"
            function.attributes.add("nounwind")
            tile(function, dtype, rows, kind).emit(*follow)
            table.append(function.ptrtoint(I64))
    kind = ir.ArrayType(I64, len(table))
    variable = ir.GlobalVariable(module, kind, symbol)
    variable.global_constant = True
    variable.initializer = ir.Constant(kind, table)
    return module
