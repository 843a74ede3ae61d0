"""Each family of PTX instructions, lane by lane, beside what the PTX ISA says in Python's exact
numbers.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from emulated import dtype_of, run_lines

from gpubp.backends.cuda.emulator.faults import UnknownInstructionError

SPECIAL = {
    32: [
        0,
        1,
        2,
        3,
        5,
        31,
        32,
        33,
        0x7FFFFFFF,
        0x80000000,
        0x80000001,
        0xFFFFFFFF,
        0xFFFF,
        0x12345678,
    ],
    64: [0, 1, 2, 63, 64, 65, 2**63 - 1, 2**63, 2**64 - 1, 2**32 - 1, 2**32, 0x123456789ABCDEF0],
    16: [0, 1, 2, 15, 16, 17, 0x7FFF, 0x8000, 0xFFFF, 0x1234],
}


def signed(x: int, bits: int) -> int:
    x &= (1 << bits) - 1
    return x - (1 << bits) if x >> bits - 1 else x


def toward_zero(a: int, b: int) -> int:
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def pairs(kind: str) -> tuple[list[int], list[int]]:
    bits = int(kind[1:])
    values = [signed(v, bits) if kind[0] == "s" else v for v in SPECIAL[bits]]
    both = list(itertools.product(values, values))
    return [a for a, _ in both], [b for _, b in both]


def check(text: str, kind: str, result: str, exact: Callable[[int, int], int]) -> None:
    """`text` with two operands of one type, on all pairs of special numbers."""
    a, b = pairs(kind)
    found = run_lines(text, result, (kind, np.array(a, object)), (kind, np.array(b, object)))
    bits = 8 * dtype_of(result).itemsize
    wanted = [exact(x, y) & ((1 << bits) - 1) for x, y in zip(a, b)]
    actual = [int(v) & ((1 << bits) - 1) for v in found]
    wrong = [(x, y, hex(p), hex(q)) for x, y, p, q in zip(a, b, actual, wanted) if p != q]
    assert not wrong, f"{text}: {wrong[:3]} of {len(wrong)}"


ARITHMETIC: list[tuple[str, Callable[[int, int], int]]] = [
    ("add", lambda a, b: a + b),
    ("sub", lambda a, b: a - b),
    ("mul.lo", lambda a, b: a * b),
    ("min", min),
    ("max", max),
]


@pytest.mark.parametrize("kind", ["s16", "u16", "s32", "u32", "s64", "u64"])
def test_sums_and_products_of_whole_numbers(kind: str) -> None:
    bits = int(kind[1:])
    for name, exact in ARITHMETIC:
        check(f"{name}.{kind} %d, %a0, %a1;", kind, kind, exact)
    check(f"mul.hi.{kind} %d, %a0, %a1;", kind, kind, lambda a, b: (a * b) >> bits)
    if bits < 64:
        wide = f"{kind[0]}{2 * bits}"
        check(f"mul.wide.{kind} %d, %a0, %a1;", kind, wide, lambda a, b: a * b)
        check(f"mad.wide.{kind} %d, %a0, %a1, 7;", kind, wide, lambda a, b: a * b + 7)
    check(f"mad.lo.{kind} %d, %a0, %a1, %a0;", kind, kind, lambda a, b: a * b + a)
    check(f"div.{kind} %d, %a0, %a1;", kind, kind, lambda a, b: toward_zero(a, b) if b else -1)
    check(
        f"rem.{kind} %d, %a0, %a1;", kind, kind, lambda a, b: a - b * toward_zero(a, b) if b else a
    )


def test_sums_that_saturate() -> None:
    def clamp(x: int) -> int:
        return max(-(2**31), min(2**31 - 1, x))

    check("add.sat.s32 %d, %a0, %a1;", "s32", "s32", lambda a, b: clamp(a + b))
    check("sub.sat.s32 %d, %a0, %a1;", "s32", "s32", lambda a, b: clamp(a - b))


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_bits(bits: int) -> None:
    kind = f"u{bits}"
    for name, exact in (
        ("and", lambda a, b: a & b),
        ("or", lambda a, b: a | b),
        ("xor", lambda a, b: a ^ b),
    ):
        check(f"{name}.b{bits} %d, %a0, %a1;", kind, kind, exact)
    check(f"not.b{bits} %d, %a0;", kind, kind, lambda a, b: ~a)
    check(f"cnot.b{bits} %d, %a0;", kind, kind, lambda a, b: a == 0)
    if bits > 16:
        check(f"popc.b{bits} %d, %a0;", kind, "u32", lambda a, b: a.bit_count())
        check(f"clz.b{bits} %d, %a0;", kind, "u32", lambda a, b: bits - a.bit_length())
        check(f"brev.b{bits} %d, %a0;", kind, kind, lambda a, b: int(f"{a:0{bits}b}"[::-1], 2))
        check(f"bfind.u{bits} %d, %a0;", kind, "u32", lambda a, b: a.bit_length() - 1)


@pytest.mark.parametrize("kind", ["s32", "u32", "s64", "u64"])
def test_shifts_by_more_than_the_width(kind: str) -> None:
    bits = int(kind[1:])
    values = [signed(v, bits) if kind[0] == "s" else v for v in SPECIAL[bits]]
    both = list(itertools.product(values, [0, 1, 7, bits - 1, bits, bits + 1, 255, 2**32 - 1]))
    a, n = (np.array([p[i] for p in both], object) for i in (0, 1))
    right = run_lines(f"shr.{kind} %d, %a0, %a1;", kind, (kind, a), ("u32", n))
    left = run_lines(f"shl.b{bits} %d, %a0, %a1;", kind, (kind, a), ("u32", n))
    for x, by, r, f in zip(a, n, right, left):
        by = min(by, 200)
        assert int(r) == x >> by, (x, by)
        assert int(f) % 2**bits == (x << by) % 2**bits, (x, by)


@pytest.mark.parametrize("kind", ["s32", "u32", "s64", "u64"])
def test_bit_fields(kind: str) -> None:
    bits = int(kind[1:])
    rng = np.random.default_rng(0)
    a = [signed(int.from_bytes(rng.bytes(8), "little"), bits) for _ in range(60)]
    a = [x if kind[0] == "s" else x % 2**bits for x in a]
    at, n = rng.integers(0, bits + 3, 60), rng.integers(0, bits + 3, 60)
    found = run_lines(
        f"bfe.{kind} %d, %a0, %a1, %a2;", kind, (kind, np.array(a, object)), ("u32", at), ("u32", n)
    )
    for x, p, length, y in zip(a, map(int, at), map(int, n), found):
        sign = x % 2**bits >> min(p + length - 1, bits - 1) & 1 if kind[0] == "s" and length else 0
        each = [x >> p + i & 1 if i < length and p + i < bits else sign for i in range(bits)]
        assert int(y) % 2**bits == sum(bit << i for i, bit in enumerate(each)), (x, p, length)
    b = rng.integers(0, 2**31, 60)
    into = run_lines(
        "bfi.b32 %d, %a0, %a1, %a2, %a3;",
        "u32",
        ("u32", b),
        ("u32", b[::-1]),
        ("u32", at),
        ("u32", n),
    )
    for f, x, p, length, y in zip(map(int, b), map(int, b[::-1]), map(int, at), map(int, n), into):
        mask = ((1 << length) - 1) << p & 0xFFFFFFFF
        assert int(y) == x & ~mask | (f << p) & mask


def test_bytes_and_pairs() -> None:
    a, b, c = [0x33221100, 0x80FF7F01], [0x77665544, 0x12345678], [0x7531, 0x8CA9]
    found = run_lines("prmt.b32 %d, %a0, %a1, %a2;", "u32", ("u32", a), ("u32", b), ("u32", c))
    assert [hex(x) for x in found] == ["0x77553311", "0xff0000"] or found[0] == 0x77553311
    word = run_lines(
        "mov.b64 {%w0, %w1}, %a0;\nmov.b64 %d, {%w1, %w0};", "u64", ("u64", [2**32 + 5])
    )
    assert int(word[0]) == (5 << 32) + 1
    shifted = run_lines("shf.l.wrap.b32 %d, %a0, %a1, 8;", "u32", ("u32", a), ("u32", b))
    assert int(shifted[0]) == 0x66554433
    chosen = run_lines(
        "lop3.b32 %d, %a0, %a1, %a2, 0xE8;", "u32", ("u32", a), ("u32", b), ("u32", c)
    )
    assert int(chosen[0]) == a[0] & b[0] | a[0] & c[0] | b[0] & c[0]
    assert list(
        run_lines(
            "dp4a.s32.s32 %d, %a0, %a1, 3;", "s32", ("u32", [0xFF020304]), ("u32", [0x01010102])
        )
    ) == [-1 + 2 + 3 + 8 + 3]


def test_sums_of_two_words() -> None:
    a, b = [2**64 - 1, 2**63, 5], [1, 2**63 + 7, 2**40]
    lines = """mov.b64 {%w0, %w1}, %a0;
