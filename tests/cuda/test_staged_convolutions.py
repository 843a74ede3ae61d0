"""Convolutions whose images and filters are rounded once, in memory: the bits of those that round
in each tile, on the shim and on the emulator, which looks for races in every launch.
"""

from __future__ import annotations

from typing import Any

import pytest
import shim_build
from conv_rows import OPS
from emulated_backend import emulated_backend
from shim_backend import shim_backend
from staged_calls import LOW, both
from staged_conv_calls import FOUR, WHOLE, assert_exact, calls, compiled, network
from test_staged_on_emulator import Device
from test_staged_on_shim import Cores, Plain

from gpubp.backends.cuda.drivers import bare_nvrtc

needs_shim = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))
needs_nvrtc = pytest.mark.skipif(bool(bare_nvrtc.missing()), reason=bare_nvrtc.missing() or "-")


def _shim(kind: Any = Plain, processors: int = 1) -> Any:
    return lambda: shim_backend(driver=kind("random", processors=processors))


def _emulator(architecture: str = "sm_80", processors: int = 1) -> Any:
    return lambda: emulated_backend(Device(architecture, processors, races="all"))


@needs_shim
@pytest.mark.parametrize("processors", [1, 132])
@pytest.mark.parametrize("precision", LOW)
@pytest.mark.parametrize("op", OPS)
def test_the_same_bits_as_rounding_in_each_tile(op: str, precision: str, processors: int) -> None:
    """In one piece of k and in several."""
    for case in calls(op):
        (found,) = both(_shim(Plain, processors), compiled(case), precision)
        assert_exact(case, found, precision)


@needs_shim
@pytest.mark.parametrize("precision", ["bf16", "tf32"])
@pytest.mark.parametrize("op", OPS)
def test_registers_hold_what_an_instruction_multiplies(op: str, precision: str) -> None:
    for case in calls(op, WHOLE[2:3]):
        (found,) = both(_shim(Cores), compiled(case), precision)
        assert_exact(case, found, precision)


@needs_shim
def test_a_cell_has_four_channels_of_tf32() -> None:
    """Of 16 bits it has eight: those are read as before."""
    for op in OPS:
        for case in calls(op, FOUR):
            (found,) = both(_shim(), compiled(case), "tf32")
            assert_exact(case, found, "tf32")
            both(_shim(), compiled(case), "bf16", used=False)


@needs_shim
@pytest.mark.parametrize("precision", ["bf16", "tf32"])
def test_a_network_has_the_same_losses(precision: str) -> None:
    (losses,) = both(_shim(processors=2), network(), precision)
    assert losses[-1] < losses[0]


@needs_nvrtc
@pytest.mark.parametrize(("precision", "architecture"), [("bf16", "sm_80"), ("tf32", "sm_90")])
@pytest.mark.parametrize("op", OPS)
def test_the_same_bits_on_the_emulator(op: str, precision: str, architecture: str) -> None:
    """Copies that arrive late, those of what lies beyond an image too."""
    for case in calls(op, WHOLE[:1] + WHOLE[2:3]):
        (found,) = both(_emulator(architecture), compiled(case), precision)
        assert_exact(case, found, precision)


@needs_nvrtc
def test_a_network_has_the_same_losses_on_the_emulator() -> None:
    both(_emulator(processors=2), network(1), "bf16")
