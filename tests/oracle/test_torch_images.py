"""Padding, other sizes, and their gradients against PyTorch, on random arguments.

Float64. What PyTorch refuses is refused here, but for the cases that are named. First and second
gradients are compared where PyTorch has them.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from gpubp import ops
from gpubp.errors import GpubpError

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
from pairs import close, compare, tensor  # noqa: E402 - needs torch

F = torch.nn.functional

pytestmark = [pytest.mark.oracle, pytest.mark.filterwarnings("ignore::UserWarning")]

RNG = np.random.default_rng(7)
BACKENDS = ("numpy", "numba")
INTERPOLATIONS = {
    "nearest": None,
    "nearest-exact": None,
    "area": None,
    "linear": 1,
    "bilinear": 2,
    "bicubic": 2,
    "trilinear": 3,
}


def _outcome(call: Callable[..., Any], *args: Any) -> Any:
    try:
        return call(*args)
    except (GpubpError, RuntimeError, ValueError, NotImplementedError) as error:
        return error


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_pads_are_those_of_torch(mode: str) -> None:
    rng, refused = np.random.default_rng(3), 0
    for _ in range(150):
        axes = int(rng.integers(1, 4))
        x = rng.standard_normal(rng.integers(1, 5, axes + rng.integers(1, 3)))
        pad = [int(v) for v in rng.integers(-2, 4, 2 * axes)]
        mixed = mode == "circular" and any(
            min(a, b) < 0 < max(a, b) for a, b in zip(pad[::2], pad[1::2], strict=True)
        )
        if mixed:  # there it reads what it has not written yet
            continue
        value = 1.5 if mode == "constant" else None
        expected = _outcome(F.pad, tensor(x, False), pad, mode, value)
        found = _outcome(ops.pad, x, pad, mode, value)
        if isinstance(expected, Exception) and not isinstance(found, Exception):
            assert 0 in found.shape, (x.shape, pad)  # it has nothing to give, and says so
            continue
        assert isinstance(found, Exception) == isinstance(expected, Exception), (x.shape, pad)
        refused += isinstance(found, Exception)
        if not isinstance(found, Exception):
            np.testing.assert_array_equal(found, expected.numpy())
    assert refused > 5


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate", "circular"])
def test_gradients_of_pads(mode: str, backend: str) -> None:
    x = RNG.standard_normal((2, 3, 4, 5))
    for pad in ((1, 2), (3, -1, -2, 1), (2, 0, 3, 3)):
        if mode == "circular" and pad[1] < 0:
            continue
        shaped = x if len(pad) == 4 or mode == "constant" else x[0]
        compare(
            lambda a, pad=pad: ops.square(ops.pad(a, pad, mode)),
            lambda t, pad=pad: F.pad(t, pad, mode).square(),
            shaped,
            backend=backend,
            second=True,
            what=(mode, pad),
        )


def _options(rng: Any, mode: str, axes: int) -> dict[str, Any]:
    options: dict[str, Any] = {}
    if rng.random() < 0.5:
        options["size"] = [int(v) for v in rng.integers(1, 12, axes)]
    else:
        options["scale_factor"] = [float(v) for v in rng.choice([0.6, 0.7, 1.0, 2.0, 2.5], axes)]
        if rng.random() < 0.3:
            options["recompute_scale_factor"] = True
    if INTERPOLATIONS[mode]:
        options["align_corners"] = bool(rng.integers(2))
    if mode in ("bilinear", "bicubic"):
        options["antialias"] = bool(rng.integers(2))
    return options


def _there_it_is_wrong(out: Any, options: dict[str, Any]) -> bool:
    """One pixel wide and antialiased: torch repeats the first row."""
    return bool(options.get("antialias")) and out.shape[-1] == 1


@pytest.mark.parametrize("mode", list(INTERPOLATIONS))
def test_sizes_are_those_of_torch(mode: str) -> None:
    rng = np.random.default_rng(4)
    for turn in range(60):
        axes = INTERPOLATIONS[mode] or int(rng.integers(1, 4))
        most = 9 if turn % 6 else {1: 300, 2: 150}.get(axes, 9)
        x = rng.standard_normal((2, 3, *rng.integers(2, most, axes)))
        options = _options(rng, mode, axes)
        expected = F.interpolate(tensor(x), mode=mode, **options).detach().numpy()
        if not _there_it_is_wrong(expected, options):
            close(ops.interpolate(x, mode=mode, **options), expected, (x.shape, options))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("mode", list(INTERPOLATIONS))
def test_gradients_of_sizes(mode: str, backend: str) -> None:
    axes = INTERPOLATIONS[mode] or 2
    wide = axes == 2 and mode != "area"
    for sizes in ((5, 4, 3)[:axes], (3, 130, 2)[:axes]) if wide else ((5, 4, 3)[:axes],):
        x = RNG.standard_normal((1, 2, *sizes))
        compare(
            lambda a: ops.square(ops.interpolate(a, (7, 3, 4)[:axes], mode=mode)),
            lambda t: F.interpolate(t, (7, 3, 4)[:axes], mode=mode).square(),
            x,
            backend=backend,
            second=mode != "area",
            what=(mode, sizes),
        )


def test_nearest_by_a_factor_is_that_of_images_in_every_number_of_axes() -> None:
    """Torch's gradient is that of this rule in all, its values in 1 and 3 axes of another one."""
    line = np.arange(3.0)
    for factor in (1.3, 2.3):
        image = tensor(np.tile(line, (1, 1, 2, 1)))
        expected = F.interpolate(image, scale_factor=(1.0, factor)).detach().numpy()[0, 0, 0]
        for axes in (1, 2, 3):
            x = np.tile(line, (1, 1, *[2] * (axes - 1), 1))
            found = ops.interpolate(x, scale_factor=[1.0] * (axes - 1) + [factor])
            np.testing.assert_array_equal(found.reshape(-1, len(expected))[0], expected)
