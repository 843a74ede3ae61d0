"""Pools: what PyTorch settles at ties, NaN, ends and empty sums; second order; direct kernels."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest
from registered import BACKENDS
from tolerances import GRADIENT_STEP, assert_close, assert_gradient, assert_same

import gpubp as gp
from gpubp import nn, ops
from gpubp.backends.numba_cpu import NumbaBackend, disassemble
from gpubp.backends.numba_cpu.encode import encoded_parts
from gpubp.backends.numba_cpu.kernels import lanes, pool_runs
from gpubp.backends.numba_cpu.kernels.language import types
from gpubp.backends.numba_cpu.kernels.pool import make_pools
from gpubp.backends.numba_cpu.native_call import native_call
from gpubp.core import bind, evaluate
from gpubp.errors import ArgumentError, CheckpointError, IndexRangeError, ShapeError
from gpubp.ops.pool import MAX_POOL_GRAD
from gpubp.ops.pooling import window_of
from gpubp.ops.spec import SPECS
from gpubp.train import architecture

RNG = np.random.default_rng(5)
NAN = float("nan")


def line(*numbers: float, dtype: str = "float64") -> Any:
    """One image of one channel."""
    return np.array(numbers, dtype).reshape(1, 1, -1)


def slope(fn: Any, x: Any, backend: str) -> Any:
    return gp.compile(gp.grad(lambda x: ops.sum(fn(x))), backend=backend)(x)


def test_what_lies_beyond_the_padding_does_not_count() -> None:
    y = ops.avg_pool1d(line(1, 1, 1, 1), 3, 2, 1, ceil_mode=True)
    np.testing.assert_allclose(y.ravel(), [2 / 3, 1, 1 / 2], rtol=1e-15)
    y = ops.avg_pool1d(line(1, 1, 1, 1), 3, 2, 1, ceil_mode=True, count_include_pad=False)
    assert_same(y.ravel(), np.ones(3))


@pytest.mark.parametrize("backend", BACKENDS)
def test_the_first_of_equal_ones_wins_and_of_nan_the_last(backend: str) -> None:
    for numbers, best in (
        ((2, 2, 1), 0),
        ((1, 2, 2), 1),
        ((NAN, 5, NAN), 2),
        ((NAN, 5, 6), 0),
        ((-np.inf,) * 3, 0),
    ):
        x = line(*numbers)
        pool = gp.compile(lambda x: ops.max_pool1d(x, 3, return_indices=True), backend=backend)
        y, index = pool(x)
        assert_same(y.ravel(), x[0, 0, best : best + 1])
        assert_same(index.ravel(), np.array([best]))
        expected = np.zeros(3)
        expected[best] = 1.0
        assert_same(slope(lambda x: ops.max_pool1d(x, 3), x, backend).ravel(), expected)


@pytest.mark.parametrize("backend", BACKENDS)
def test_gradients_of_windows_that_share_an_element_add_up(backend: str) -> None:
    x = line(0, 3, 1, 2, 0)
    found = slope(lambda x: ops.max_pool1d(x, 3, 1), x, backend)
    assert_same(found.ravel(), np.array([0.0, 2.0, 0.0, 1.0, 0.0]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_power_averages_at_nothing_and_below(backend: str) -> None:
    zeros = np.zeros((1, 1, 4))
    assert_same(slope(lambda x: ops.lp_pool1d(x, 2, 2), zeros, backend), zeros)
    with np.errstate(all="ignore"):
        odd = gp.compile(lambda x: ops.lp_pool1d(x, 3.0, 2), backend=backend)(line(-1, -1, 1, 1))
    assert np.isnan(odd[0, 0, 0])
    np.testing.assert_allclose(odd[0, 0, 1], 2.0 ** (1 / 3), rtol=1e-14)
    largest = gp.compile(lambda x: ops.lp_pool1d(x, float("inf"), 2), backend=backend)
    assert_same(largest(line(-3, 1, 2, 2)).ravel(), np.array([3.0, 2.0]))


@pytest.mark.parametrize("backend", BACKENDS)
def test_unpooling_puts_each_value_where_it_was(backend: str) -> None:
    x = RNG.standard_normal((2, 3, 5, 7)).astype(np.float32)

    def there_and_back(x: Any) -> Any:
        y, index = ops.max_pool2d(x, 2, 2, return_indices=True)
        return ops.max_unpool2d(y, index, 2, 2, output_size=(5, 7))

    found = gp.compile(there_and_back, backend=backend)(x)
    kept = found != 0
    assert kept.sum() == 2 * 3 * 2 * 3
    assert_same(found[kept], x[kept])
    # Overlapping windows find an element more than once; it is not added up.
    y, index = ops.max_pool1d(line(1, 9, 2, 3), 3, 1, return_indices=True)
    assert_same(ops.max_unpool1d(y, index, 3, 1).ravel(), np.array([0.0, 9.0, 0.0, 0.0]))
    pulled = slope(lambda y: ops.max_unpool1d(y, index, 3, 1) * 2.0, y, backend)
    assert_same(pulled.ravel(), np.array([2.0, 2.0]))


SECOND_ORDER = {
    "max": lambda x: ops.max_pool2d(x, 2, 1),
    "average": lambda x: ops.avg_pool2d(x, 3, 2, 1, True, False),
    "adaptive average": lambda x: ops.adaptive_avg_pool2d(x, (2, 3)),
    "adaptive max": lambda x: ops.adaptive_max_pool2d(x, (3, 2)),
    "power": lambda x: ops.lp_pool2d(x * x + 0.5, 1.5, 2),
    "fractional": lambda x: ops.fractional_max_pool2d(x, 2, 3, _random_samples=SAMPLES),
    "unpooled": lambda x: ops.max_unpool2d(ops.max_pool2d(x, 2), CORNERS, 2),
}
SAMPLES = RNG.random((1, 2, 2))
CORNERS = np.array([[[0, 2], [8, 10]], [[3, 6], [9, 15]]]).reshape(1, 2, 2, 2)


@pytest.mark.parametrize("name", SECOND_ORDER)
def test_gradients_can_be_differentiated(name: str) -> None:
    """The gradient of a cubic of the pool, against central differences, compiled."""
    x, weight = RNG.standard_normal((2, 1, 2, 4, 5))
    pool = SECOND_ORDER[name]

    def pulled(x: Any) -> Any:
        return gp.grad(lambda x: ops.sum(pool(x) * pool(x) * pool(x)))(x)

    found = gp.compile(gp.grad(lambda x: ops.sum(pulled(x) * weight)), backend="numba")(x)
    numeric = np.zeros_like(x)
    for at in np.ndindex(x.shape):
        ends = []
        for sign in (1.0, -1.0):
            moved = x.copy()
            moved[at] += sign * GRADIENT_STEP
            ends.append(np.sum(np.asarray(pulled(moved)) * weight))
        numeric[at] = (ends[0] - ends[1]) / (2.0 * GRADIENT_STEP)
    assert_gradient(found, numeric, name)


@pytest.mark.parametrize("backend", BACKENDS)
def test_one_image_alone_gives_what_it_gives_in_a_batch(backend: str) -> None:
    x = RNG.standard_normal((3, 6, 7)).astype(np.float32)
    for fn in (
        lambda x: ops.max_pool2d(x, 2, return_indices=True),
        lambda x: (ops.avg_pool2d(x, 3, 2, 1),),
        lambda x: (ops.lp_pool2d(abs(x), 2.0, 2),),
        lambda x: (ops.adaptive_avg_pool2d(x, (None, 3)),),
        lambda x: ops.adaptive_max_pool2d(x, (4, 3), True),
    ):
        run = gp.compile(fn, backend=backend)
        for alone, batch in zip(run(x), run(x[None]), strict=True):
            assert_same(alone, batch[0])


FOLLOWED = {
    "max": lambda x: ops.relu(ops.max_pool2d(x, 2)) * 3.0,
    "max, kept": lambda x: (lambda y: (y, ops.tanh(y)))(ops.max_pool2d(x, 3, 2, 1)),
    "average": lambda x: ops.tanh(ops.avg_pool2d(x, 3, 2, 1)),
    "of a maximum": lambda x: gp.grad(lambda x: ops.sum(ops.max_pool2d(ops.relu(x), 2) ** 2))(x),
    "of maxima": lambda x: gp.grad(lambda x: ops.sum(ops.max_pool2d(ops.relu(x), 3, 2) ** 2))(x),
    "of averages": lambda x: gp.grad(lambda x: ops.sum(ops.avg_pool2d(ops.relu(x), 2) ** 2))(x),
}


@pytest.mark.parametrize("workers", [1, 3])
@pytest.mark.parametrize("name", FOLLOWED)
def test_what_follows_a_pool_is_in_its_pass(name: str, workers: int) -> None:
    for channels in (1, 6, 19):
        x = RNG.standard_normal((5, channels, 9, 8))
        compiled = gp.compile(FOLLOWED[name], backend=NumbaBackend(workers=workers))
        plain = gp.compile(FOLLOWED[name], backend="numpy", options=gp.Options(fuse=False))
        found, expected = compiled(x), plain(x)
        pairs = zip(found, expected) if isinstance(found, tuple) else [(found, expected)]
        for a, b in pairs:
            assert_close(a, b, name)
        lines = compiled.explain(x, after="fuse").splitlines()
        assert any("_pool" in line and line.count("+") for line in lines), lines


def test_random_windows_follow_the_seed_and_cover_the_ends() -> None:
    x = RNG.standard_normal((2, 3, 9, 8))
    layer = nn.FractionalMaxPool2d(2, output_ratio=(0.5, 0.7), return_indices=True)
    run = gp.compile(layer, backend="numba")
    gp.manual_seed(1)
    first, second = run(x), run(x)
    gp.manual_seed(1)
    again = run(x)
    assert first[0].shape == (2, 3, 4, 5)
    for a, b in zip(first, again, strict=True):
        assert_same(a, b)
    assert (first[1] != second[1]).any()
    flat = x.reshape(2, 3, -1)
    assert_same(
        np.take_along_axis(flat, first[1].reshape(2, 3, -1), 2).reshape(2, 3, 4, 5), first[0]
    )


def test_what_cannot_be_is_refused() -> None:
    x = np.zeros((2, 3, 5, 5))
    for make in (
        lambda: ops.max_pool2d(x, 3, padding=2),
        lambda: ops.avg_pool2d(x, (3, 3, 3)),
        lambda: ops.avg_pool2d(x, 2, divisor_override=0),
        lambda: ops.max_pool2d(x, 2, stride=0),
        lambda: ops.lp_pool2d(x, 0, 2),
        lambda: ops.fractional_max_pool2d(x, 2),
        lambda: ops.fractional_max_pool2d(x, 2, 3, 0.5),
        lambda: ops.fractional_max_pool2d(x, 2, output_ratio=1.5),
        lambda: ops.adaptive_avg_pool2d(x, (1, 2, 3)),
        lambda: ops.max_unpool2d(x, np.zeros(x.shape, int), 2, output_size=(30, 10)),
        lambda: nn.MaxPool2d((2, 2, 2)),
        lambda: nn.LPPool2d(0, 2),
        lambda: nn.AvgPool3d(2, divisor_override=0),
        lambda: nn.FractionalMaxPool2d(2),
        lambda: nn.AdaptiveMaxPool1d(-1),
    ):
        with pytest.raises(ArgumentError):
            make()
    for wrong in (
        lambda: ops.max_pool2d(np.zeros((5, 5)), 2),
        lambda: ops.max_pool2d(x, 6),
        lambda: ops.max_pool2d(x, 2, dilation=5),
        lambda: ops.adaptive_max_pool2d(x, (0, 1)),
        lambda: ops.fractional_max_pool2d(x, 3, 4),
        lambda: ops.max_unpool2d(x, np.zeros((2, 3, 4, 4), int), 2),
    ):
        with pytest.raises(ShapeError):
            wrong()
    with pytest.raises(IndexRangeError, match="100"):
        ops.max_unpool2d(x, np.full(x.shape, 100), 2)


def test_a_window_outside_of_the_image_is_refused() -> None:
    with pytest.raises(ShapeError, match="outside"):
        bind(
            SPECS["max_pool"],
            np.zeros((1, 1, 1)),
            kernel=(2,),
            stride=(1,),
            padding=((2, 2),),
            dilation=(3,),
        )


def test_random_samples_that_are_kept_are_no_part_of_a_file() -> None:
    layer = nn.FractionalMaxPool2d(2, 3, _random_samples=np.zeros((1, 2, 2)))
    assert list(layer.state_dict()) == ["_random_samples"]
    with pytest.raises(CheckpointError, match="_random_samples"):
        architecture.describe(layer)


def test_averages_of_all_and_of_even_parts_need_no_product() -> None:
    x = np.zeros((2, 3, 6, 6), np.float32)
    for size in (1, 2, 3, (6, 2)):
        listed = gp.compile(lambda x, s=size: ops.adaptive_avg_pool2d(x, s), backend="numpy")
        assert "matmul" not in listed.explain(x, after="fuse")


def test_the_words_of_a_pool_are_listed() -> None:
    pool = gp.compile(lambda x: ops.max_pool2d(x, 3, 2, 1), backend="numba")
    pool(np.zeros((2, 3, 9, 9), np.float32))
    text = disassemble.listing(pool._runner.last.program)
    assert "kernel_h=3 kernel_w=3" in text
    assert "max_pool_float32" in text


def run_directly(call: Any, program: Any, words: list[int], x: Any, g: Any) -> Any:
    """The gradient that a kernel makes of two images; behind it nothing is written."""
    out = np.full(x.size + 64, 7.0, np.float32)
    arrays = {"input0": x, "input1": g, "output0": out}
    order = [arrays[f"{b.kind}{b.position}"].ctypes.data for b in program.buffers]
    code, bases = np.array(words, np.int64), np.array(order, np.int64)
    call(code.ctypes.data, bases.ctypes.data, 0, 2, 0, 0)
    assert (out[x.size :] == 7.0).all()
    return out[: x.size].reshape(x.shape)


@pytest.mark.parametrize("masked", [True, False])
def test_masked_stores_and_whole_ones_give_the_same_bits(
    masked: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each CPU has one of the two; both are tried on this one."""
    for module in (lanes, pool_runs):
        monkeypatch.setattr(module, "has_masked_stores", lambda: masked)
    made: dict[str, Any] = {}
    for channels, (kernel, stride) in itertools.product(
        (1, 3, 6, 8, 13), ((2, 2), (3, 3), (2, 3), (3, 2))
    ):
        window, _ = window_of("pool", (7, 9), kernel, stride, kernel // 3, 1, True)
        x = RNG.integers(-3, 3, (2, 7, 9, channels)).astype(np.float32)
        top = evaluate(SPECS["max_pool"], [x], window)
        g = RNG.standard_normal(top.shape).astype(np.float32)
        op = partial(bind, MAX_POOL_GRAD, **window)
        compiled = gp.compile(op, backend=NumbaBackend(workers=1))
        expected = compiled(x, g)
        program = compiled._runner.last.program
        (part,) = [p for p in encoded_parts(program) if p is not None]
        name = part.kernel.removesuffix("_float32")
        if name not in made:
            made[name] = native_call(getattr(make_pools(types.float32), name))
        found = run_directly(made[name], program, part.words, x, g)
        assert_same(found, expected, f"{window} over {channels}")
    assert len(made) == 2
