"""Products whose factors are rounded once, in memory, on the emulator: copies that arrive late,
fragments by ldmatrix, races looked for in every launch, and the bits of those that round in each
tile.
"""

from __future__ import annotations

from typing import Any

import pytest
from emulated_backend import emulated_backend
from staged_calls import CHECK, LAYOUTS, Watched, both, given, losses, product_of
from test_precision_on_shim import rounded
from tolerances import assert_product

import gpubp as gp
from gpubp.backends.cuda.drivers import bare_nvrtc
from gpubp.backends.cuda.emulator.driver import EmulatedDriver

pytestmark = pytest.mark.skipif(bool(bare_nvrtc.missing()), reason=bare_nvrtc.missing() or "-")


class Device(Watched, EmulatedDriver):
    """An emulated GPU."""


@pytest.mark.parametrize(
    ("precision", "architecture", "layouts"),
    [("bf16", "sm_80", LAYOUTS), ("float16", "sm_90", ("nn",)), ("tf32", "sm_80", LAYOUTS)],
)
def test_the_same_bits(precision: str, architecture: str, layouts: tuple[str, ...]) -> None:
    for layout in layouts:
        a, b = given(layout, 72, 136, 104)
        for processors in (1, 132) if layout == "nn" else (1,):

            def make(processors: int = processors) -> Any:
                return emulated_backend(Device(architecture, processors, races="all"))

            def work(backend: Any, layout: str = layout, a: Any = a, b: Any = b) -> Any:
                return gp.compile(product_of(layout), backend=backend, options=CHECK)(a, b)

            (found,) = both(make, work, precision)
        left, right = a.T if layout[0] == "t" else a, b.T if layout[1] == "t" else b
        assert_product(found, rounded(left, precision), rounded(right, precision), layout)


def test_training_has_the_same_losses() -> None:
    both(
        lambda: emulated_backend(Device(processors=2, races="all")),
        losses("adam", samples=48),
        "bf16",
    )
