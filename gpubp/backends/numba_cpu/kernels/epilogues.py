"""What follows a product in the registers of a tile: bias and activation, a gradient, an update.

One function an epilogue of `words.EPILOGUES`; each stores the tile. Activations that take many
instructions run row by row over what was stored.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from gpubp.backends.numba_cpu import words
from gpubp.backends.numba_cpu.kernels.tile import Emitter, Spot, Tile
from gpubp.backends.numba_cpu.kernels.tilevectors import I64

# What epilogues read: how many arrays laid out as the product, and whether they write them, too.
FETCHED = {"momentum": (1, True), "adam": (2, True), "adam_decay": (2, True)}
FETCHED |= {f"{name}_grad": (1, False) for name in ("relu", "sigmoid", "tanh", "gelu")}


def _plain(tile: Tile, spots: list[Spot]) -> None:
    """C."""
    for spot in spots:
        tile.store(spot.value, spot.address, spot.vector)


def _bias(tile: Tile, spots: list[Spot]) -> None:
    """C + b."""
    bias = tile.column_vectors()
    for spot in spots:
        total = tile.builder.fadd(spot.value, bias[spot.vector])
        tile.store(total, spot.address, spot.vector)


def _bias_then(activation: Callable[[Tile, Any], Any], keeps: bool = False) -> Emitter:
    """f(C + b); with `keeps`, C + b is stored too. f runs row by row, over what was stored."""

    def emit(tile: Tile, spots: list[Spot]) -> None:
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


def _gradient(slope: Callable[[Tile, Any, Any], Any]) -> Emitter:
    """The cotangent C times the slope of an activation, from what was saved."""

    def emit(tile: Tile, spots: list[Spot]) -> None:
        distance = tile.word(words.TILE_STATE)
        for spot in spots:
            saved = tile.load(tile.builder.add(spot.address, distance), spot.vector)
            tile.store(slope(tile, spot.value, saved), spot.address, spot.vector)

    return emit


def _gelu_grad(tile: Tile, spots: list[Spot]) -> None:
    """The cotangent C times the slope at the saved pre-activation, row by row."""
    _plain(tile, spots)
    distance = tile.word(words.TILE_STATE)

    def finish(at: Any, vector: int) -> None:
        slope = tile.math.gelu_slope(tile.load(tile.builder.add(at, distance), vector))
        tile.store(tile.builder.fmul(tile.load(at, vector), slope), at, vector)

    tile.by_rows(finish)


def _bias_relu(tile: Tile, spots: list[Spot]) -> None:
    """max(C + b, 0); NaN stays."""
    bias = tile.column_vectors()
    zero = tile.constant(0.0)
    for spot in spots:
        total = tile.builder.fadd(spot.value, bias[spot.vector])
        kept = tile.builder.fcmp_unordered(">", total, zero)
        tile.store(tile.builder.select(kept, total, zero), spot.address, spot.vector)


def _relu_grad(tile: Tile, dy: Any, y: Any) -> Any:
    """dy where the ReLU's output is above 0."""
    zero = tile.constant(0.0)
    return tile.builder.select(tile.builder.fcmp_ordered(">", y, zero), dy, zero)


def _sigmoid_grad(tile: Tile, dy: Any, y: Any) -> Any:
    """dy y (1 - y)."""
    rest = tile.builder.fsub(tile.constant(1.0), y)
    return tile.builder.fmul(tile.builder.fmul(dy, y), rest)


def _tanh_grad(tile: Tile, dy: Any, y: Any) -> Any:
    """dy (1 - y^2)."""
    return tile.builder.fmul(dy, tile.fma(tile.builder.fneg(y), y, tile.constant(1.0)))


def _sgd(tile: Tile, spots: list[Spot]) -> None:
    """W <- W - lr C."""
    rate = tile.builder.fneg(tile.number(words.TILE_NUMBERS))
    for spot in spots:
        old = tile.load(spot.address, spot.vector)
        tile.store(tile.fma(rate, spot.value, old), spot.address, spot.vector)


def _momentum(tile: Tile, spots: list[Spot]) -> None:
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

    def emit(tile: Tile, spots: list[Spot]) -> None:
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


def _blend(tile: Tile, a: Any, p: Any, b: Any, q: Any) -> Any:
    return tile.fma(p, a, tile.builder.fmul(q, b))


EMITTERS: dict[str, Emitter] = {
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