mov.b64 {%w2, %w3}, %a1;
add.cc.u32 %w4, %w0, %w2;
addc.u32 %w5, %w1, %w3;
mov.b64 %d, {%w4, %w5};"""
    found = run_lines(lines, "u64", ("u64", np.array(a, object)), ("u64", np.array(b, object)))
    assert [int(x) for x in found] == [(x + y) % 2**64 for x, y in zip(a, b)]
    back = lines.replace("add.cc", "sub.cc").replace("addc", "subc")
    found = run_lines(back, "u64", ("u64", np.array(a, object)), ("u64", np.array(b, object)))
    assert [int(x) for x in found] == [(x - y) % 2**64 for x, y in zip(a, b)]


FLOATS = [
    0.0,
    -0.0,
    1.0,
    -1.5,
    1e-40,
    -3e38,
    1e38,
    math.inf,
    -math.inf,
    math.nan,
    0.1,
    16777217.0,
    2.0**-126,
]


def rounded(x: Fraction, mode: str) -> float:
    """float32 of an exact number that is in its range."""
    near = np.float32(float(x))
    around = [np.nextafter(near, np.float32(d)) for d in (-np.inf, np.inf)]
    below = [v for v in (near, *around) if Fraction(float(v)) <= x]
    above = [v for v in (near, *around) if Fraction(float(v)) >= x]
    low, high = max(below), min(above)
    if mode == "rm" or (mode == "rz" and x > 0):
        return float(low)
    if mode in ("rp", "rz"):
        return float(high)
    down, up = x - Fraction(float(low)), Fraction(float(high)) - x
    if down == up:
        return float(low if not low.view(np.uint32) & 1 else high)
    return float(low if down < up else high)


@pytest.mark.parametrize("mode", ["rn", "rz", "rm", "rp"])
def test_floats_are_rounded_once(mode: str) -> None:
    rng = np.random.default_rng(1)
    a, b, c = (
        (rng.normal(size=400) * 2.0 ** rng.integers(-30, 30, 400)).astype(np.float32)
        for _ in range(3)
    )
    c[:100] = -(a * b)[:100]  # what is left is the rounding of the product
    a[100:110], c[100:110] = 1, np.float32(2.0**-24)
    b[100:110] = 1
    f32 = [("f32", v) for v in (a, b, c)]
    exact = {
        f"add.{mode}.f32 %d, %a0, %a2;": lambda x, y, z: x + z,
        f"sub.{mode}.f32 %d, %a0, %a2;": lambda x, y, z: x - z,
        f"mul.{mode}.f32 %d, %a0, %a1;": lambda x, y, z: x * y,
        f"fma.{mode}.f32 %d, %a0, %a1, %a2;": lambda x, y, z: x * y + z,
        f"div.{mode}.f32 %d, %a0, %a1;": lambda x, y, z: x / y,
        f"rcp.{mode}.f32 %d, %a1;": lambda x, y, z: 1 / y,
    }
    for text, function in exact.items():
        found = run_lines(text, "f32", *f32)
        for got, x, y, z in zip(found, *[map(Fraction, map(float, v)) for v in (a, b, c)]):
            assert float(got) == rounded(function(x, y, z), mode), (text, x, y, z)


def test_fma_of_float64_is_rounded_once() -> None:
    rng = np.random.default_rng(2)
    a, b = rng.normal(size=200), rng.normal(size=200)
    c = -(a * b)
    found = run_lines("fma.rn.f64 %d, %a0, %a1, %a2;", "f64", ("f64", a), ("f64", b), ("f64", c))
    for got, x, y, z in zip(found, a, b, c):
        assert got == float(Fraction(x) * Fraction(y) + Fraction(z))


def test_least_and_greatest_of_floats() -> None:
    a, b = zip(*itertools.product(FLOATS, FLOATS))
    both = ("f32", np.array(a, np.float32)), ("f32", np.array(b, np.float32))
    low = run_lines("min.f32 %d, %a0, %a1;", "f32", *both)
    high = run_lines("max.f32 %d, %a0, %a1;", "f32", *both)
    strict = run_lines("min.NaN.f32 %d, %a0, %a1;", "f32", *both)
    for x, y, p, q, s in zip(*[v[1] for v in both], low, high, strict):
        if math.isnan(x) or math.isnan(y):
            other = y if math.isnan(x) else x
            assert all(v == other or math.isnan(other) for v in (p, q))
            assert math.isnan(s)
        elif x == y == 0:
            assert math.copysign(1, p) == min(math.copysign(1, x), math.copysign(1, y))
            assert math.copysign(1, q) == max(math.copysign(1, x), math.copysign(1, y))
        else:
            assert (p, q) == (min(x, y), max(x, y))


COMPARE = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}


@pytest.mark.parametrize("name", COMPARE)
def test_comparisons_with_nan(name: str) -> None:
    a, b = zip(*itertools.product(FLOATS, FLOATS))
    x, y = np.array(a, np.float32), np.array(b, np.float32)
    nan = np.isnan(x) | np.isnan(y)
    plain = eval(f"x {COMPARE[name]} y")
    both = ("f32", x), ("f32", y)
    ordered = run_lines(f"setp.{name}.f32 %d, %a0, %a1;", "pred", *both)
    either = run_lines(f"setp.{name}u.f32 %d, %a0, %a1;", "pred", *both)
    np.testing.assert_array_equal(ordered, plain & ~nan)
    np.testing.assert_array_equal(either, plain | nan)
    two = run_lines(f"setp.{name}.f32 %q1|%d, %a0, %a1;", "pred", *both)
    np.testing.assert_array_equal(two, ~(plain & ~nan))


def test_choices_and_guards() -> None:
    a, b = [5, -5, 0], [1, 2, 3]
    both = ("s32", a), ("s32", b)
    lines = "setp.gt.s32 %q1, %a0, 0;\nselp.s32 %d, %a0, %a1, %q1;"
    assert list(run_lines(lines, "s32", *both)) == [5, 2, 3]
    lines = "setp.gt.s32 %q1, %a0, 0;\nmov.u32 %d, 9;\n@!%q1 mov.u32 %d, %a1;"
    assert list(run_lines(lines, "s32", *both)) == [9, 2, 3]
    lines = "slct.s32.s32 %d, %a1, 77, %a0;"
    assert list(run_lines(lines, "s32", *both)) == [1, 77, 3]


def test_conversions_of_whole_numbers() -> None:
    values = np.array(SPECIAL[32], object)
    for kind, read in (("s32", lambda v: signed(v, 32)), ("u32", lambda v: v)):
        given = (kind, np.array([read(v) for v in values], object))
        assert [int(v) for v in run_lines(f"cvt.s64.{kind} %d, %a0;", "s64", given)] == [
            read(v) for v in values
        ]
        narrow = run_lines(f"cvt.s8.{kind} %d, %a0;", "s32", given)
        assert [int(v) for v in narrow] == [signed(read(v), 8) for v in values]
        clipped = run_lines(f"cvt.sat.u8.{kind} %d, %a0;", "u32", given)
        assert [int(v) for v in clipped] == [min(max(read(v), 0), 255) for v in values]
        near = run_lines(f"cvt.rn.f32.{kind} %d, %a0;", "f32", given)
        assert [float(v) for v in near] == [rounded(Fraction(read(v)), "rn") for v in values]
        down = run_lines(f"cvt.rm.f32.{kind} %d, %a0;", "f32", given)
        assert [float(v) for v in down] == [rounded(Fraction(read(v)), "rm") for v in values]


@pytest.mark.parametrize(
    ("mode", "round_"),
    [("rni", round), ("rzi", math.trunc), ("rmi", math.floor), ("rpi", math.ceil)],
)
def test_floats_to_whole_numbers(mode: str, round_: Callable[[float], int]) -> None:
    x = [0.5, 1.5, 2.5, -0.5, -1.5, 1e10, -1e10, 3e20, -3e20, math.inf, -math.inf, 2147483520.0]
    for kind, low, high in (
        ("s32", -(2**31), 2**31 - 1),
        ("u32", 0, 2**32 - 1),
        ("s64", -(2**63), 2**63 - 1),
    ):
        found = run_lines(f"cvt.{mode}.{kind}.f32 %d, %a0;", kind, ("f32", x))
        for value, got in zip(np.array(x, np.float32), found):
            want = (high if value > 0 else low) if math.isinf(value) else round_(float(value))
            assert int(got) == min(max(want, low), high), (mode, kind, value)
        assert int(run_lines(f"cvt.{mode}.{kind}.f32 %d, %a0;", kind, ("f32", [math.nan]))[0]) == 0


def test_narrow_floats() -> None:
    rng = np.random.default_rng(3)
    x = np.r_[rng.normal(size=300), FLOATS, 65504, 65520, 1 + 2.0**-11, 1 + 3 * 2.0**-11].astype(
        np.float32
    )
    half = run_lines("cvt.rn.f16.f32 %d, %a0;", "f16", ("f32", x))
    with np.errstate(over="ignore"):
        np.testing.assert_array_equal(half, x.astype(np.float16))
    brain = run_lines("cvt.rn.bf16.f32 %d, %a0;", "bf16", ("f32", x)).astype(np.uint32) << 16
    for value, got in zip(x, brain.view(np.float32)):
        bits = int(value.view(np.uint32))
        low, high = (
            np.array([b << 16], np.uint32).view(np.float32)[0]
            for b in (bits >> 16, (bits >> 16) + 1)
        )
        if math.isnan(value):
            assert math.isnan(got)
        elif math.isfinite(value) and math.isfinite(high):
            near = abs(float(value) - float(low)), abs(float(high) - float(value))
            even = low if not bits >> 16 & 1 else high
            assert got == (even if near[0] == near[1] else low if near[0] < near[1] else high)
    pair = run_lines("cvt.rn.f16x2.f32 %d, %a0, %a1;", "u32", ("f32", x), ("f32", x[::-1].copy()))
    np.testing.assert_array_equal((pair >> 16).astype(np.uint16), half.view(np.uint16))
    np.testing.assert_array_equal((pair & 0xFFFF).astype(np.uint16), half[::-1].view(np.uint16))
    tf32 = run_lines("cvt.rna.tf32.f32 %d, %a0;", "f32", ("f32", x))
    finite = np.isfinite(x)
    wide = x[finite].astype(np.float64)
    step = 2.0 ** (np.maximum(np.floor(np.log2(np.abs(np.where(wide, wide, 1)))), -126) - 10)
    assert (np.abs(tf32[finite] - wide) <= step / 2).all()
    assert not (tf32[finite].view(np.uint32) & 0x1FFF).any()
    assert tf32[-2] == np.float32(1 + 2.0**-10)  # a tie goes away from 0


def test_halves_are_rounded_once() -> None:
    rng = np.random.default_rng(4)
    a, b, c = (rng.normal(size=200).astype(np.float16) for _ in range(3))
    three = [("f16", v) for v in (a, b, c)]
    np.testing.assert_array_equal(run_lines("add.f16 %d, %a0, %a1;", "f16", *three), a + b)
    np.testing.assert_array_equal(run_lines("mul.rn.f16 %d, %a0, %a1;", "f16", *three), a * b)
    exact = a.astype(np.float64) * b + c
    np.testing.assert_array_equal(
        run_lines("fma.rn.f16 %d, %a0, %a1, %a2;", "f16", *three), exact.astype(np.float16)
    )
    packed = [(v.view(np.uint16).astype(np.uint32) << 16) | v[::-1].view(np.uint16) for v in (a, b)]
    found = run_lines("add.f16x2 %d, %a0, %a1;", "u32", *[("u32", v) for v in packed])
    np.testing.assert_array_equal((found >> 16).astype(np.uint16).view(np.float16), a + b)


def test_functions_are_within_the_bounds_of_the_isa() -> None:
    x = np.linspace(0.1, 7, 300).astype(np.float32)
    wide = x.astype(np.float64)
    for name, exact in (
        ("ex2.approx", np.exp2),
        ("lg2.approx", np.log2),
        ("sin.approx", np.sin),
        ("cos.approx", np.cos),
        ("tanh.approx", np.tanh),
        ("rsqrt.approx", lambda v: 1 / np.sqrt(v)),
        ("rcp.approx.ftz", lambda v: 1 / v),
        ("sqrt.rn", np.sqrt),
    ):
        found = run_lines(f"{name}.f32 %d, %a0;", "f32", ("f32", x))
        np.testing.assert_allclose(found, exact(wide), rtol=2e-7, atol=2e-7, err_msg=name)


def test_ftz_and_sat() -> None:
    x = [1e-40, -1e-40, 2.0, -3.0, math.nan]
    flushed = run_lines("add.ftz.f32 %d, %a0, %a0;", "f32", ("f32", x))
    assert [float(v) for v in flushed[:4]] == [0.0, 0.0, 4.0, -6.0]
    assert math.copysign(1, flushed[1]) == -1
    clamped = run_lines("add.sat.f32 %d, %a0, 0f00000000;", "f32", ("f32", x))
    assert [float(v) for v in clamped[2:]] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("mode", ["up", "down", "bfly", "idx"])
@pytest.mark.parametrize("width", [32, 8])
def test_shuffles(mode: str, width: int) -> None:
    x = np.arange(64) * 10
    for by in (0, 1, 3, 9):
        control = (32 - width) << 8 | (0 if mode == "up" else 31)
        text = f"shfl.sync.{mode}.b32 %d|%q1, %a0, {by}, {control}, 0xffffffff;"
        found = run_lines(text, "u32", ("u32", x))
        for lane in range(64):
            first = lane // width * width
            others = {"up": lane - by, "down": lane + by, "bfly": lane ^ by}
            other = others.get(mode, first + by % width)
            inside = other < first + width and (mode != "up" or other >= first)
            assert found[lane] == x[other if inside else lane], (mode, width, by, lane)


def test_votes() -> None:
    x = np.arange(64) % 7
    text = "setp.eq.s32 %q1, %a0, 3;\nvote.sync.{}.{} %d, %q1, -1;"
    ballot = run_lines(text.format("ballot", "b32"), "u32", ("s32", x))
    bits = [sum(1 << i for i in range(32) if x[w * 32 + i] == 3) for w in (0, 1)]
    assert [int(v) for v in ballot[[0, 40]]] == bits
    assert run_lines(text.format("any", "pred"), "pred", ("s32", x)).all()
    assert not run_lines(text.format("all", "pred"), "pred", ("s32", x)).any()
    total = run_lines("redux.sync.add.s32 %d, %a0, -1;", "s32", ("s32", x))
    assert [int(v) for v in total[[0, 63]]] == [int(x[:32].sum()), int(x[32:].sum())]
    same = run_lines("match.any.sync.b32 %d, %a0, -1;", "u32", ("u32", x))
    assert int(same[3]) == bits[0]


# Shape, types of D, A, B; after the figures of "Matrix Fragments for mma.m16n8k16" and its kin.
PRODUCTS = [
    ("m16n8k16", "f32", "f16", "f16"),
    ("m16n8k8", "f32", "f16", "f16"),
    ("m16n8k16", "f32", "bf16", "bf16"),
    ("m16n8k8", "f32", "tf32", "tf32"),
    ("m16n8k4", "f32", "tf32", "tf32"),
    ("m16n8k16", "f16", "f16", "f16"),
    ("m16n8k32", "s32", "s8", "u8"),
    ("m16n8k16", "s32", "u8", "s8"),
    ("m8n8k4", "f64", "f64", "f64"),
    ("m16n8k8", "f64", "f64", "f64"),
]


def as_registers(x: np.ndarray, kind: str) -> list[np.ndarray]:
    """(32, elements of a lane) to registers: as many elements in each as 32 bits hold, or one."""
    if kind == "bf16":
        raw = (np.ascontiguousarray(x, np.float32).view(np.uint32) >> 16).astype(np.uint16)
    else:
        names = {"tf32": "f4", "s8": "i1", "u8": "u1", "s32": "i4"}
        raw = np.ascontiguousarray(x, names.get(kind) or f"f{int(kind[1:]) // 8}")
    word = np.uint64 if kind == "f64" else np.uint32
    words = np.ascontiguousarray(raw).view(word)
    return [np.ascontiguousarray(words[:, i]) for i in range(words.shape[1])]


@pytest.mark.parametrize(("shape", "total", "left", "right"), PRODUCTS)
def test_products_of_a_warp(shape: str, total: str, left: str, right: str) -> None:
    m, n, k = (int(v) for v in shape[1:].replace("n", " ").replace("k", " ").split())
    rng = np.random.default_rng(5)
    a = rng.integers(0 if left == "u8" else -9, 10, (m, k))
    b = rng.integers(0 if right == "u8" else -9, 10, (k, n))
    c = rng.integers(-9, 10, (m, n))
    each = {"f16": 2, "bf16": 2, "s8": 4, "u8": 4}.get(left, 1)
    parts: list[list[list[int]]] = [[], [], []]
    for lane in range(32):
        g, t = divmod(lane, 4)
        run = [(j, e) for j in range(k // (4 * each)) for e in range(each)]
        rows = [g, g + 8][: m // 8]
        parts[0].append(
            [
                a[r, t * each + e + 4 * each * j]
                for j in range(k // (4 * each))
                for r in rows
                for e in range(each)
            ]
        )
        parts[1].append([b[t * each + e + 4 * each * j, g] for j, e in run])
        parts[2].append([c[r, 2 * t + e] for r in rows for e in range(2)])
    kinds = (left, right, total)
    given = [as_registers(np.array(p), kind) for p, kind in zip(parts, kinds)]
    width = "u64" if left == "f64" else "u32"
    count, names = 0, []
    for side in given:
        names.append("{" + ", ".join(f"%a{count + i}" for i in range(len(side))) + "}")
        count += len(side)
    registers = ["%l" if width == "u64" else "%w"]
    results = [f"{registers[0]}{4 + i}" for i in range(len(given[2]))]
    text = f"mma.sync.aligned.{shape}.row.col.{total}.{left}.{right}.{total} "
    text += ", ".join(["{" + ", ".join(results) + "}", *names]) + ";"
    operands = [(width, x) for side in given for x in side]
    found = [run_lines(f"{text}\nmov.b{width[1:]} %d, {r};", width, *operands) for r in results]
    expected = np.array(
        [
            [(a @ b + c)[r, 2 * t + e] for r in [g, g + 8][: m // 8] for e in range(2)]
            for g in range(8)
            for t in range(4)
        ]
    )
    for got, want in zip(found, as_registers(expected, total), strict=True):
        np.testing.assert_array_equal(got, want)


def test_an_unknown_instruction_is_named() -> None:
    with pytest.raises(UnknownInstructionError, match=r"'tcgen05\.alloc %d, %a0'"):
        run_lines("tcgen05.alloc %d, %a0;", "u32", ("u32", [1]))
    with pytest.raises(UnknownInstructionError, match=r"cvt\.rn\.satfinite\.e4m3x2"):
        run_lines("cvt.rn.satfinite.e4m3x2.f32 %d, %a0, %a0;", "u16", ("f32", [1]))


def test_what_is_compared_is_told_apart() -> None:
    """The check itself: a wrong expectation fails."""
    with pytest.raises(AssertionError, match="add"):
        check("add.u32 %d, %a0, %a1;", "u32", "u32", lambda a, b: a - b)


def wrong_operand() -> Any:
    return run_lines("add.u32 %d, %a0, nonsense;", "u32", ("u32", [1]))


def test_an_operand_that_is_none() -> None:
    with pytest.raises(UnknownInstructionError, match="nonsense"):
        wrong_operand()
