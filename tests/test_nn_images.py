"""Layers of images: sizes, initial weights, what cannot be, dropped channels, lazy forms."""

from __future__ import annotations

import copy
import math
import pickle

import numpy as np
import pytest
from registered import BACKENDS
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.errors import ArgumentError, DataError, GpubpError, ShapeError, UnknownNameError

RNG = np.random.default_rng(1)
IMAGES = RNG.standard_normal((2, 4, 6, 5)).astype(np.float32)


def _filled(layer: nn.Module, weight: float = 1.0) -> nn.Module:
    """The layer with one number in all weights, and no bias."""
    for parameter in layer.parameters():
        parameter.value = np.full(parameter.shape, weight)
    return layer


def test_the_extra_zero_of_an_even_kernel_stands_to_the_right() -> None:
    layer = nn.Conv1d(1, 1, 4, padding="same", bias=False)
    layer.weight.value = [[[1, 0, 0, 0]]]
    assert_same(layer(np.float32([[[1, 2, 3]]])), np.float32([[[0, 1, 2]]]))


def test_output_padding_holds_what_belongs_there() -> None:
    layer = _filled(nn.ConvTranspose1d(1, 1, 3, 2, 1, 1, bias=False))
    assert_same(layer(np.ones((1, 1, 2), np.float32)), np.float32([[[1, 2, 1, 1]]]))


@pytest.mark.parametrize("size", [(11, 9), (12, 10), (2, 3, 12, 9)])
def test_a_size_chooses_the_output_padding(size: tuple[int, ...]) -> None:
    layer = nn.ConvTranspose2d(4, 3, 3, 2, 1)
    found = layer(IMAGES, output_size=size)
    assert found.shape == (2, 3, *size[-2:])
    extra = (size[-2] - 11, size[-1] - 9)
    layer.output_padding = extra
    assert_same(layer(IMAGES), found)
    compiled = gp.compile(lambda x: layer(x, size), backend="numpy")
    assert_close(compiled(IMAGES), found)


def test_initial_weights_are_bounded_by_their_inputs() -> None:
    """1/sqrt(fan_in): of a transposed convolution that is out / groups * k, as in torch."""
    cases = [
        (nn.Conv2d(6, 64, (3, 5), groups=2), 3 * 15),
        (nn.ConvTranspose1d(100, 4, 3), 12),
        (nn.ConvTranspose2d(64, 8, 3, groups=2), 4 * 9),
    ]
    for layer, fan_in in cases:
        bound = 1 / math.sqrt(fan_in)
        found = np.abs(layer.weight.value)
        assert 0.95 * bound < found.max() <= bound
        assert np.abs(layer.bias.value).max() <= bound
    weight = nn.Parameter(np.zeros((8, 4, 3, 5), np.float32))
    drawn = np.abs(nn.init.xavier_uniform_(weight).value).max()
    assert 0.9 < drawn / math.sqrt(6 / ((4 + 8) * 15)) <= 1


def test_statistics_of_instances() -> None:
    """The running variance is the mean over the images of their unbiased variances."""
    x = IMAGES.astype(np.float64)
    norm = nn.InstanceNorm2d(4, track_running_stats=True, dtype="float64")
    norm(x)
    each = x.reshape(2, 4, -1)
    assert_close(norm.running_mean.value, 0.1 * each.mean(2).mean(0))
    assert_close(norm.running_var.value, 0.9 + 0.1 * each.var(2, ddof=1).mean(0))
    assert norm.num_batches_tracked.value == 0
    still = nn.InstanceNorm2d(4, momentum=None, track_running_stats=True)
    still(IMAGES)
    assert (still.running_mean.value == 0).all()
    any_number = nn.InstanceNorm2d(9)  # as in torch: nothing of the channels is kept
    assert any_number(IMAGES).shape == IMAGES.shape


