"""The heart of the matrix product: one register tile of C, accumulated over all of K, finished in
registers.

Written as LLVM vectors: `rows` broadcasts of A times `vectors` vectors of B, accumulators in phi
nodes, fused multiply-add where the CPU has it. What follows the product (bias and ReLU, the
gradient of a ReLU, an optimiser's update) is done before the tile leaves the registers, see
`words.EPILOGUES`; sigmoid, tanh and GELU row by row right after. Each element of C is the same
chain of operations whatever tile it falls into (k ascending, one accumulator), so results do not
depend on tiling.

A tile is a C function `void (params, a, b, c, offset)` of int64 words; `words.TILE_*` says what is
in `params`. `offset` is the distance in bytes from the first column of C. The functions of one
epilogue and arithmetic type are listed in a table in memory: by rows from 1 on, then kind.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from llvmlite import ir

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels.vectormath import VectorMath
from gpubp.backends.numba_cpu.target import has_masked_stores, lanes, tile_rows

I1, I8, I32, I64 = ir.IntType(1), ir.IntType(8), ir.IntType(32), ir.IntType(64)
_SCALARS = {"float32": ir.FloatType(), "float64": ir.DoubleType()}
_UNROLL = 4  # steps over k in one turn of the loop, for whole tiles
_TILE = ir.FunctionType(ir.VoidType(), [I64] * 5)


def tiles_module(epilogue: str, dtype: str, symbol: str) -> Any:
    """An LLVM module with all tiles of one epilogue and dtype, and their table under the name
    `symbol`.
    """
    module = ir.Module(f"gpubp tiles {epilogue} {dtype}")
    table = []
    for rows in range(1, tile_rows() + 1):
        for kind in range(words.TILE_KINDS):
            function = ir.Function(module, _TILE, f"tile_{rows}_{kind}")
            function.linkage = "internal"
            function.attributes.add("nounwind")
            _Tile(function, dtype, rows, kind).emit(epilogue)
            table.append(function.ptrtoint(I64))
    kind = ir.ArrayType(I64, len(table))
    variable = ir.GlobalVariable(module, kind, symbol)
    variable.global_constant = True
    variable.initializer = ir.Constant(kind, table)
    return module


@dataclass(eq=False)
class Spot:
    """One vector of the tile: the product's value, and where it goes."""

    value: Any
    address: Any
    vector: int


