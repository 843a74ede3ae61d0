"""Convolutions of the CUDA backend on the CPU: every tile, pieces of k, and what follows.

Small cases of every kind are in the rows of `tests/conv_rows.py`, which `test_ops_on_shim.py` runs.
"""

from __future__ import annotations

import re
from functools import partial
from typing import Any

import numpy as np
import pytest
import shim_build
from conv_rows import OPS, conv_row, geometry
from shim_backend import shim_backend
from shim_driver import ShimDriver, ShimKernels
from specs import Case, cases
from test_conformance import compare
from test_precision_on_shim import LOW, rounded
from tolerances import assert_close, assert_same, assert_sums

import gpubp as gp
from gpubp import ops
from gpubp.backends.cuda import CupyBackend
from gpubp.backends.cuda.codegen import tiles
from gpubp.core import bind, evaluate
from gpubp.ops.spec import SPECS

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

OPTIONS = gp.Options(verify=False)  # the same programs are verified on the CPU backends
PROCESSORS = (1, 6, 132)  # one takes the largest tile, many take the smallest and cut k
# More rows and columns than a tile has, long sums, groups, parts of uneven size.
LARGE = (
    geometry((3, 9, 10, 20), (70, 20, 3, 3), (1, 2), ((1, 1), (2, 0)), chunk=2),
    geometry((2, 200, 9), (140, 9, 4), 3, ((2, -1),), 2),
    geometry((5, 12, 11, 12), (16, 6, 5, 5), padding=2, groups=2, chunk=3),
    geometry((2, 5, 6, 7, 8), (9, 8, 3, 3, 3), (2, 1, 3), 1),
    geometry((1, 6, 6, 64), (5, 64, 4, 4)),
    geometry((1, 8, 8, 6), (96, 6, 6, 6), 2, 1),
    geometry((4, 40, 41, 3), (50, 3, 2, 2), 2, chunk=4),
    geometry((1, 9000, 3), (3, 1, 3), groups=3),
)


class WatchingDriver(ShimDriver):
    """Notes the tiles of the sources that it builds, and whether k is cut."""

    def __init__(self, **options: Any) -> None:
        super().__init__("random", **options)
        self.tiles: set[tuple[str, bool]] = set()

    def compile(self, source: str) -> ShimKernels:
        for found in re.findall(r"gp::gemm(?:_tensor<gp::\w+|<\w+), (\d+), ", source):
            self.tiles.add((found, "kernel_finish(" in source))
        return super().compile(source)


def _compiled(case: Case, backend: CupyBackend) -> Any:
    op = partial(bind, case.row.spec, **case.attrs)
    return gp.compile(op, backend=backend, options=OPTIONS)


@pytest.mark.parametrize("op", OPS)
def test_convolutions_of_every_tile(op: str) -> None:
    met = set()
    for processors in PROCESSORS:
        backend = shim_backend(driver=WatchingDriver(processors=processors))
        for case in cases(conv_row(op, LARGE)):
            args = case.args()
            compare(case, args, _compiled(case, backend)(*args), str(case))
        met |= backend.driver.tiles
    assert met >= {("128", False), ("64", False), ("32", False), ("32", True)}


@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("op", OPS)
def test_convolutions_of_each_precision_are_exact_on_few_bits(op: str, precision: str) -> None:
    met = set()
    for processors in (1, 132):
        backend = shim_backend(driver=WatchingDriver(processors=processors))
        backend.precision = precision
        for case in cases(conv_row(op, LARGE[:6])):
            if case.dtype != "float32":
                continue
            args = case.args()
            found = _compiled(case, backend)(*args)
            wide = [rounded(a, precision).astype(np.float64) for a in args]
            both = (wide, [*map(np.abs, wide)])
            exact, sizes = (evaluate(case.row.spec, x, case.attrs) for x in both)
            assert_sums(found, exact, sizes, str(case))
        met |= backend.driver.tiles
    assert {tile for tile, _ in met} == {"128", "64"}