def test_one_value_a_group_of_all_has_no_variance() -> None:
    norm = nn.GroupNorm(3, 3)
    for layer in (norm, copy.deepcopy(norm).eval()):
        with pytest.raises(ShapeError, match="more than one value a group"):
            layer(np.ones((1, 3), np.float32))
    assert_same(norm(np.ones((2, 3), np.float32)), np.zeros((2, 3), np.float32))
    assert norm(np.ones((0, 3, 2), np.float32)).shape == (0, 3, 2)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_statistics_far_from_zero_keep_their_digits(backend: str, dtype: str) -> None:
    """Distances are taken before squares, and before the scale."""
    x = (1e4 + IMAGES).astype(dtype)
    wide = x.astype(np.float64)
    for axes, layer in (((0, 2, 3), nn.BatchNorm2d(4)), ((2, 3), nn.InstanceNorm2d(4))):
        mean, var = wide.mean(axes, keepdims=True), wide.var(axes, keepdims=True)
        expected = (wide - mean) / np.sqrt(var + 1e-5)
        found = gp.compile(layer, backend=backend)(x)
        assert np.abs(found - expected).max() < (2e-3 if dtype == "float32" else 1e-10)


def test_channels_are_dropped_whole() -> None:
    gp.manual_seed(0)
    x = np.ones((64, 8, 3, 2), np.float32)
    cases = [
        (nn.Dropout2d(0.25), x),
        (nn.Dropout1d(0.25), x[..., 0]),
        (nn.Dropout3d(0.25), x[None]),
    ]
    for layer, given in cases:
        y = layer(given)
        y = y[0] if y.ndim == 5 else y.reshape(64, 8, -1)
        if given.ndim == 5:  # (1, 64, 8, 3, 2): channels are the second axis
            y = y.reshape(64, -1)
            flat = y.min(-1), y.max(-1)
        else:
            flat = y.min(-1).ravel(), y.max(-1).ravel()
        assert_same(flat[0], flat[1])
        assert set(np.unique(flat[0])) <= {np.float32(0), np.float32(1 / 0.75)}
        assert 0.1 < (flat[0] == 0).mean() < 0.4
        assert_same(layer.eval()(given), given)
    assert nn.Dropout1d(0.5)(np.ones((8, 3), np.float32)).shape == (8, 3)


def test_alpha_dropout_keeps_mean_and_variance() -> None:
    gp.manual_seed(0)
    x = np.random.default_rng(2).standard_normal((400, 50, 8))
    for layer in (nn.AlphaDropout(0.3), nn.FeatureAlphaDropout(0.3)):
        y = gp.compile(layer, backend="numpy")(x)
        assert abs(y.mean()) < 0.02
        assert abs(y.std() - 1) < 0.02
    dropped = y.std(-1) < 1e-12
    assert 0.25 < dropped.mean() < 0.35
    assert (nn.AlphaDropout(1.0)(x) == 0).all()


LAZY = {
    "LazyLinear": (nn.LazyLinear(3), (5, 7), nn.Linear(7, 3)),
    "LazyConv2d": (
        nn.LazyConv2d(6, 3, groups=2, padding=1),
        (2, 4, 6, 5),
        nn.Conv2d(4, 6, 3, 1, 1, 1, 2),
    ),
    "LazyConv1d": (nn.LazyConv1d(6, 3), (4, 9), nn.Conv1d(4, 6, 3)),
    "LazyConvTranspose2d": (
        nn.LazyConvTranspose2d(6, 3, 2),
        (2, 4, 6, 5),
        nn.ConvTranspose2d(4, 6, 3, 2),
    ),
    "LazyBatchNorm2d": (
        nn.LazyBatchNorm2d(bias=False),
        (2, 4, 6, 5),
        nn.BatchNorm2d(4, bias=False),
    ),
    "LazyInstanceNorm1d": (
        nn.LazyInstanceNorm1d(),
        (4, 9),
        nn.InstanceNorm1d(4, affine=True, track_running_stats=True),
    ),
}


