"""Image ops through the CUDA sources and launches, on the CPU: values and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import shim_build
from shim_backend import shim_backend
from tolerances import assert_close, assert_same

import gpubp as gp
from gpubp import nn, ops

pytestmark = pytest.mark.skipif(bool(shim_build.MISSING), reason=str(shim_build.MISSING))

BACKEND = shim_backend()
OPTIONS = gp.Options(verify=False)
IMAGES = np.random.default_rng(5).standard_normal((2, 4, 3, 6)).astype(np.float32)
THETA = np.array([[[0.8, 0.3, 0.1], [-0.2, 1.1, -0.3]], [[1.2, 0.0, 0.0], [0.0, 0.7, 0.4]]], "f")
PROGRAMS: dict[str, Any] = {
    "pads": lambda x: ops.pad(ops.pad(x, (1, 2, -1, 3), value=0.5), (1, 0, 0, 1), "reflect"),
    "sizes": lambda x: ops.interpolate(ops.interpolate(x, (3, 11), mode="bilinear"), (4, 5)),
    "columns": lambda x: ops.fold(ops.unfold(x, (2, 3), 1, 1, 2), (3, 6), (2, 3), 1, 1, 2),
    "shuffles": lambda x: ops.channel_shuffle(ops.pixel_shuffle(x, 2), 1),
    "grid": lambda x: ops.grid_sample(x, ops.affine_grid(THETA, x.shape)),
    "responses": lambda x: ops.local_response_norm(x, 3, 0.5),
}


@pytest.mark.parametrize("name", list(PROGRAMS))
def test_values_and_gradients(name: str) -> None:
    run = PROGRAMS[name]

    def both(x: Any) -> Any:
        return run(x), gp.grad(lambda a: ops.sum(ops.square(run(a))))(x)

    found, expected = (
        gp.compile(both, backend=b, options=OPTIONS)(IMAGES) for b in (BACKEND, "numpy")
    )
    for a, b in zip(found, expected, strict=True):
        assert_close(a, b, name)


def test_random_changes_are_those_of_the_host() -> None:
    layer = nn.Sequential(nn.RandomHorizontalFlip(), nn.RandomCrop((3, 4), 1))
    found = []
    for backend in (BACKEND, "numpy"):
        gp.manual_seed(3)
        found.append(np.asarray(gp.compile(layer, backend=backend, options=OPTIONS)(IMAGES)))
    assert_same(found[0], found[1])