@pytest.mark.parametrize("precision", LOW)
def test_groups_of_one_channel_stay_float32(precision: str) -> None:
    backend = shim_backend("random")
    backend.precision = precision
    for op in OPS:
        for case in cases(conv_row(op, [LARGE[-1]])):
            args = case.args()
            compare(case, args, _compiled(case, backend)(*args), str(case))


def _followed(x: Any, w: Any, b: Any, z: Any) -> Any:
    """Bias and activation, an operand channels first, a result channels first, the sum itself."""
    y = ops.conv2d(x, w, b, stride=2, padding=1, groups=2)
    last = ops.relu(y + ops.transpose(z, (3, 2, 0, 1))) * 0.5
    plain = ops.conv2d(x, w, stride=2, padding=1, groups=2)
    return y, last, ops.transpose(plain, (0, 2, 3, 1)), ops.sum(ops.tanh(y), (0, 2, 3))


def _transposed(x: Any, w: Any, b: Any, z: Any) -> Any:
    """The same after a transposed convolution."""
    y = ops.conv_transpose2d(x, w, b, stride=2, padding=1, output_padding=1, groups=2)
    return y, ops.gelu(y * ops.transpose(z, (3, 2, 0, 1))), ops.sum(y, 1)


def test_five_axes_in_any_order() -> None:
    """Operands and results of what follows, turned and cut; drawn numbers; sums over three axes."""
    rng = np.random.default_rng(5)
    x, w = rng.normal(size=(2, 3, 4, 5, 6)), rng.normal(size=(5, 3, 2, 3, 2))
    z = rng.normal(size=(5, 3, 5, 5, 4))

    def fn(x: Any, w: Any, z: Any) -> Any:
        y = ops.conv3d(x, w, stride=(1, 2, 1), padding=(0, 1, 0))
        turned = ops.transpose(z, (4, 0, 1, 3, 2))[::2, :, :, :3]
        drawn = ops.dropout(y * turned, 0.25)
        return drawn, ops.transpose(y, (3, 0, 2, 4, 1)), ops.sum(drawn, (0, 2, 3))

    found = []
    for backend in ("numpy", shim_backend("random"), shim_backend("random", processors=132)):
        gp.manual_seed(3)
        found.append(gp.compile(fn, backend=backend, options=OPTIONS)(x, w, z))
    assert 0 < (found[0][0] == 0).mean() < 0.5
    for other in found[1:]:
        for actual, expected in zip(other, found[0], strict=True):
            np.testing.assert_allclose(actual, expected, 1e-11, 1e-12)


