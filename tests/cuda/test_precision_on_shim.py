"""Products in TF32, bf16 and float16: rounding as it should be, exact products, float32 sums.

What runs here is everything but the tensor cores' instruction; see `kernels/tensor.cuh`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shim_build
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from numpy.typing import NDArray
from shim_backend import shim_backend
from shim_driver import ShimDriver, ShimKernels
from tolerances import assert_product, assert_same

import gpubp as gp
from gpubp import nn
from gpubp.backends.cuda import PRECISIONS
from gpubp.errors import BackendError, UnknownNameError

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))
LOW = [p for p in PRECISIONS if p != "float32"]
BITS = {"tf32": 10, "bf16": 7}  # of fraction


def rounded(x: NDArray[np.float32], precision: str) -> NDArray[np.float32]:
    """The reference: by NumPy for float16, else by arithmetic in float64."""
    with np.errstate(all="ignore"):
        if precision == "float16":
            return x.astype(np.float16).astype(np.float32)
        exponent = np.maximum(np.frexp(x.astype(np.float64))[1] - 1, -126)
        unit = np.ldexp(1.0, exponent - BITS[precision])
        scaled = x.astype(np.float64) / unit
        if precision == "tf32":  # ties away from zero
            whole = np.copysign(np.floor(np.abs(scaled) + 0.5), scaled)
        else:
            whole = np.rint(scaled)
        return np.where(np.isfinite(x), whole * unit, x).astype(np.float32)


def _numbers() -> NDArray[np.float32]:
    """Of every size, random and close to ties, with the special ones."""
    rng = np.random.default_rng(0)
    random = rng.standard_normal(3000) * np.exp2(rng.integers(-30, 20, 3000))
    bits = rng.integers(0x38000000, 0x47800000, 3000, dtype=np.uint32)
    ties = np.concatenate([bits & 0xFFFFE000 | 0x1000, bits & 0xFFFF0000 | 0x8000])
    special = [
        0.0,
        -0.0,
        np.inf,
        -np.inf,
        np.nan,
        65504,
        65519.9,
        65520,
        1e30,
        2**-24,
        2**-25,
        2e-8,
    ]
    near = ties.astype(np.uint32).view(np.float32)
    return np.concatenate([random, near, -near, special]).astype(np.float32)


def _backend(precision: str, order: str = "random", processors: int = 4) -> Any:
    target = shim_backend(order, processors=processors)
    target.precision = precision
    return target


@pytest.mark.parametrize("precision", LOW)
def test_factors_are_rounded_as_the_precision_says(precision: str) -> None:
    x = _numbers()
    out = gp.compile(lambda a, b: a @ b, backend=_backend(precision))(
        x[:, None], np.ones((1, 1), "f")
    )
    expected = rounded(x, precision)
    assert_same(np.isnan(out[:, 0]), np.isnan(expected))
    kept = ~np.isnan(expected)
    assert_same(out[kept, 0] + np.float32(0), expected[kept] + np.float32(0))
    assert (expected[kept] != x[kept]).mean() > 0.5, "else nothing was rounded"


@pytest.mark.parametrize("processors", [1, 132])
@pytest.mark.parametrize("layout", ["nn", "nt", "tn"])
@pytest.mark.parametrize("precision", LOW)
def test_products_of_each_precision_are_exact_on_few_bits(
    precision: str, layout: str, processors: int
) -> None:
    def product(a: Any, b: Any) -> Any:
        return (a.T if layout[0] == "t" else a) @ (b.T if layout[1] == "t" else b)

    compiled = gp.compile(product, backend=_backend(precision, processors=processors))
    rng = np.random.default_rng(1)
    for m, n, k in ((1, 1, 1), (17, 9, 33), (64, 64, 32), (65, 130, 31), (129, 70, 600), (3, 5, 0)):
        a, b = (rng.standard_normal(s).astype(np.float32) for s in ((m, k), (k, n)))
        given = (a.T.copy() if layout[0] == "t" else a, b.T.copy() if layout[1] == "t" else b)
        exact = (rounded(a, precision), rounded(b, precision))
        assert_product(compiled(*given), *exact, f"{(m, n, k)}")


class EmulatedDriver(ShimDriver):
    """Builds sources with the tensor cores' instruction emulated, register by register."""

    def compile(self, source: str) -> ShimKernels:
        return super().compile(f'#define GP_MMA_EMULATED\n#include "gp_mma.h"\n{source}')


