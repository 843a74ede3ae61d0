"""Padding, sizes, grids and responses: what they refuse, and values by formulas of their own."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from registered import BACKENDS, made
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops
from gpubp.errors import ArgumentError, DataError, DTypeError, GpubpError, ShapeError

RNG = np.random.default_rng(5)
IMAGES = RNG.standard_normal((2, 4, 5, 6))


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: ops.pad(IMAGES, (6, 0), "reflect"), ShapeError, "4"),
        (lambda: ops.pad(IMAGES[0], (6, 0, 0, 0), "reflect"), ShapeError, "smaller than the axis"),
        (lambda: ops.pad(IMAGES[0], (7, 0, 0, 0), "circular"), ShapeError, "more than once"),
        (lambda: ops.pad(IMAGES[0], (0, 0, -3, -3)), ShapeError, "takes more than"),
        (lambda: ops.pad(IMAGES, (1,)), ArgumentError, "two for each"),
        (lambda: ops.pad(IMAGES, (1.5, 1)), ArgumentError, "whole numbers"),
        (lambda: ops.pad(IMAGES, (1, 1), "mirror"), ArgumentError, "expected one of"),
        (lambda: ops.pad(IMAGES, (1, 1), value="a"), ArgumentError, "expected a number"),
        (lambda: ops.pad(IMAGES[0], (1, 1, 1, 1), "reflect", 3.0), DataError, "no value"),
        (lambda: ops.pad(np.arange(3), (1, 1), value=1e30), DataError, "does not fit"),
        (lambda: ops.interpolate(IMAGES, 3, 2.0), ArgumentError, "one of size"),
        (lambda: ops.interpolate(IMAGES), ArgumentError, "one of size"),
        (lambda: ops.interpolate(IMAGES, (3,)), ArgumentError, "2 axes"),
        (lambda: ops.interpolate(IMAGES, 3, mode="linear"), ShapeError, "1 axes"),
        (lambda: ops.interpolate(IMAGES, 3, mode="area", align_corners=True), ArgumentError, "no"),
        (lambda: ops.interpolate(IMAGES, 3, antialias=True), ArgumentError, "antialias"),
        (lambda: ops.interpolate(IMAGES, scale_factor=0.1), DataError, "nothing"),
        (lambda: ops.interpolate(IMAGES, scale_factor=-1.0), ArgumentError, "positive"),
        (lambda: ops.interpolate(np.ones((1, 1, 3, 3), int), 5, mode="area"), DTypeError, "floats"),
        (lambda: ops.resize(IMAGES, (1, 2, 3, 4), mode="cubist"), ArgumentError, "cubic"),
        (lambda: ops.resize(IMAGES, (1, 2)), ArgumentError, "4 numbers"),
        (lambda: ops.pixel_shuffle(IMAGES, 3), ShapeError, "divisible by 9"),
        (lambda: ops.pixel_unshuffle(IMAGES, 5), ShapeError, "divisible by 5"),
        (lambda: ops.channel_shuffle(IMAGES, 3), ShapeError, "divisible by 3"),
        (lambda: ops.channel_shuffle(IMAGES, 0), ArgumentError, "at least 1"),
        (lambda: ops.unfold(IMAGES, 7), ShapeError, "does not fit"),
        (lambda: ops.fold(IMAGES[0], (5, 6), 2), ShapeError, r"C \* 4, 20"),
        (lambda: ops.grid_sample(IMAGES, IMAGES), ShapeError, "grid"),
        (lambda: ops.affine_grid(np.ones((2, 2, 3)), (2, 1, 0, 3)), ArgumentError, "at least 1"),
        (lambda: ops.affine_grid(np.ones((1, 2, 3)), (2, 1, 3, 3)), ShapeError, "theta"),
        (lambda: ops.local_response_norm(IMAGES, 0), ArgumentError, "at least 1"),
        (lambda: ops.deform_conv2d(IMAGES, IMAGES, IMAGES), ShapeError, "deform_conv2d"),
        (lambda: nn.ReflectionPad2d((1, 2)), ArgumentError, "4 of them"),
        (lambda: nn.ReflectionPad1d(1)(IMAGES), ShapeError, r"\(N, C, W\)"),
        (lambda: nn.Softmax2d()(IMAGES[0, 0]), ShapeError, "Softmax2d"),
        (lambda: nn.Upsample(scale_factor="a"), ArgumentError, "scale_factor"),
    ],
)
def test_what_cannot_be_is_refused(call: Any, error: type[GpubpError], says: str) -> None:
    with pytest.raises(error, match=says):
        call()


def test_whole_numbers_and_booleans_are_padded_as_they_are() -> None:
    for dtype in ("int32", "int64", "bool", "float32"):
        x = np.ones((1, 3), dtype)
        for value in (0, 2, 1.7, -0.0):
            expected = np.full((1, 5), value).astype(dtype)
            expected[:, 1:4] = 1
            for backend in ("numpy", "numba"):
                run = gp.compile(lambda a, v=value: ops.pad(a, (1, 1), value=v), backend=backend)
                assert_same(run(x), expected, f"{dtype} {value} {backend}")
    negative = ops.pad(np.ones(1), (1, 0), value=-0.0)
    assert np.signbit(negative[0])


def test_a_padded_number_of_python_takes_the_dtype_that_it_meets() -> None:
    for dtype in ("float32", "float64"):
        x = np.ones((2, 2), dtype)
        run = gp.compile(
            lambda a: ops.pad(ops.where(a > 0, 0.1, 0.2), (1, 0), value=3.3)[:, :2] * a,
            backend="numpy",
        )
        expected = np.array([[3.3, 0.1]] * 2, dtype)
        assert_same(run(x), expected)


def test_padding_has_no_part_in_what_is_beside_it() -> None:
    """Neither NaN nor infinity of the images meets the zeros, and the other way round."""
    x = np.array([[np.nan, np.inf]])
    assert_same(ops.pad(x, (1, 1)), np.array([[0.0, np.nan, np.inf, 0.0]]))
    assert_same(ops.pad(np.ones((1, 1)), (1, 0), value=np.nan), np.array([[np.nan, 1.0]]))


def test_cross_map_norm_is_its_formula() -> None:
    for size in (1, 2, 3, 4, 5, 9):
        layer = nn.CrossMapLRN2d(size, 0.7, 0.6, 1.5)
        reach = (size - 1) // 2
        expected = np.empty_like(IMAGES)
        for c in range(4):
            window = IMAGES[:, max(c - reach, 0) : c + reach + 1]
            total = (window**2).sum(1)
            expected[:, c] = IMAGES[:, c] * (1.5 + 0.7 / size * total) ** -0.6
        assert_close(layer(IMAGES), expected)


def test_responses_of_an_even_size_take_one_more_channel_before() -> None:
    x = np.array([1.0, 2.0, 4.0, 8.0]).reshape(1, 4, 1)
    found = ops.local_response_norm(x, 2, alpha=2.0, beta=1.0, k=0.0)
    assert_close(found.ravel(), np.array([1.0, 2.0, 4.0, 8.0]) / [1.0, 5.0, 20.0, 80.0])


def test_deformable_taps_without_offsets_are_a_convolution() -> None:
    weight, bias = RNG.standard_normal((6, 2, 3, 3)), RNG.standard_normal(6)
    geometry = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2)}
    expected = ops.conv2d(IMAGES, weight, bias, **geometry, groups=2)
    offset = np.zeros((2, 2 * 9, *expected.shape[2:]))
    found = ops.deform_conv2d(IMAGES, offset, weight, bias, **geometry)
    assert_close(found, expected)
    half = np.full((2, 9, *expected.shape[2:]), 0.5)
    found = ops.deform_conv2d(IMAGES, offset, weight, None, **geometry, mask=half)
    assert_close(found, (expected - bias[:, None, None]) * 0.5)
    # One pixel down is what the images hold one pixel further down.
    moved = offset.copy()
    moved[:, ::2] = 1.0
    lower = np.concatenate([IMAGES[:, :, 1:], np.zeros((2, 4, 1, 6))], 2)
    plain = {"padding": (0, 1)}
    offset, moved = offset[:, :, :1, :6], np.tile(moved[:, :, :1, :1], (1, 1, 3, 6))
    found = ops.deform_conv2d(IMAGES, moved, weight, bias, **plain)
    assert_close(found, ops.conv2d(lower, weight, bias, **plain, groups=2))


def test_the_middle_is_cropped_or_padded() -> None:
    x = np.arange(1.0, 6.0)
    assert_same(ops.center_crop_pad(x, (2,)), x[1:3])
    assert_same(ops.center_crop_pad(x, (8,)), np.array([0.0, 1, 2, 3, 4, 5, 0, 0]))
    found = ops.center_crop_pad(IMAGES, (7, 3), axes=(-1, 1))
    assert_same(found, np.pad(IMAGES[:, :3], ((0, 0), (0, 0), (0, 0), (0, 1))))


def test_ratios_are_kept_by_one_scale() -> None:
    x = np.ones((4, 6))
    for policy, shape in (("stretch", (8, 3)), ("not_larger", (2, 3)), ("not_smaller", (8, 12))):
        assert ops.resize(x, (8, 3), keep_aspect_ratio_policy=policy).shape == shape


def test_long_axes_are_resampled_by_taps_as_short_ones_by_a_matrix() -> None:
    """Both ways in the same numbers: a long axis, and the same of which parts stand alone."""
    x = RNG.standard_normal((2, 1, 300))
    for mode in ("linear", "cubic"):
        whole = ops.resize(x, axes=(2,), scales=(1.5,), mode=mode)
        parts = ops.resize(x[..., :40], axes=(2,), scales=(1.5,), mode=mode)
        assert_close(whole[..., :50], parts[..., :50])


PROGRAMS = {
    "pad": lambda x: ops.pad(x, (1, 2, -1, 3), value=0.5),
    "reflect": lambda x: ops.pad(x, (1, 2, 3, 0), "reflect"),
    "circular": lambda x: ops.pad(x, (1, 2, 3, 0), "circular"),
    "bilinear": lambda x: ops.interpolate(x, (3, 11), mode="bilinear"),
    "bicubic": lambda x: ops.interpolate(x, scale_factor=1.7, mode="bicubic"),
    "nearest": lambda x: ops.interpolate(x, scale_factor=1.7),
    "area": lambda x: ops.interpolate(x, (2, 4), mode="area"),
    "shuffles": lambda x: ops.channel_shuffle(ops.pixel_shuffle(x, 2), 1),
    "columns": lambda x: ops.fold(ops.unfold(x, (2, 3), 1, 1, 2), (5, 6), (2, 3), 1, 1, 2),
    "responses": lambda x: ops.local_response_norm(x, 3, 0.5),
    "grid": lambda x: ops.grid_sample(x, ops.affine_grid(_THETA.astype(x.dtype), x.shape)),
}
_THETA = np.array([[[0.8, 0.3, 0.1], [-0.2, 1.1, -0.3]], [[1.2, 0.0, 0.0], [0.0, 0.7, 0.4]]])


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", list(PROGRAMS))
def test_programs_and_gradients_agree_on_every_backend(name: str, backend: Any) -> None:
    for dtype in ("float32", "float64"):
        x = IMAGES.astype(dtype)
        run = PROGRAMS[name]
        assert_close(gp.compile(run, backend=backend)(x), run(x), f"{name} {dtype}")

        def loss(a: Any, run: Any = run) -> Any:
            return ops.sum(ops.square(run(a)))

        both = [gp.compile(gp.grad(loss), backend=b)(x) for b in (backend, "numpy")]
        assert_close(*both, f"{name} {dtype}: gradient")


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_any_number_of_workers_gives_the_same_bits(name: str) -> None:
    """Images of as many rows as there are workers, fewer, and more."""
    run = PROGRAMS[name]

    def both(x: Any) -> Any:
        return run(x), gp.grad(lambda a: ops.sum(ops.square(run(a))))(x)

    for count in (2, 6) if name != "grid" else (2,):
        x = RNG.standard_normal((count, 4, 5, 6))
        expected = gp.compile(both, backend=made("numba", 1))(x)
        for workers in (2, 3):
            found = gp.compile(both, backend=made("numba", workers))(x)
            for a, b in zip(found, expected, strict=True):
                assert_same(a, b, f"{name} {workers}")


@pytest.mark.parametrize("backend", BACKENDS)
def test_what_is_put_among_zeros_lies_where_it_belongs(backend: str) -> None:
    """Gradients of slices: every sign of step, runs of whole rows, of parts of rows, of nothing."""
    x = RNG.standard_normal((4, 3, 6))
    keys: list[Any] = [
        (slice(None), slice(1, 3)),
        (slice(1, 3),),
        (slice(None, None, -2), slice(None), slice(4, 1, -1)),
        (slice(None), slice(None), slice(2, 5)),
        (slice(None), slice(0, 0)),
        (slice(3, 3),),
        (2, slice(None), slice(None, None, 3)),
    ]
    for key in keys:
        expected = np.zeros_like(x)
        expected[key] = 2.0 * x[key]
        run = gp.compile(gp.grad(lambda a, k=key: ops.sum(ops.square(a[k]))), backend=backend)
        assert_same(run(x), expected, str(key))


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_padding_between_convolutions(mode: str) -> None:
    """Images stay channels last between them; values and gradients are those of the references."""
    first, second = RNG.standard_normal((3, 4, 3, 3)), RNG.standard_normal((2, 3, 2, 3))

    def loss(x: Any, a: Any, b: Any) -> Any:
        y = ops.relu(ops.conv2d(ops.pad(x, (2, 1, 0, 1), mode), a))
        y = ops.interpolate(ops.pad(y, (1, 1, 1, 0), mode), scale_factor=2.0)
        return ops.sum(ops.square(ops.conv2d(y, b, stride=2)))

    grad = gp.grad(loss, argnums=(0, 1, 2))
    found, expected = (
        gp.compile(grad, backend=b)(IMAGES, first, second) for b in ("numba", "numpy")
    )
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, mode)


def test_a_model_of_these_layers_learns_and_is_written() -> None:
    """From end to end: a program of a step, on the CPU backend."""
    model = nn.Sequential(
        nn.ReflectionPad2d(1),
        nn.Upsample(scale_factor=0.5, mode="bilinear"),
        nn.LocalResponseNorm(3),
        nn.Flatten(),
        nn.Linear(4 * 3 * 4, 2),
    )
    x = RNG.standard_normal((8, 4, 5, 6)).astype(np.float32)
    y = np.arange(8) % 2
    loss = nn.CrossEntropyLoss()
    step = gp.compile_step(
        lambda a, b: loss(model(a), b), gp.optim.Adam(model.parameters(), 0.05), backend="numba"
    )
    losses = [float(step(x, y)) for _ in range(30)]
    assert losses[-1] < 0.2 * losses[0]


def test_windows_of_columns_are_those_of_slices() -> None:
    found = ops.unfold(IMAGES, (2, 2), stride=(1, 3))
    expected = [
        IMAGES[:, :, i : i + 2, j : j + 2].reshape(2, -1)
        for i, j in itertools.product(range(4), (0, 3))
    ]
    assert_same(found, np.stack(expected, -1))