@pytest.mark.parametrize("name", LAZY)
def test_lazy_layers_become_ordinary_ones(name: str) -> None:
    lazy, shape, ordinary = copy.deepcopy(LAZY[name])
    x = RNG.standard_normal(shape).astype(np.float32)
    assert type(lazy).__name__ == name
    for copied in (copy.deepcopy(lazy), pickle.loads(pickle.dumps(lazy))):
        copied(x)
        assert type(copied) is type(ordinary)
    found = gp.compile(lazy, backend="numpy")(x)
    assert type(lazy) is type(ordinary)
    assert repr(lazy) == repr(ordinary)
    ordinary.load_state_dict(lazy.state_dict())
    assert_close(found, ordinary(x))


@pytest.mark.parametrize("name", LAZY)
def test_a_state_gives_a_lazy_layer_its_shapes(name: str) -> None:
    lazy, shape, ordinary = copy.deepcopy(LAZY[name])
    x = RNG.standard_normal(shape).astype(np.float32)
    lazy.load_state_dict(ordinary.state_dict())
    for key, value in ordinary.state_dict().items():
        assert_same(lazy.state_dict()[key], value)
    assert_same(lazy(x), ordinary(x))
    assert repr(lazy) == repr(ordinary)


def test_parameters_are_missed_before_the_first_call() -> None:
    model = nn.Sequential(nn.LazyLinear(3), nn.LazyBatchNorm1d())
    x = np.ones((4, 7), np.float32)
    weight = model[0].weight
    assert isinstance(weight, nn.UninitializedParameter)
    assert isinstance(model[1].running_mean, nn.UninitializedBuffer)
    assert repr(weight) == "UninitializedParameter(0.weight, dtype=float32)"
    asked = [
        lambda: weight.shape,
        lambda: weight.value,
        lambda: weight.size,
        lambda: model.state_dict(),
        lambda: weight * 2.0,
        lambda: gp.compile(lambda x: ops.matmul(x, weight), backend="numpy")(x),
        lambda: nn.init.zeros_(weight),
        lambda: gp.compile_step(lambda x: ops.sum(x), optim.SGD([weight], lr=0.1))(x),
    ]
    for ask in asked:
        with pytest.raises(GpubpError, match=r"0\.weight has no shape and no values yet"):
            ask()
    model.requires_grad_(False)
    assert [type(m).__name__ for m in model.train(False)] == ["LazyLinear", "LazyBatchNorm1d"]
    model(x)
    assert type(weight) is nn.Parameter, "whoever holds it holds the same parameter"
    assert weight is model[0].weight
    assert not weight.requires_grad


def test_a_model_of_lazy_layers_trains_from_its_first_step() -> None:
    gp.manual_seed(0)
    model = nn.Sequential(
        nn.LazyConv2d(4, 3), nn.LazyBatchNorm2d(), nn.ReLU(), nn.Flatten(), nn.LazyLinear(2)
    )
    loss_fn = nn.CrossEntropyLoss()
    optimizer = optim.Adam(model.parameters(), lr=0.05)
    step = gp.compile_step(lambda x, y: loss_fn(model(x), y), optimizer)
    losses = [float(step(IMAGES, np.array([0, 1]))) for _ in range(10)]
    assert losses[-1] < 0.5 * losses[0]


def test_a_summary_of_images() -> None:
    model = nn.Sequential(nn.LazyConv2d(8, 3, padding=1), nn.LazyBatchNorm2d(), nn.Conv2d(8, 2, 1))
    found = nn.summary(model, (2, 4, 6, 5))
    assert [row.shapes for row in found.rows[1:]] == [((2, 8, 6, 5),)] * 2 + [((2, 2, 6, 5),)]
    assert [row.kind for row in found.rows[1:]] == ["Conv2d", "BatchNorm2d", "Conv2d"]
    assert [row.parameters for row in found.rows[1:]] == [8 * 36 + 8, 16, 18]
    pixels = 2 * 6 * 5
    assert found.rows[1].flops == 2 * pixels * 8 * 36 + pixels * 8
    assert found.rows[3].flops == 2 * pixels * 2 * 8 + pixels * 2