@pytest.mark.parametrize("processors", [1, 132])
@pytest.mark.parametrize("precision", LOW)
def test_the_instructions_registers_hold_what_they_should(precision: str, processors: int) -> None:
    """The same bits as without the instruction, whose fragments are laid out as PTX has them."""
    found = []
    for kind in (EmulatedDriver, ShimDriver):
        target = shim_backend(driver=kind("random", processors=processors))
        target.precision = precision
        compiled = gp.compile(lambda a, b: a @ b, backend=target)
        sizes = ((65, 130, 70), (17, 9, 33))
        rng = np.random.default_rng(3)
        pairs = [
            (rng.standard_normal((m, k)).astype("f"), rng.standard_normal((k, n)).astype("f"))
            for m, n, k in sizes
        ]
        found.append([compiled(a, b) for a, b in pairs])
    for emulated, plain in zip(*found):
        assert_same(emulated, plain)


@pytest.mark.parametrize("precision", LOW)
def test_every_nan_stays_one(precision: str) -> None:
    """Also one whose only bits are among those that the type leaves out."""
    target = shim_backend(driver=EmulatedDriver())
    target.precision = precision
    a = np.ones((4, 16), np.float32)
    a.view(np.uint32)[1, 3], a.view(np.uint32)[2, 5] = 0x7F800001, 0xFF801000
    a[3, 7] = np.inf
    check = gp.Options(verify=False)
    out = gp.compile(lambda a, b: a @ b, backend=target, options=check)(a, np.ones((16, 3), "f"))
    assert np.isnan(out[1:3]).all() and (out[0] == 16).all() and (out[3] == np.inf).all()


@pytest.mark.parametrize("layout", ["nn", "nt", "tn"])
@pytest.mark.parametrize("precision", LOW)
def test_rows_that_do_not_start_at_sixteen_bytes(precision: str, layout: str) -> None:
    """Vectors are loaded only where rows start so: lengths of every remainder, of weights whose
    place is known, and whose last vector is half a row's.
    """
    rng = np.random.default_rng(5)
    for k in (64, 62, 37, 36):
        a, b = (rng.standard_normal(s).astype(np.float32) for s in ((33, k), (k, 17)))
        given = (a.T.copy() if layout[0] == "t" else a, b.T.copy() if layout[1] == "t" else b)
        weight = nn.Parameter(given[1])

        def product(a: Any, weight: Any = weight) -> Any:
            return (a.T if layout[0] == "t" else a) @ (weight.T if layout[1] == "t" else weight)

        found = gp.compile(product, backend=_backend(precision))(given[0])
        assert_product(found, rounded(a, precision), rounded(b, precision), f"k = {k}")


@pytest.mark.parametrize("old", ["a[8 * SLICE_PITCH + 4]", "b[4]"])
def test_a_register_with_another_element_is_caught(old: str) -> None:
    changed = []

    class Wrong(EmulatedDriver):
        def compile(self, source: str) -> ShimKernels:
            changed.append(source.count(old))
            return super().compile(source.replace(old, old.replace("4]", "5]")))

    target = shim_backend(driver=Wrong())
    target.precision = "bf16"
    a = np.random.default_rng(4).standard_normal((33, 40)).astype("f")
    out = gp.compile(lambda a: a @ a.T, backend=target)(a)
    assert sum(changed) == 1
    with pytest.raises(AssertionError):
        assert_product(out, rounded(a, "bf16"), rounded(a, "bf16").T)


@pytest.mark.parametrize("precision", LOW)
def test_float64_is_not_touched(precision: str) -> None:
    a = np.random.default_rng(2).standard_normal((20, 30))
    out = gp.compile(lambda x: x @ x.T, backend=_backend(precision))(a)
    assert_product(out, a, a.T)


@pytest.mark.parametrize("precision", LOW)
def test_training_follows_float32(precision: str) -> None:
    x, y = digits(samples=320)

    def losses(target: Any) -> Any:
        return classifier_step(OPTIMIZERS["adam"], mlp(), backend=target).run(
            x, y, batch_size=32, epochs=2, shuffle=False
        )

    expected, found = losses("numpy"), losses(_backend(precision))
    unit = {"tf32": 2.0**-11, "float16": 2.0**-11, "bf16": 2.0**-8}[precision]
    assert 0 < np.abs(found - expected).max() < 8 * unit


def test_precisions_that_are_none() -> None:
    from gpubp.backends.cuda import CupyBackend

    with pytest.raises(UnknownNameError, match="bf16"):
        CupyBackend(driver=ShimDriver(), precision="bf-16")
    with pytest.raises(BackendError, match="compute capability 8"):
        CupyBackend(driver=ShimDriver(architecture="sm_75"), precision="tf32")
