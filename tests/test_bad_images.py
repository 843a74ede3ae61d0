"""Bad arguments of what images go through: refused before any work, on arrays and while tracing."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.errors import ArgumentError, DataError, GpubpError, ShapeError
from gpubp.optim import lr_scheduler

LINE = np.ones((2, 3, 4), np.float32)
IMAGE = np.ones((1, 1, 4, 3), np.float32)
VOLUME = np.ones((1, 1, 2, 3, 2), np.float32)
GRID = np.zeros((1, 2, 2, 2), np.float32)
PLACES = np.zeros((1, 1, 2, 2), np.int64)
TEXTS = [np.ones((2, 2)), np.array(["nearest"]), ["nearest"], {}, None, 3, "x"]
FLAGS = [np.ones(2), "yes", [True], 0.5]
HUGE = [10**15, 2**63, 10**30]
Call = Callable[..., Any]


def _refused(kind: type[GpubpError], part: str, x: Any, call: Call) -> None:
    """At once, and traced."""
    for run in (call, gp.compile(call, backend="numpy")):
        with pytest.raises(kind) as caught:
            run(x)
        assert part in str(caught.value)


@pytest.mark.parametrize("value", TEXTS, ids=repr)
@pytest.mark.parametrize(
    ("part", "call"),
    [
        ("grid_sample: mode", lambda v, x: ops.grid_sample(x, GRID, mode=v)),
        ("grid_sample: padding_mode", lambda v, x: ops.grid_sample(x, GRID, padding_mode=v)),
        ("interpolate: mode", lambda v, x: ops.interpolate(x, 2, mode=v)),
        ("interpolate: mode", lambda v, x: ops.upsample(x, 2, mode=v)),
        ("pad: mode", lambda v, x: ops.pad(x, (1, 1), v)),
        ("resize: mode", lambda v, x: ops.resize(x, (1, 1, 2, 2), mode=v)),
        ("resize: nearest_mode", lambda v, x: ops.resize(x, (1, 1, 2, 2), nearest_mode=v)),
        (
            "resize: coordinate_transformation_mode",
            lambda v, x: ops.resize(x, (1, 1, 2, 2), coordinate_transformation_mode=v),
        ),
        (
            "resize: keep_aspect_ratio_policy",
            lambda v, x: ops.resize(x, (1, 1, 2, 2), keep_aspect_ratio_policy=v),
        ),
    ],
)
def test_what_is_no_name_of_a_mode(value: Any, part: str, call: Call) -> None:
    _refused(ArgumentError, part, IMAGE, lambda x: call(value, x))


@pytest.mark.parametrize("value", FLAGS, ids=repr)
@pytest.mark.parametrize(
    ("part", "call"),
    [
        ("align_corners", lambda v, x: ops.grid_sample(x, GRID, align_corners=v)),
        (
            "align_corners",
            lambda v, x: ops.affine_grid(x[:, :, :2, :].reshape(1, 2, 3), (1, 1, 2, 2), v),
        ),
        ("align_corners", lambda v, x: ops.interpolate(x, 2, None, "bilinear", v)),
        ("antialias", lambda v, x: ops.interpolate(x, 2, None, "bilinear", antialias=v)),
        (
            "recompute_scale_factor",
            lambda v, x: ops.interpolate(x, scale_factor=2.0, recompute_scale_factor=v),
        ),
        ("exclude_outside", lambda v, x: ops.resize(x, (1, 1, 2, 2), exclude_outside=v)),
        ("antialias", lambda v, x: ops.resize(x, (1, 1, 2, 2), antialias=v)),
    ],
)
def test_what_is_neither_true_nor_false(value: Any, part: str, call: Call) -> None:
    _refused(ArgumentError, part, IMAGE, lambda x: call(value, x))


@pytest.mark.parametrize("size", HUGE)
@pytest.mark.parametrize(
    ("x", "call"),
    [
        (VOLUME, lambda n, x: nn.ReplicationPad3d(n)(x)),
        (IMAGE, lambda n, x: nn.ReplicationPad2d((n, 0, -n, n))(x)),
        (VOLUME, lambda n, x: nn.ReflectionPad3d(n)(x)),
        (LINE, lambda n, x: nn.CircularPad1d((0, n))(x)),
        (LINE, lambda n, x: ops.pad(x, (n, 1))),
        (LINE, lambda n, x: ops.center_crop_pad(x, (2, n, 4))),
        (LINE, lambda n, x: nn.AdaptiveAvgPool1d(n)(x)),
        (LINE[:0], lambda n, x: ops.adaptive_avg_pool1d(x, n)),
        (VOLUME, lambda n, x: ops.adaptive_max_pool3d(x, (2, n, 2))),
        (IMAGE, lambda n, x: ops.interpolate(x, n)),
        (IMAGE, lambda n, x: ops.interpolate(x, scale_factor=float(n), mode="bilinear")),
        (IMAGE, lambda n, x: ops.interpolate(x, scale_factor=1e308)),
        (IMAGE, lambda n, x: ops.resize(x, (1, 1, 2, n))),
        (IMAGE, lambda n, x: ops.resize(x, scales=(1, 1, float(n), 2.0), mode="linear")),
        (
            IMAGE,
            lambda n, x: ops.resize(x, (n, 4), axes=(2, 3), keep_aspect_ratio_policy="not_smaller"),
        ),
        (
            IMAGE,
            lambda n, x: ops.affine_grid(x[:, :, :2, :].reshape(1, 2, 3), (1, 1, n, 2)),
        ),
        (IMAGE[:, :, :1, :2], lambda n, x: ops.max_unpool2d(x, PLACES[:, :, :1], (n, 2))),
        (LINE, lambda n, x: ops.fold(x, (n, n), 1)),
        (IMAGE, lambda n, x: ops.unfold(x, 2, padding=n)),
        (IMAGE, lambda n, x: ops.conv2d(x, IMAGE[:, :, :2, :2], padding=n)),
        (IMAGE, lambda n, x: ops.conv2d(x, IMAGE[:, :, :1, :1], stride=n, dilation=n)),
        (IMAGE, lambda n, x: ops.conv_transpose2d(x, IMAGE[:, :, :2, :2], stride=n)),
        (IMAGE, lambda n, x: ops.max_pool2d(x, n, padding=n // 2)),
        (LINE, lambda n, x: ops.local_response_norm(x, n)),
        (LINE, lambda n, x: nn.InstanceNorm1d(n, affine=True)(x)),
        (LINE, lambda n, x: nn.Linear(4, n)(x)),
        (LINE, lambda n, x: nn.Conv1d(n, n, 3)(x)),
        (LINE > 0.0, lambda n, x: ops.one_hot(ops.astype(x, "int64"), n)),
    ],
)
def test_sizes_beyond_all_memory(size: int, x: Any, call: Call) -> None:
    _refused(GpubpError, "", x, lambda x: call(size, x))


def test_what_is_too_large_is_said() -> None:
    with pytest.raises(ShapeError, match=r"pad: an array float32\[2, 3, \d+\] is larger than any"):
        ops.pad(LINE, (10**30, 0))
    with pytest.raises(ArgumentError, match=r"output_size is \(1000000000000000,\), more than"):
        ops.adaptive_avg_pool1d(LINE, 10**15)


@pytest.mark.parametrize(
    "value", [1 + 2j, np.ones(3), "1", [1], 10**400], ids=lambda v: repr(v)[:9]
)
def test_values_that_are_no_numbers_to_pad_with(value: Any) -> None:
    for mode in ("constant", "replicate"):
        with pytest.raises(DataError, match="pad: "):
            ops.pad(LINE, (1, 1), mode, value)


@pytest.mark.parametrize(
    "options",
    [
        {"sizes": (1, 1, 0, 2), "antialias": True, "mode": "linear"},
        {"sizes": (1, 1, -2, 2)},
        {"sizes": (1, 1, 10**400, 2)},
        {"scales": (1, 1, 10**400, 2)},
        {"sizes": (2,), "axes": 3},
        {"sizes": (2,), "axes": (1.5,)},
        {"sizes": (1, 1, 2, 2), "cubic_coeff_a": 10**400},
    ],
    ids=lambda options: repr(options)[:40],
)
def test_sizes_that_resize_cannot_make(options: dict[str, Any]) -> None:
    with pytest.raises(DataError, match="resize: "):
        ops.resize(IMAGE, **options)


def test_an_array_instead_of_schedules() -> None:
    optimizer = optim.SGD(nn.Linear(3, 2).parameters(), lr=0.1)
    for given in (np.ones(2), np.ones((2, 3)), np.ones(0)):
        with pytest.raises(DataError):
            lr_scheduler.ChainedScheduler(given)
        with pytest.raises(DataError):
            lr_scheduler.SequentialLR(optimizer, given, [1])
