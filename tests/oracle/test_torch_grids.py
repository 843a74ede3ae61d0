"""Grids, columns, responses of channels, deformable convolutions, and their gradients by torch.

Float64, on random arguments; second gradients where PyTorch has them.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest

import gpubp as gp
from gpubp import ops

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
from pairs import compare, tensor  # noqa: E402 - needs torch

F = torch.nn.functional

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::UserWarning")]

RNG = np.random.default_rng(7)
BACKENDS = ("numpy", "numba")
_GRIDS = [
    (mode, padding, corners, axes)
    for mode, padding, corners, axes in itertools.product(
        ("bilinear", "nearest", "bicubic"), ("zeros", "border", "reflection"), (True, False), (2, 3)
    )
    if (mode, axes) != ("bicubic", 3)
]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("mode", "padding", "corners", "axes"), _GRIDS)
def test_samples_of_grids(mode: str, padding: str, corners: bool, axes: int, backend: str) -> None:
    for sizes in ((4, 5, 3)[:axes], (1, 2, 1)[:axes]):
        x = RNG.standard_normal((2, 3, *sizes))
        grid = RNG.uniform(-2.5, 2.5, (2, *(3, 4, 2)[:axes], axes))
        compare(
            lambda a, g: ops.grid_sample(a, g, mode, padding, corners),
            lambda a, g: F.grid_sample(a, g, mode, padding, corners),
            x,
            grid,
            backend=backend,
            what=sizes,
        )


def test_places_between_two_elements_and_none() -> None:
    """Halves go to the even element; NaN and what is far outside read nothing."""
    x = np.arange(1.0, 6.0).reshape(1, 1, 1, 5)
    at = np.array([0.5, 1.5, 2.5, 3.5, -0.5, 4.5]) * 2.0 / 4.0 - 1.0
    grid = np.stack([at, np.zeros(6)], -1).reshape(1, 1, 6, 2)
    expected = F.grid_sample(tensor(x), tensor(grid), "nearest", "zeros", True)
    found = ops.grid_sample(x, grid, "nearest", "zeros", True)
    np.testing.assert_array_equal(found, expected.detach().numpy())
    far = np.array([[[[np.nan, 0.0], [1e30, 0.0], [-np.inf, 0.0], [0.0, 1e300]]]])
    for backend in BACKENDS:
        for mode in ("bilinear", "nearest", "bicubic"):
            run = gp.compile(lambda a, g, mode=mode: ops.grid_sample(a, g, mode), backend=backend)
            np.testing.assert_array_equal(run(x, far), np.zeros((1, 1, 1, 4)))


@pytest.mark.parametrize("backend", BACKENDS)
def test_affine_grids_and_columns(backend: str) -> None:
    for corners, size in itertools.product((True, False), ((2, 1, 4, 1), (2, 3, 4, 2, 3))):
        axes = len(size) - 2
        compare(
            lambda t, size=size, corners=corners: ops.affine_grid(t, size, corners),
            lambda t, size=size, corners=corners: F.affine_grid(t, size, corners),
            RNG.standard_normal((2, axes, axes + 1)),
            backend=backend,
        )
    images = RNG.standard_normal((2, 3, 5, 6))
    for options in (
        {"kernel_size": 2},
        {"kernel_size": (2, 3), "dilation": (2, 1), "padding": (1, 2), "stride": (2, 1)},
    ):
        columns = F.unfold(tensor(images), **options).detach().numpy()
        compare(
            lambda a, o=options: ops.square(ops.unfold(a, **o)),
            lambda t, o=options: F.unfold(t, **o).square(),
            images,
            backend=backend,
            second=True,
        )
        compare(
            lambda a, o=options: ops.square(ops.fold(a, (5, 6), **o)),
            lambda t, o=options: F.fold(t, (5, 6), **o).square(),
            columns,
            backend=backend,
            second=True,
        )


@pytest.mark.parametrize("backend", BACKENDS)
def test_local_response_norm_of_every_size(backend: str) -> None:
    x = RNG.standard_normal((2, 4, 3))
    for size in (1, 2, 3, 4, 9):
        compare(
            lambda a, size=size: ops.local_response_norm(a, size, 0.7, 0.6, 1.3),
            lambda t, size=size: F.local_response_norm(t, size, 0.7, 0.6, 1.3),
            x,
            backend=backend,
            second=True,
        )


def _deformed(x: Any, offset: Any, weight: Any, mask: Any, **geometry: Any) -> Any:
    """Tap by tap, by torch's own sampling of grids."""
    n, c, h, w = x.shape
    _, _, kh, kw = weight.shape
    by, pad, spread = geometry["stride"], geometry["padding"], geometry["dilation"]
    high, wide = offset.shape[2:]
    groups = offset.shape[1] // (2 * kh * kw)
    parts = offset.reshape(n, groups, kh * kw, 2, high, wide)
    columns = []
    for k, (i, j) in enumerate(itertools.product(range(kh), range(kw))):
        down = (torch.arange(high) * by - pad + i * spread)[:, None].to(x.dtype)
        right = (torch.arange(wide) * by - pad + j * spread)[None, :].to(x.dtype)
        taps = []
        for g in range(groups):
            y, z = down + parts[:, g, k, 0], right + parts[:, g, k, 1]
            grid = torch.stack([z * 2 / (w - 1) - 1, y * 2 / (h - 1) - 1], -1)
            part = x[:, g * c // groups : (g + 1) * c // groups]
            tap = F.grid_sample(part, grid, align_corners=True)
            taps.append(tap * mask[:, g * kh * kw + k, None])
        columns.append(torch.cat(taps, 1))
    lined = torch.stack(columns, 2).reshape(n, c * kh * kw, high * wide)
    outs, each = weight.shape[0] * weight.shape[1] // c, weight.shape[1] * kh * kw
    found = [
        weight[g * outs : (g + 1) * outs].reshape(outs, each) @ lined[:, g * each : (g + 1) * each]
        for g in range(c // weight.shape[1])
    ]
    return torch.cat(found, 1).reshape(n, -1, high, wide)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize(("groups", "parts"), [(1, 1), (2, 1), (1, 2), (2, 2)])
def test_deformable_convolutions(groups: int, parts: int, backend: str) -> None:
    for geometry, found in (
        ({"stride": 1, "padding": 1, "dilation": 1}, (5, 7)),
        ({"stride": 2, "padding": 2, "dilation": 2}, (3, 4)),
    ):
        arrays = (
            RNG.standard_normal((2, 4, 5, 6)),
            RNG.uniform(-2.0, 2.0, (2, groups * 12, *found)),
            RNG.standard_normal((6, 4 // parts, 3, 2)),
            RNG.uniform(0.1, 1.0, (2, groups * 6, *found)),
        )
        compare(
            lambda x, o, w, m, g=geometry: ops.deform_conv2d(x, o, w, mask=m, **g),
            lambda x, o, w, m, g=geometry: _deformed(x, o, w, m, **g),
            *arrays,
            backend=backend,
            what=geometry,
        )
