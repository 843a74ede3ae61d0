"""The language that CPU kernels are written in: what its functions compute, and what it refuses."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpubp.backends.numba_cpu.kernels import lowlevel as low
from gpubp.backends.numba_cpu.kernels.language import define, native, types
from gpubp.backends.numba_cpu.native_call import native_call

NUMBERS = (-7, -2, -1, 0, 1, 2, 3, 7, 1 << 40)
STEPS = ((0, 10, 1), (3, 3, 1), (5, 2, 1), (0, 10, 3), (1, 11, 5))


def _binary(text: str) -> Callable[..., int]:
    source = f"def value(a, b):\n    return np.int64({text})"
    function: Callable[..., int] = native_call(native(define(source, "value", {"np": np})))
    return function


def _wrapped(number: int) -> int:
    return (number + 2**63) % 2**64 - 2**63


@pytest.mark.parametrize("text", ["a + b", "a - b", "a * b", "a // b", "a % b", "a & b", "a | b"])
def test_integers_are_pythons(text: str) -> None:
    found = _binary(text)
    for a in NUMBERS:
        for b in NUMBERS:
            none = b == 0 and text[2] in "/%"
            wanted = 0 if none else _wrapped(eval(text, {"a": a, "b": b}))
            assert found(a, b) == wanted, (text, a, b)


@pytest.mark.parametrize(
    "text",
    ["a < b", "a != b", "a < b < 3", "a < 0 or b < 0", "a > 0 and not b > 2", "a > b if b else a"],
)
def test_tests_are_pythons(text: str) -> None:
    found = _binary(text)
    for a in NUMBERS:
        for b in NUMBERS:
            assert found(a, b) == int(eval(text, {"a": a, "b": b})), (text, a, b)


@pytest.mark.parametrize("text", ["min(a, b)", "max(a, b, 3)", "abs(a) + b", "-a - b"])
def test_functions_of_integers(text: str) -> None:
    found = _binary(text)
    for a in NUMBERS:
        for b in NUMBERS:
            assert found(a, b) == eval(text), (text, a, b)


def test_loops_and_what_leaves_them() -> None:
    @native
    def walk(start, stop, step):
        total = 0
        for i in range(start, stop, step):
            if i == 4:
                continue
            if i > 8:
                break
            total = total * 11 + i
        while total > 1000:
            total //= 2
        return total

    call = native_call(walk)
    for bounds in STEPS:
        assert call(*bounds) == walk.python(*bounds)


def test_loops_may_go_down() -> None:
    @native
    def digits(n):
        total = 0
        for i in range(n - 2, -1, -1):
            total = total * 10 + i
        return total

    assert [native_call(digits)(n) for n in (0, 1, 2, 5)] == [0, 0, 0, 3210]


def test_several_results_and_functions_of_functions() -> None:
    @native
    def halves(n):
        return (n // 2, n - n // 2) if n > 0 else (0, n)

    @native(inline=True)
    def weighed(n):
        a, b = halves(n)
        a += 1
        return 100 * a + b

    @native
    def both(n):
        return weighed(n) + weighed(n + 1)

    for n in (-3, 0, 1, 8):
        a, b = ((n // 2, n - n // 2) if n > 0 else (0, n)), ((n + 1) // 2, n + 1 - (n + 1) // 2)
        b = b if n + 1 > 0 else (0, n + 1)
        wanted = 100 * (a[0] + 1) + a[1] + 100 * (b[0] + 1) + b[1]
        assert native_call(both)(n) == wanted


@pytest.mark.parametrize("kind", [types.float32, types.float64])
def test_floats_round_as_numpy_does(kind: Any) -> None:
    load, store = low.make_load(kind), low.make_store(kind)
    C = np.float32 if kind is types.float32 else np.float64

    @native
    def mixed(x, out, n):
        for i in range(n):
            a = load(x, i)
            store(out, i, C(a * a - C(1) / (C(0.1) + abs(a))) if a == a else C(7))
            store(out, n + i, math.sqrt(max(a, C(0))) * 3 + np.floor(a))
        return 0

    x = np.array([0.3, -1.7, np.nan, 1e-8, 12345.678], C)
    out = np.zeros(2 * len(x), C)
    native_call(mixed)(x.ctypes.data, out.ctypes.data, len(x))
    one = (x * x - C(1) / (C(0.1) + abs(x))).astype(C)
    one[2] = 7
    # An integer makes float64 of float32, as in NumPy.
    two = (np.sqrt(np.maximum(x, C(0))).astype(np.float64) * 3 + np.floor(x)).astype(C)
    np.testing.assert_array_equal(out[: len(x)], one)
    np.testing.assert_array_equal(out[len(x) :], two)


def test_unsigned_words_wrap() -> None:
    U = np.uint64

    @native
    def turned(a, b):
        return np.int64(((U(a) * U(0x9E3779B97F4A7C15)) >> U(b)) ^ (U(a) << U(3)))

    call = native_call(turned)
    for a in (1, -1, 12345):
        wide = ((a % 2**64) * 0x9E3779B97F4A7C15 % 2**64 >> 7) ^ ((a << 3) % 2**64)
        assert call(a, 7) % 2**64 == wide


def test_a_constant_decides_when_it_is_translated() -> None:
    def maker(whole: bool) -> Any:
        @native
        def value(a):
            if whole:
                return a + 1
            return missing_name(a)  # type: ignore[name-defined]  # noqa: F821

        return value

    assert native_call(maker(True))(4) == 5
    with pytest.raises(KeyError, match="missing_name"):
        native_call(maker(False))


@pytest.mark.parametrize(
    ("source", "what"),
    [
        ("    return [a]", "List is not in the kernels' language"),
        ("    with a:\n        return 1", "With is not in the kernels' language"),
        ("    if a > 0:\n        b = 1\n        b = 2.0\n    return a", "b is int64, then float64"),
    ],
)
def test_what_is_not_in_the_language_is_named(source: str, what: str) -> None:
    with pytest.raises(TypeError, match=what):
        native_call(native(define(f"def value(a):\n{source}", "value", {})))