@pytest.mark.parametrize("processors", [1, 132])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("few", [False, True])
@pytest.mark.parametrize("fn", [_followed, _transposed])
def test_what_follows_a_convolution(fn: Any, few: bool, dtype: str, processors: int) -> None:
    rng = np.random.default_rng(0)
    channels = 4 if few else 12
    x = rng.normal(size=(3, channels, 7, 9))
    w = rng.normal(size=(channels, channels // 2, 3, 3))
    sizes = (4, 5) if fn is _followed else (14, 18)
    args = [a.astype(dtype) for a in (x, w, rng.normal(size=channels))]
    args.append(rng.normal(size=(*sizes, channels, 3)).astype(dtype))
    backend = shim_backend("random", processors=processors)
    found = gp.compile(fn, backend=backend, options=OPTIONS)(*args)
    expected = gp.compile(fn, backend="numpy")(*[a.astype("float64") for a in args])
    for actual, wide in zip(found, expected, strict=True):
        scale = np.abs(wide).max()
        tolerance = {"float32": 1e-5, "float64": 1e-12}[dtype]
        np.testing.assert_allclose(actual, wide, 0, tolerance * scale)


def test_gradients_of_a_network() -> None:
    """Convolutions, a transposed one, one channel a group: by everything."""
    rng = np.random.default_rng(1)
    shapes = [(9, 3, 8, 7), (12, 3, 3, 3), (12,), (12, 1, 3, 3), (12, 6, 2, 2)]
    args = [rng.normal(size=s) for s in shapes]

    def loss(x: Any, w: Any, b: Any, depth: Any, up: Any) -> Any:
        y = ops.relu(ops.conv2d(x, w, b, padding=1))
        y = ops.tanh(ops.conv2d(y, depth, stride=2, padding=1, groups=12))
        y = ops.conv_transpose2d(y, up, stride=2, groups=2)
        return ops.sum(ops.square(y)) * 0.01

    def gradients(*args: Any) -> Any:
        return gp.grad(loss, argnums=tuple(range(5)))(*args)

    expected = gp.compile(gradients, backend="numpy")(*args)
    for order, processors in (("forward", 1), ("random", 132)):
        backend = shim_backend(order, processors=processors)
        found = gp.compile(gradients, backend=backend, options=OPTIONS)(*args)
        for actual, wanted in zip(found, expected, strict=True):
            np.testing.assert_allclose(actual, wanted, 1e-11, 1e-12)


def test_more_products_than_a_grid_can_number(monkeypatch: pytest.MonkeyPatch) -> None:
    """Blocks walk on through groups, parts of the stride, pieces of k, and columns."""
    monkeypatch.setattr(tiles, "MAX_GRID", 2)
    for op in OPS:
        for case in cases(conv_row(op, LARGE[:6])):
            if case.dtype == "float32":
                args = case.args()
                found = _compiled(case, shim_backend("random", processors=40))(*args)
                compare(case, args, found, str(case))


def test_coordinates_beyond_32_bits() -> None:
    """Padding and a stride of about 2^32: the second window starts at element 2."""
    far = 2**32
    attrs = {"stride": (far,), "padding": ((far - 2, 0),), "dilation": (1,), "groups": 1}
    rng = np.random.default_rng(0)
    x, dy, w = (rng.normal(size=s) for s in ((1, 5, 6), (1, 2, 7), (7, 6, 2)))
    backend = shim_backend()

    def run(op: str, *args: Any, **more: Any) -> Any:
        fn = partial(bind, SPECS[op], **attrs, **more)
        return gp.compile(fn, backend=backend, options=OPTIONS)(*args)

    met = x[0, 2:4]
    y = np.stack([np.zeros(7), np.einsum("tc,oct->o", met, w)])[None]
    assert_close(run("conv", x, w), y)
    dx = np.zeros((1, 5, 6))
    dx[0, 2:4] = np.einsum("o,oct->tc", dy[0, 1], w)
    assert_close(run("conv_input", dy, w, sizes=(5,)), dx)
    dw = np.einsum("o,tc->tco", dy[0, 1], met)[None]
    assert_close(run("conv_weight", x, dy, kernel=(2,), chunk=1), dw)


@pytest.mark.parametrize("op", OPS)
def test_each_kernel_writes_all_of_its_result(op: str) -> None:
    """Verification runs a part alone, on results that hold poison."""
    for case in cases(conv_row(op)):
        if case.dtype == "float32":
            args = case.args()
            fn = partial(bind, case.row.spec, **case.attrs)
            checked = gp.compile(fn, backend=shim_backend(), options=gp.Options(verify=True))
            compare(case, args, checked(*args), str(case))


def test_axes_along_which_nothing_is_joined_change_no_bit() -> None:
    """They are counted as images: the sums are the same, in the same order."""
    rng = np.random.default_rng(3)
    x, w = rng.normal(size=(2, 3, 9, 5)), rng.normal(size=(6, 5, 1, 3))
    attrs = {"stride": (1, 2), "padding": ((0, 0), (1, 1)), "dilation": (1, 1), "groups": 1}
    backend = shim_backend()
    wide = gp.compile(partial(bind, SPECS["conv"], **attrs), backend=backend)(x, w)
    line = {k: v if k == "groups" else v[1:] for k, v in attrs.items()}
    narrow = gp.compile(partial(bind, SPECS["conv"], **line), backend=backend)(
        x.reshape(6, 9, 5), w[:, :, 0]
    )
    assert_same(wide, narrow.reshape(wide.shape))
