"""Random numbers from a counter-based generator: Philox 4x32-10.

J. K. Salmon, M. A. Moraes, R. O. Dror, D. E. Shaw, "Parallel random numbers: as easy as 1, 2, 3"
(SC 2011). Four 32-bit words are a pure function of a 64-bit key and a 128-bit counter, so every
element of every draw can be computed alone, in any order, on any number of workers.

Key: the seed (low word, high word). Counter of block b: (b low, b high, counter low, stream xor
counter high), where `counter` advances with each step and `stream` numbers the draws within a step.

What words become what element i:

- float32 uniform: word i % 4 of block i // 4, its upper 24 bits times 2^-24.
- float64 uniform: words 2 (i % 2) and 2 (i % 2) + 1 of block i // 2, as high and low half of 64
  bits, the upper 53 of them times 2^-53.
- normal: the same two words a, b; with u1 = (a + 1) 2^-32 and u2 = b 2^-32 the element is
  sqrt(-2 ln u1) cos(2 pi u2) (Box & Muller, 1958), in float64, then rounded to the dtype.
"""

from __future__ import annotations

import math
import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.arguments import shown
from gpubp.core import (
    ArrayType,
    Kind,
    OpSpec,
    Shape,
    Typed,
    active_graph,
    at_once,
    bind,
    checked_dtype,
    describe,
    is_to_come,
)
from gpubp.core.interop import on_device
from gpubp.core.store import Slot
from gpubp.errors import ArgumentError, DataError, DTypeError, ShapeError
from gpubp.ops.elementwise import add, finite, multiply
from gpubp.ops.shape import as_shape
from gpubp.ops.spec import INT64, cast_to, register

_Words = NDArray[np.uint64]
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
_MULTIPLIERS = (np.uint64(0xD2511F53), np.uint64(0xCD9E8D57))
_WEYL = (0x9E3779B9, 0xBB67AE85)
_ROUNDS = 10


def philox(counter: tuple[_Words, _Words, _Words, _Words], key: tuple[int, int]) -> list[_Words]:
    """Philox 4x32-10.

    Args:
        counter: four words below 2^32 each, as uint64 arrays that broadcast.
        key: two words below 2^32.

    Returns:
        Four uint64 arrays of words below 2^32.
    """
    c0, c1, c2, c3 = counter
    for i in range(_ROUNDS):
        k0, k1 = (np.uint64((k + i * w) & 0xFFFFFFFF) for k, w in zip(key, _WEYL, strict=True))
        p0, p1 = c0 * _MULTIPLIERS[0], c2 * _MULTIPLIERS[1]
        c0, c1, c2, c3 = (p1 >> _HALF) ^ c1 ^ k0, p1 & _LOW, (p0 >> _HALF) ^ c3 ^ k1, p0 & _LOW
    return [c0, c1, c2, c3]


def _words(rng: Any, blocks: int, stream: int) -> _Words:
    """Four words for each of the first `blocks` blocks, shape (blocks, 4)."""
    seed, counter = int(rng[0]), int(rng[1])
    block = np.arange(blocks, dtype=np.uint64)
    last = (stream ^ (counter >> 32)) & 0xFFFFFFFF
    step = np.full(blocks, counter & 0xFFFFFFFF, np.uint64), np.full(blocks, last, np.uint64)
    key = (seed & 0xFFFFFFFF, (seed >> 32) & 0xFFFFFFFF)
    return np.stack(philox((block & _LOW, block >> _HALF, *step), key), axis=-1)