class _Tile:
    """Emits one tile function.

    Kinds: two whole vectors; two vectors, the second one partly there; one vector, partly there.
    """

    def __init__(self, function: Any, dtype: str, rows: int, kind: int) -> None:
        self.function = function
        self.module = function.module
        self.builder = ir.IRBuilder(function.append_basic_block("entry"))
        self.scalar = _SCALARS[dtype]
        self.item = 4 if dtype == "float32" else 8
        self.width = lanes(dtype)
        self.vector = ir.VectorType(self.scalar, self.width)
        self.name = f"v{self.width}f{8 * self.item}"
        self.rows, self.vectors = rows, 1 if kind == words.TILE_ONE else 2
        self.partial = None if kind == words.TILE_WHOLE else self.vectors - 1
        self.math = VectorMath(self.builder, self.vector)
        self.params, self.a, self.b, self.c, self.offset = function.args

    def emit(self, name: str) -> None:
        """The whole function, with an epilogue of `words.EPILOGUES`."""
        builder = self.builder
        self.c_row = self.word(words.TILE_C_ROW)
        if self.partial is not None:
            self.columns = self.word(words.TILE_COLUMNS)
            self.mask = self._lane_mask(self.columns)
        addresses = [
            [
                builder.add(
                    self.row_address(self.c, self.c_row, i), I64(j * self.width * self.item)
                )
                for j in range(self.vectors)
            ]
            for i in range(self.rows)
        ]
        self._prefetch([row[0] for row in addresses], *_FETCHED.get(name, (0, False)))
        sums = self._product()
        spots = [
            Spot(sums[i * self.vectors + j], addresses[i][j], j)
            for i in range(self.rows)
            for j in range(self.vectors)
        ]
        _EMITTERS[name](self, spots)
        builder.ret_void()

    def word(self, position: int) -> Any:
        """A word of the parameters."""
        pointer = self.builder.inttoptr(self.params, I64.as_pointer())
        return self.builder.load(self.builder.gep(pointer, [I64(position)]))

    def number(self, position: int) -> Any:
        """A number of the tile's type among the parameters, in every lane."""
        at = self.builder.add(self.params, I64(8 * position))
        value = self.builder.load(self.builder.inttoptr(at, self.scalar.as_pointer()))
        return self.splat(value)

    def constant(self, value: float) -> Any:
        """A number in every lane."""
        return ir.Constant(self.vector, [value] * self.width)

    def splat(self, value: Any) -> Any:
        """A scalar in every lane."""
        undefined = ir.Constant(self.vector, ir.Undefined)
        first = self.builder.insert_element(undefined, value, I32(0))
        spread = ir.Constant(ir.VectorType(I32, self.width), [0] * self.width)
        return self.builder.shuffle_vector(first, undefined, spread)

    def row_address(self, base: Any, stride: Any, i: int) -> Any:
        """base + i * stride."""
        return base if i == 0 else self.builder.add(base, self.builder.mul(stride, I64(i)))

    def _lane_mask(self, columns: Any) -> Any:
        """Lane i exists if i < columns."""
        kind = ir.VectorType(I32, self.width)
        few = self.builder.trunc(columns, I32)
        undefined = ir.Constant(kind, ir.Undefined)
        first = self.builder.insert_element(undefined, few, I32(0))
        limit = self.builder.shuffle_vector(first, undefined, ir.Constant(kind, [0] * self.width))
        return self.builder.icmp_signed("<", ir.Constant(kind, list(range(self.width))), limit)

    def load(self, address: Any, vector: int) -> Any:
        """A vector from memory; lanes that do not exist are 0."""
        pointer = self.builder.inttoptr(address, self.vector.as_pointer())
        if vector != self.partial:
            return self.builder.load(pointer, align=self.item)
        bits = ir.VectorType(I1, self.width)
        kind = ir.FunctionType(self.vector, [self.vector.as_pointer(), I32, bits, self.vector])
        function = self.declare(f"llvm.masked.load.{self.name}.p0", kind)
        zero = self.constant(0.0)
        return self.builder.call(function, [pointer, I32(self.item), self.mask, zero])

    def store(self, value: Any, address: Any, vector: int) -> None:
        """A vector to memory, but for lanes that do not exist."""
        pointer = self.builder.inttoptr(address, self.vector.as_pointer())
        if vector != self.partial:
            self.builder.store(value, pointer, align=self.item)
        elif has_masked_stores():
            bits = ir.VectorType(I1, self.width)
            kind = ir.FunctionType(
                ir.VoidType(), [self.vector, self.vector.as_pointer(), I32, bits]
            )
            function = self.declare(f"llvm.masked.store.{self.name}.p0", kind)
            self.builder.call(function, [value, pointer, I32(self.item), self.mask])
        else:
            self._store_pieces(value, address)

    def _store_pieces(self, value: Any, address: Any) -> None:
        """The first `columns` lanes as halves, quarters, ...: masked stores can be very slow."""
        builder = self.builder
        size = self.width
        with builder.if_else(builder.icmp_signed("==", self.columns, I64(size))) as (then, other):
            with then:
                pointer = builder.inttoptr(address, self.vector.as_pointer())
                builder.store(value, pointer, align=self.item)
            with other:
                self._store_smaller(value, address, size // 2)

    def _store_smaller(self, value: Any, address: Any, size: int) -> None:
        builder = self.builder
        while size >= 1:
            lanes_kind = ir.VectorType(I32, size)
            wanted = builder.icmp_signed("!=", builder.and_(self.columns, I64(size)), I64(0))
            before = builder.block
            with builder.if_then(wanted):
                inside = builder.block
                undefined = ir.Constant(value.type, ir.Undefined)
                low = builder.shuffle_vector(
                    value, undefined, ir.Constant(lanes_kind, list(range(size)))
                )
                pointer = builder.inttoptr(address, low.type.as_pointer())
                builder.store(low, pointer, align=self.item)
                indices = [(i + size) % value.type.count for i in range(value.type.count)]
                whole = ir.VectorType(I32, value.type.count)
                rest = builder.shuffle_vector(value, undefined, ir.Constant(whole, indices))
                further = builder.add(address, I64(size * self.item))
            value_phi = builder.phi(value.type)
            value_phi.add_incoming(value, before)
            value_phi.add_incoming(rest, inside)
            address_phi = builder.phi(I64)
            address_phi.add_incoming(address, before)
            address_phi.add_incoming(further, inside)
            value, address = value_phi, address_phi
            size //= 2

    def _prefetch(self, rows: list[Any], others: int, written: bool) -> None:
        """Ask for what the epilogue will write and read while the product runs: its own place,
        which another worker may have read, and `others` beside it.
        """
        pointer = I8.as_pointer()
        kind = ir.FunctionType(ir.VoidType(), [pointer, I32, I32, I32])
        function = self.declare("llvm.prefetch.p0", kind)
        distances = [self.word(words.TILE_STATE + s) for s in range(others)]
        for row in rows:
            starts = [self.builder.add(row, d) for d in distances]
            for at in [row, *starts]:
                where = self.builder.inttoptr(at, pointer)
                write = I32(int(written or at is row))
                self.builder.call(function, [where, write, I32(3), I32(1)])

    def _product(self) -> list[Any]:
        """The sums over k, row by row."""
        builder = self.builder
        k = self.word(words.TILE_K)
        self.a_col, self.b_row = (self.word(w) for w in (words.TILE_A_COL, words.TILE_B_ROW))
        self.a_rows = [
            builder.add(self.a, self.word(words.TILE_A_ROWS + i)) for i in range(self.rows)
        ]
        state = [I64(0), self.b, *[self.constant(0.0)] * (self.rows * self.vectors)]
        unroll = _UNROLL if self.rows == tile_rows() and self.partial is None else 1
        if unroll > 1:
            state = self._loop(builder.sdiv(k, I64(unroll)), unroll, state)
            k = builder.srem(k, I64(unroll))
        return self._loop(k, 1, state)[2:]

    def _loop(self, count: Any, steps: int, state: list[Any]) -> list[Any]:
        """`count` times `steps` steps over k; state: the place in rows of A, where B is
        read, and the sums.
        """
        builder = self.builder
        entry = builder.block
        loop = self.function.append_basic_block("k.loop")
        done = self.function.append_basic_block("k.done")
        builder.cbranch(builder.icmp_signed(">", count, I64(0)), loop, done)
        builder.position_at_end(loop)
        left = builder.phi(I64)
        before = [builder.phi(x.type) for x in state]
        after = list(before)
        for _ in range(steps):
            after = self._multiply_add(after)
        fewer = builder.sub(left, I64(1))
        for phi, start, new in zip([left, *before], [count, *state], [fewer, *after]):
            phi.add_incoming(start, entry)
            phi.add_incoming(new, loop)
        builder.cbranch(builder.icmp_signed("!=", fewer, I64(0)), loop, done)
        builder.position_at_end(done)
        final = [builder.phi(x.type) for x in state]
        for phi, start, new in zip(final, state, after):
            phi.add_incoming(start, entry)
            phi.add_incoming(new, loop)
        return final

    def _multiply_add(self, state: list[Any]) -> list[Any]:
        builder = self.builder
        at_a, at_b, *sums = state
        step = self.width * self.item
        panel = [self.load(builder.add(at_b, I64(j * step)), j) for j in range(self.vectors)]
        fresh = []
        for i in range(self.rows):
            address = builder.add(self.a_rows[i], at_a)
            pointer = builder.inttoptr(address, self.scalar.as_pointer())
            spread = self.splat(builder.load(pointer, align=self.item))
            for j in range(self.vectors):
                fresh.append(self.fma(spread, panel[j], sums[i * self.vectors + j]))
        return [self.opaque(builder.add(at_a, self.a_col)), builder.add(at_b, self.b_row), *fresh]

    def opaque(self, value: Any) -> Any:
        """The same number, of which LLVM knows nothing: else it adds it to each row's address ahead
        of the loop, once for each step, and reads those back from the stack.
        """
        kind = ir.FunctionType(I64, [I64])
        return self.builder.asm(kind, "", "=r,0", [value], side_effect=False)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a * b + c, rounded once where the CPU can."""
        return self.math.fma(a, b, c)

    def sqrt(self, a: Any) -> Any:
        """The square root of each lane."""
        return self.math.intrinsic("sqrt", a)

    def by_rows(self, body: Callable[[Any, int], None]) -> None:
        """A loop over the tile's rows; `body` emits what is done with each vector of a row."""
        builder = self.builder
        entry = builder.block
        loop = self.function.append_basic_block("row.loop")
        done = self.function.append_basic_block("row.done")
        builder.branch(loop)
        builder.position_at_end(loop)
        row, left = builder.phi(I64), builder.phi(I64)
        for j in range(self.vectors):
            body(builder.add(row, I64(j * self.width * self.item)), j)
        fewer = builder.sub(left, I64(1))
        for phi, start, new in (
            (row, self.c, builder.add(row, self.c_row)),
            (left, I64(self.rows), fewer),
        ):
            phi.add_incoming(start, entry)
            phi.add_incoming(new, builder.block)
        builder.cbranch(builder.icmp_signed("!=", fewer, I64(0)), loop, done)
        builder.position_at_end(done)

    def declare(self, name: str, kind: Any) -> Any:
        """A function defined elsewhere."""
        found = self.module.globals.get(name)
        return found if found is not None else ir.Function(self.module, kind, name)

    def column_vectors(self) -> list[Any]:
        """The row vector at TILE_BIAS, this tile's columns."""
        start = self.builder.add(self.word(words.TILE_BIAS), self.offset)
        step = self.width * self.item
        return [self.load(self.builder.add(start, I64(j * step)), j) for j in range(self.vectors)]


Emitter = Callable[[_Tile, list[Spot]], None]
# What epilogues read: how many arrays laid out as the product, and whether they write them, too.
_FETCHED = {"momentum": (1, True), "adam": (2, True), "adam_decay": (2, True)}
_FETCHED |= {f"{name}_grad": (1, False) for name in ("relu", "sigmoid", "tanh", "gelu")}


def _plain(tile: _Tile, spots: list[Spot]) -> None:
    """C."""
    for spot in spots:
        tile.store(spot.value, spot.address, spot.vector)


def _bias(tile: _Tile, spots: list[Spot]) -> None:
    """C + b."""
    bias = tile.column_vectors()
    for spot in spots:
        total = tile.builder.fadd(spot.value, bias[spot.vector])
        tile.store(total, spot.address, spot.vector)


def _bias_then(activation: Callable[[_Tile, Any], Any], keeps: bool = False) -> Emitter:
    """f(C + b); with `keeps`, C + b is stored too. f runs row by row, over what was stored."""

    def emit(tile: _Tile, spots: list[Spot]) -> None:
        bias = tile.column_vectors()
        distance = tile.word(words.TILE_STATE) if keeps else I64(0)
        for spot in spots:
            total = tile.builder.fadd(spot.value, bias[spot.vector])
            tile.store(total, tile.builder.add(spot.address, distance), spot.vector)

        def finish(at: Any, vector: int) -> None:
            total = tile.load(tile.builder.add(at, distance), vector)
            tile.store(activation(tile, total), at, vector)

        tile.by_rows(finish)

    return emit


def _gradient(slope: Callable[[_Tile, Any, Any], Any]) -> Emitter:
    """The cotangent C times the slope of an activation, from what was saved."""

    def emit(tile: _Tile, spots: list[Spot]) -> None:
        distance = tile.word(words.TILE_STATE)
        for spot in spots:
            saved = tile.load(tile.builder.add(spot.address, distance), spot.vector)
            tile.store(slope(tile, spot.value, saved), spot.address, spot.vector)

    return emit


def _gelu_grad(tile: _Tile, spots: list[Spot]) -> None:
    """The cotangent C times the slope at the saved pre-activation, row by row."""
    _plain(tile, spots)
    distance = tile.word(words.TILE_STATE)

    def finish(at: Any, vector: int) -> None:
        slope = tile.math.gelu_slope(tile.load(tile.builder.add(at, distance), vector))
        tile.store(tile.builder.fmul(tile.load(at, vector), slope), at, vector)

    tile.by_rows(finish)


def _bias_relu(tile: _Tile, spots: list[Spot]) -> None:
    """max(C + b, 0); NaN stays."""
    bias = tile.column_vectors()
    zero = tile.constant(0.0)
    for spot in spots:
        total = tile.builder.fadd(spot.value, bias[spot.vector])
        kept = tile.builder.fcmp_unordered(">", total, zero)
        tile.store(tile.builder.select(kept, total, zero), spot.address, spot.vector)


def _relu_grad(tile: _Tile, dy: Any, y: Any) -> Any:
    """dy where the ReLU's output is above 0."""
    zero = tile.constant(0.0)
    return tile.builder.select(tile.builder.fcmp_ordered(">", y, zero), dy, zero)


def _sigmoid_grad(tile: _Tile, dy: Any, y: Any) -> Any:
    """dy y (1 - y)."""
    rest = tile.builder.fsub(tile.constant(1.0), y)
    return tile.builder.fmul(tile.builder.fmul(dy, y), rest)


def _tanh_grad(tile: _Tile, dy: Any, y: Any) -> Any:
    """dy (1 - y^2)."""
    return tile.builder.fmul(dy, tile.fma(tile.builder.fneg(y), y, tile.constant(1.0)))


def _sgd(tile: _Tile, spots: list[Spot]) -> None:
    """W <- W - lr C."""
    rate = tile.builder.fneg(tile.number(words.TILE_NUMBERS))
    for spot in spots:
        old = tile.load(spot.address, spot.vector)
        tile.store(tile.fma(rate, spot.value, old), spot.address, spot.vector)


def _momentum(tile: _Tile, spots: list[Spot]) -> None:
    """V <- p V + q C, then W <- W - lr V."""
    rate = tile.builder.fneg(tile.number(words.TILE_NUMBERS))
    p, q = (tile.number(words.TILE_NUMBERS + i) for i in (1, 2))
    distance = tile.word(words.TILE_STATE)
    for spot in spots:
        at = tile.builder.add(spot.address, distance)
        average = _blend(tile, tile.load(at, spot.vector), p, spot.value, q)
        tile.store(average, at, spot.vector)
        old = tile.load(spot.address, spot.vector)
        tile.store(tile.fma(rate, average, old), spot.address, spot.vector)


def _adam(decays: bool) -> Emitter:
    """M <- p M + q G, V <- r V + s G^2, W <- W - size root M / (sqrt(V) + eps root).

    That is W - size M / (sqrt(V) / root + eps) with one division. G is C, or C + decay W.
    """

    def emit(tile: _Tile, spots: list[Spot]) -> None:
        builder = tile.builder
        size, root, p, q, r, s, eps = (tile.number(words.TILE_NUMBERS + i) for i in range(7))
        decay = tile.number(words.TILE_NUMBERS + 7) if decays else None
        scale = builder.fneg(builder.fmul(size, root))
        shift = builder.fmul(eps, root)
        first, second = (tile.word(words.TILE_STATE + i) for i in (0, 1))
        for spot in spots:
            m_at, v_at = (builder.add(spot.address, d) for d in (first, second))
            old = tile.load(spot.address, spot.vector)
            g = spot.value if decay is None else tile.fma(decay, old, spot.value)
            m = _blend(tile, tile.load(m_at, spot.vector), p, g, q)
            v = _blend(tile, tile.load(v_at, spot.vector), r, builder.fmul(g, g), s)
            tile.store(m, m_at, spot.vector)
            tile.store(v, v_at, spot.vector)
            step = builder.fdiv(m, builder.fadd(tile.sqrt(v), shift))
            tile.store(tile.fma(scale, step, old), spot.address, spot.vector)

    return emit


def _blend(tile: _Tile, a: Any, p: Any, b: Any, q: Any) -> Any:
    return tile.fma(p, a, tile.builder.fmul(q, b))


_EMITTERS: dict[str, Emitter] = {
    "plain": _plain,
    "bias": _bias,
    "bias_relu": _bias_relu,
    "relu_grad": _gradient(_relu_grad),
    "sgd": _sgd,
    "momentum": _momentum,
    "adam": _adam(decays=False),
    "adam_decay": _adam(decays=True),
    "bias_sigmoid": _bias_then(lambda tile, x: tile.math.sigmoid(x)),
    "bias_tanh": _bias_then(lambda tile, x: tile.math.tanh(x)),
    "bias_gelu": _bias_then(lambda tile, x: tile.math.gelu(x), keeps=True),
    "sigmoid_grad": _gradient(_sigmoid_grad),
    "tanh_grad": _gradient(_tanh_grad),
    "gelu_grad": _gelu_grad,
}
