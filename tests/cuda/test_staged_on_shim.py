"""Products whose factors are rounded once, in memory, on the shim: the bits of those that round in
each tile.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shim_build
from products import FORWARD, operands
from shim_backend import shim_backend
from shim_driver import ORDERS, ShimDriver
from staged_calls import CHECK, LAYOUTS, LOW, Watched, both, given, losses, product_of
from test_precision_on_shim import EmulatedDriver as TensorCores
from test_precision_on_shim import rounded
from tolerances import assert_product, assert_same

import gpubp as gp
from gpubp import nn, ops

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))
SIZES = ((64, 64, 32), (8, 8, 8), (72, 136, 40), (136, 72, 104), (24, 40, 600))


class Plain(Watched, ShimDriver):
    """Sums element by element, from the same shared memory."""


class Cores(Watched, TensorCores):
    """With the tensor cores' instructions emulated."""


def _on(kind: Any = Plain, order: str = "random", processors: int = 1) -> Any:
    return lambda: shim_backend(driver=kind(order, processors=processors))


def _compiled(fn: Any, *args: Any) -> Any:
    return lambda backend: gp.compile(fn, backend=backend, options=CHECK)(*args)


@pytest.mark.parametrize("processors", [1, 132])
@pytest.mark.parametrize(
    ("precision", "layout"),
    [*((low, one) for low in ("bf16", "tf32") for one in LAYOUTS), ("float16", "nn")],
)
def test_the_same_bits_as_rounding_in_each_tile(
    precision: str, layout: str, processors: int
) -> None:
    """In one piece of k and in several, with lines and steps that end within a tile."""
    for m, n, k in SIZES:
        a, b = given(layout, m, n, k)
        for order in ORDERS if (m, k) == (72, 40) else ORDERS[:1]:
            make = _on(Plain, order, processors)
            (found,) = both(make, _compiled(product_of(layout), a, b), precision)
        left, right = a.T if layout[0] == "t" else a, b.T if layout[1] == "t" else b
        assert_product(found, rounded(left, precision), rounded(right, precision), f"{(m, n, k)}")


@pytest.mark.parametrize("precision", ["bf16", "tf32"])
@pytest.mark.parametrize("layout", LAYOUTS)
def test_registers_hold_what_an_instruction_multiplies(layout: str, precision: str) -> None:
    """By ldmatrix, which turns 16-bit elements; TF32 is read by words where it would have to."""
    for m, n, k in ((136, 136, 40), (24, 72, 64)):
        work = _compiled(product_of(layout), *given(layout, m, n, k))
        (emulated,), (plain,) = (both(_on(kind), work, precision) for kind in (Cores, Plain))
        assert_same(emulated, plain)


def test_batches_and_rows_that_are_part_of_longer_ones() -> None:
    a, b = given("nn", 24, 40, 16, (3,))
    (found,) = both(_on(), _compiled(lambda a, b: a @ b, a, b), "bf16")
    assert_product(found, rounded(a, "bf16"), rounded(b, "bf16"))
    (found,) = both(_on(), _compiled(lambda a, b: a @ b[0], a, b), "bf16")  # one factor for all
    assert_product(found, rounded(a, "bf16"), rounded(b[0], "bf16"))
    # Rows that begin at a whole cell and end within one: what is behind is not read.
    weight = nn.Parameter(given("nn", 40, 48, 8)[0])
    wide = np.full((40, 64), np.nan, np.float32)
    wide[:, 8:21] = np.random.default_rng(0).standard_normal((40, 13))
    (found,) = both(_on(), _compiled(lambda x: ops.swapaxes(x, 0, 1)[8:21] @ weight, wide), "bf16")
    assert_product(found, rounded(wide[:, 8:21].T, "bf16"), rounded(weight.value, "bf16"))


@pytest.mark.parametrize(
    ("n", "k", "precision"),
    [(64, 36, "bf16"), (36, 64, "bf16"), (17, 33, "bf16"), (17, 33, "tf32"), (38, 64, "tf32")],
)
def test_rows_that_are_no_whole_cells_are_read_as_before(n: int, k: int, precision: str) -> None:
    a, b = given("nn", 40, n, k)
    (found,) = both(_on(), _compiled(lambda a, b: a @ b, a, b), precision, used=False)
    assert_product(found, rounded(a, precision), rounded(b, precision))


def test_a_cell_has_four_numbers_of_tf32() -> None:
    a, b = given("nn", 40, 36, 28)
    (found,) = both(_on(Cores), _compiled(lambda a, b: a @ b, a, b), "tf32")
    assert_product(found, rounded(a, "tf32"), rounded(b, "tf32"))


def test_float32_has_no_copies() -> None:
    work = _compiled(lambda a, b: a @ b, *given("nn", 40, 40, 40))
    both(_on(), work, "float32", used=False)


@pytest.mark.parametrize("precision", LOW)
def test_a_nan_and_an_infinity_stay_what_they_are(precision: str) -> None:
    a = np.ones((8, 16), np.float32)
    a.view(np.uint32)[1, 3], a[3, 7] = 0x7F800001, np.inf
    work = _compiled(lambda a, b: a @ b, a, np.ones((16, 8), "f"))
    (out,) = both(_on(Cores), work, precision)
    assert np.isnan(out[1]).all() and (out[0] == 16).all() and (out[3] == np.inf).all()


@pytest.mark.parametrize("name", FORWARD)
def test_what_follows_a_product(name: str) -> None:
    both(_on(), _compiled(FORWARD[name], *operands(40, 48, 64)), "bf16")


@pytest.mark.parametrize(
    ("optimizer", "precision"), [("sgd", "bf16"), ("adam", "bf16"), ("adam", "tf32")]
)
def test_training_has_the_same_losses(optimizer: str, precision: str) -> None:
    both(_on(processors=2), losses(optimizer), precision)


def test_the_body_of_a_loop_has_no_copies() -> None:
    """Each round would copy the weights anew."""
    weight = nn.Parameter(given("nn", 40, 40, 8)[0][:, :8].copy())
    square = nn.Parameter(given("nn", 40, 40, 40)[0])

    def rounds(x: Any) -> Any:
        return gp.while_loop(lambda c: ops.sum(c * c) > 1.0, lambda c: (c @ square) * 0.01, x)

    both(_on(), _compiled(rounds, weight.value.T.copy()), "bf16", used=False)