def _pairs(rng: Any, count: int, stream: int) -> tuple[_Words, _Words]:
    """The two words of each of `count` elements, two elements a block."""
    pairs = _words(rng, -(-count // 2), stream).reshape(-1, 2)[:count]
    return pairs[:, 0], pairs[:, 1]


def _uniform_reference(rng: Any, *, shape: Shape, dtype: str, stream: int) -> Any:
    count = math.prod(shape)
    if dtype == "float32":
        words = _words(rng, -(-count // 4), stream).reshape(-1)[:count]
        narrow = (words >> np.uint64(8)).astype(np.float32) * np.float32(2.0**-24)
        return narrow.reshape(shape)
    high, low = _pairs(rng, count, stream)
    bits = ((high << _HALF) | low) >> np.uint64(11)
    return (bits.astype(np.float64) * 2.0**-53).reshape(shape)


def _normal_reference(rng: Any, *, shape: Shape, dtype: str, stream: int) -> Any:
    a, b = _pairs(rng, math.prod(shape), stream)
    u1 = (a.astype(np.float64) + 1.0) * 2.0**-32
    u2 = b.astype(np.float64) * 2.0**-32
    z = np.sqrt(-2.0 * np.log(u1)) * np.cos(2.0 * np.pi * u2)
    return z.astype(dtype).reshape(shape)


def _infer(rng: Typed, *, shape: Shape, dtype: str, stream: int) -> ArrayType:
    if rng.shape != (2,) or rng.dtype != INT64:
        raise DTypeError(f"random numbers need a state int64[2], got {describe(rng)}.")
    if any(n < 0 for n in shape):
        raise ShapeError(f"random numbers: sizes must not be negative, got {shape}.")
    found = checked_dtype(dtype)
    if found.kind != "f":
        raise DTypeError(f"random numbers are float32 or float64, not {dtype}.")
    return ArrayType(shape, found)


UNIFORM = register(OpSpec("uniform", Kind.RANDOM, _infer, _uniform_reference, flops=30.0))
NORMAL = register(OpSpec("normal", Kind.RANDOM, _infer, _normal_reference, flops=60.0))


_STATE = "rng"


def is_state(slot: Slot) -> bool:
    """A slot is the state of a generator."""
    return slot.name == _STATE and slot.shape == (2,) and slot.dtype == INT64


class Generator:
    """A source of random numbers: a seed and a counter.

    Args:
        seed: an int in [0, 2**63).

    Attributes:
        state: slot int64[2], (seed, counter). The counter advances by one with each draw outside a
            trace, and by one with each step of a program that draws.
    """

    def __init__(self, seed: int) -> None:
        self.state = Slot(_STATE, np.array([checked_seed(seed), 0], np.int64))

    def manual_seed(self, seed: int) -> Generator:
        """Start again from `seed`; programs that draw from this generator follow."""
        self.state.value = np.array([checked_seed(seed), 0], np.int64)
        return self

    def __repr__(self) -> str:
        seed, counter = self.state.value
        return f"Generator(seed={seed}, counter={counter})"


def checked_seed(seed: Any) -> int:
    """A seed as an int. Raises DataError unless it is one in [0, 2**63)."""
    try:
        number = -1 if isinstance(seed, bool) else operator.index(seed)
    except TypeError:
        number = -1
    if not 0 <= number < 2**63:
        raise DataError(f"a seed must be an int in [0, 2**63), got {seed!r}.")
    return number


default_generator = Generator(0)


def manual_seed(seed: int) -> Generator:
    """Seed the default generator, and return it. Raises DataError unless 0 <= seed < 2**63."""
    return default_generator.manual_seed(seed)


def state_of(generator: Generator | None) -> Slot:
    """The state of a generator, or of the default one. Raises ArgumentError if it is none."""
    if generator is None:
        return default_generator.state
    if not isinstance(generator, Generator):
        raise ArgumentError(
            f"generator is {shown(generator)}, expected a gp.Generator: gp.Generator(seed)."
        )
    return generator.state


def draw(
    spec: OpSpec, shape: Any, dtype: Any, generator: Generator | None, like: Any = None
) -> Any:
    """Random numbers of an op of this file.

    Args:
        spec: UNIFORM or NORMAL.
        shape, dtype, generator: as for `uniform`.
        like: draw where this array is, if that is a device.
    """
    wanted = checked_dtype(dtype)
    if is_to_come(wanted):  # of float32, as at once: what rounds a draw of float64 may reach 1
        return cast_to(draw(spec, shape, "float32", generator, like), wanted)
    state = state_of(generator)
    attrs: dict[str, Any] = {
        "shape": as_shape(shape, spec.name),
        "dtype": str(wanted),
    }
    graph = active_graph()
    if graph is None:
        attrs["stream"] = 0
        if on_device(like):
            out = at_once.apply(spec, [state], attrs, like)
        else:
            out = bind(spec, state, **attrs)
        state.value[1] += 1
        return out
    stream = graph.random_streams
    graph.random_streams += 1
    out = bind(spec, state, **attrs, stream=stream)
    if all(slot is not state for slot, _ in graph.writes):
        graph.writes.append((state, add(state, np.array([0, 1], np.int64)).node))
    return out


def uniform(
    shape: int | tuple[int, ...],
    dtype: Any = "float32",
    generator: Generator | None = None,
    low: float = 0.0,
    high: float = 1.0,
) -> Any:
    """Numbers spread evenly over [low, high).

    Args:
        shape: of the result.
        dtype: float32 or float64.
        generator: default is the one that `manual_seed` seeds.
        low, high: where they begin and end. Of others than 0 and 1, rounding may reach `high`.

    Raises:
        DataError: `low` is above `high`, or one is not finite.
        DTypeError: another dtype.
        ShapeError: not a shape.
    """
    first, last = finite("uniform", "low", low), finite("uniform", "high", high)
    if first > last:
        raise DataError(f"uniform: low is {low}, which is above high, {high}.")
    u = draw(UNIFORM, shape, dtype, generator)
    return u if (first, last) == (0.0, 1.0) else add(multiply(u, last - first), first)


def normal(
    shape: int | tuple[int, ...], dtype: Any = "float32", generator: Generator | None = None
) -> Any:
    """Numbers of mean 0 and variance 1, normally distributed; arguments as for `uniform`."""
    return draw(NORMAL, shape, dtype, generator)
