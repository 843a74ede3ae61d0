"""When factors of products are rounded before, and what that asks of the device: counted."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from conv_rows import OPS, geometry
from counting_driver import CountingDriver
from staged_calls import CHECK, always, staged_in
from staged_conv_calls import calls, compiled, network

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends.cuda import CupyBackend


@pytest.mark.parametrize(
    ("m", "n", "k", "precision", "taken"),
    [
        (4096, 4096, 4096, "bf16", True),
        (1024, 1024, 1024, "float16", True),
        (512, 512, 512, "bf16", False),
        (128, 1024, 1024, "bf16", False),  # two rows of tiles read B
        (4096, 4096, 4096, "tf32", True),
        (512, 512, 512, "tf32", False),
        (4096, 4092, 4096, "tf32", True),
        (4096, 4096, 4096, "float32", False),
        (4096, 4092, 4096, "bf16", False),  # rows that are no whole cells
    ],
)
def test_large_products_are_rounded_before(
    m: int, n: int, k: int, precision: str, taken: bool
) -> None:
    """Where tiles read more again than copies cost; see `staged.LEAST_SAVED`."""
    device = CountingDriver()
    backend = CupyBackend(driver=device, precision=precision)
    a, b = np.zeros((m, k), np.float32), np.zeros((k, n), np.float32)
    gp.compile(lambda a, b: a @ b, backend=backend, options=CHECK)(a, b)
    assert staged_in(device) == taken
    assert device.launched.count("kernel") == (3 if taken else 1)


def test_each_factor_is_copied_once_a_step(monkeypatch: pytest.MonkeyPatch) -> None:
    """Five products read ten factors, which are six arrays: x, h, two weights, two gradients."""
    monkeypatch.setenv("GPUBP_VERIFY", "0")

    def launched() -> int:
        device = CountingDriver()
        model = nn.Sequential(nn.Linear(64, 64), nn.ReLU(), nn.Linear(64, 64))
        step: Any = gp.compile_step(
            lambda x: ops.mean(model(x) ** 2),
            optim.Adam(model.parameters()),
            backend=CupyBackend(driver=device, precision="bf16"),
        )
        step(np.zeros((64, 64), np.float32))
        return len(device.launched)

    found = []
    for taken in (True, False):
        with always(taken):
            found.append(launched())
    assert found[0] - found[1] == 6


@pytest.mark.parametrize(
    ("side", "channels", "precision", "taken"),
    [
        (56, 64, "bf16", True),
        (56, 64, "tf32", True),
        (8, 8, "bf16", False),
        (56, 60, "bf16", False),
    ],
)
def test_large_convolutions_are_rounded_before(
    side: int, channels: int, precision: str, taken: bool
) -> None:
    shape = geometry((32, side, side, channels), (channels, channels, 3, 3), 1, 1)
    for op in OPS:
        device = CountingDriver()
        for case in calls(op, (shape,)):
            compiled(case)(CupyBackend(driver=device, precision=precision))
        assert staged_in(device) == taken, op


def test_images_and_filters_are_copied_once_a_step() -> None:
    """Three layers have eight convolutions and transposes, whose factors are nine arrays."""
    found = []
    for taken in (True, False):
        device = CountingDriver()
        with always(taken):
            network(1)(CupyBackend(driver=device, precision="bf16"))
        found.append(len(device.launched))
    assert found[0] - found[1] == 9