WRONG = {
    "channels": (lambda: nn.Conv2d(3, 4, 3)(IMAGES), ShapeError, "expected 3 channels"),
    "axes": (lambda: nn.Conv2d(4, 4, 3)(IMAGES[0, 0]), ShapeError, "expected 4 axes"),
    "too small": (lambda: nn.Conv2d(4, 4, 7)(IMAGES), ShapeError, "does not fit"),
    "groups": (lambda: nn.Conv2d(4, 6, 3, groups=4), ShapeError, "divisible by groups"),
    "no groups": (lambda: nn.Conv2d(4, 6, 3, groups=0), ShapeError, "groups=0"),
    "kernel": (lambda: nn.Conv2d(4, 6, (3, 3, 3)), ArgumentError, "Conv2d: kernel_size"),
    "kernel 0": (lambda: nn.Conv1d(4, 6, 0), ArgumentError, "kernel_size is 0"),
    "kind": (lambda: nn.Conv2d("4", 6, 3), ArgumentError, "Conv2d: in_channels is '4'"),
    "same": (lambda: nn.Conv2d(4, 6, 3, 2, "same"), ArgumentError, "needs stride 1"),
    "padding": (lambda: nn.Conv2d(4, 6, 3, padding="all"), ArgumentError, '"same", "valid"'),
    "mode": (lambda: nn.Conv2d(4, 6, 3, padding_mode="mirror"), UnknownNameError, "reflect"),
    "transposed": (
        lambda: nn.ConvTranspose2d(4, 6, 3, padding_mode="reflect"),
        ArgumentError,
        'expected "zeros"',
    ),
    "output padding": (
        lambda: nn.ConvTranspose2d(4, 6, 3, 2, output_padding=2)(IMAGES),
        ArgumentError,
        "must be below stride",
    ),
    "output size": (
        lambda: nn.ConvTranspose2d(4, 6, 3, 2)(IMAGES, (15, 11)),
        ShapeError,
        r"from \(13, 11\) to \(14, 12\)",
    ),
    "reflected": (
        lambda: nn.Conv2d(4, 6, 3, padding=5, padding_mode="reflect")(IMAGES),
        ShapeError,
        "must be smaller",
    ),
    "wrapped": (
        lambda: nn.Conv2d(4, 6, 3, padding=6, padding_mode="circular")(IMAGES),
        ShapeError,
        "more than once",
    ),
    "group norm": (lambda: nn.GroupNorm(3, 4), ShapeError, "do not make 3 equal groups"),
    "batch norm": (lambda: nn.BatchNorm2d(4)(IMAGES[0]), ShapeError, r"\(N, 4, H, W\)"),
    "batch norm of 3": (lambda: nn.BatchNorm3d(4)(IMAGES), ShapeError, r"\(N, 4, D, H, W\)"),
    "one value": (lambda: nn.BatchNorm2d(4)(IMAGES[:1, :, :1, :1]), ShapeError, "BatchNorm2d"),
    "instance": (lambda: nn.InstanceNorm1d(3).eval()(np.ones((2, 3, 1))), ShapeError, "more than"),
    "instance channels": (
        lambda: nn.InstanceNorm2d(3, affine=True)(IMAGES),
        ShapeError,
        r"\(N, 3, H, W\) or \(3, H, W\)",
    ),
    "dropout axes": (lambda: nn.Dropout3d(0.5)(IMAGES[0]), ShapeError, "expected 5 or 4 axes"),
    "dropout": (lambda: nn.Dropout2d(1.5), DataError, r"\[0, 1\]"),
    "lazy": (lambda: nn.LazyConv2d(6, 3, groups=4)(IMAGES[:, :3]), ShapeError, "divisible"),
    "lazy axes": (lambda: nn.LazyConv2d(6, 3)(IMAGES[0, 0]), ShapeError, "expected 4 axes"),
    "lazy norm": (lambda: nn.LazyBatchNorm2d()(IMAGES[0]), ShapeError, r"\(N, C, H, W\)"),
}


@pytest.mark.parametrize("what", WRONG)
def test_what_does_not_fit_is_refused(what: str) -> None:
    make, error, message = WRONG[what]
    with pytest.raises(error, match=message):
        make()
