"""The persistent step on a GPU: blocks that meet between multiprocessors, with their own caches.

What only hardware shows: that fences order what blocks write for each other, that all blocks are
alive, that no meeting waits forever. A launch that hangs ends with the test's time.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from classifier import OPTIMIZERS, classifier_step, digits, mlp
from tolerances import ORACLE

from gpubp import nn
from gpubp.backends.cuda import CudaBackend

MODELS: dict[str, tuple[tuple[int, ...], int]] = {
    "64-100-10": ((64, 100), 200),
    "one block": ((4, 8), 8),
    "deep": ((64, 64, 64, 64, 64), 64),
    "wide": ((784, 256, 128), 128),
}


def _trained(
    target: Any, name: str, model: str, dtype: str = "float32", epochs: int = 10
) -> dict[str, Any]:
    """Nine batches an epoch, the last one short."""
    widths, batch = MODELS[model]
    made = mlp(nn.Tanh, dtype, hidden=widths)
    step = classifier_step(OPTIMIZERS[name], made, backend=target)
    x, y = digits(dtype, 9 * batch - 3, widths[0])
    losses = step.run(x, y, batch_size=batch, epochs=epochs, seed=1)
    if isinstance(target, CudaBackend):
        chosen = "persistent" if target._executions.mode == "persistent" else "graph"
        assert f"execution {chosen}" in step.report()
    return {"losses": losses, **made.state_dict()}


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", ["sgd", "adam", "adam_decay"])
def test_ninety_steps_against_numpy(name: str, model: str, staying: CudaBackend) -> None:
    found = _trained(staying, name, model, "float64")
    for key, value in _trained("numpy", name, model, "float64").items():
        bound = ORACLE["float64"] * np.abs(value).max()
        np.testing.assert_allclose(found[key], value, 0, bound, err_msg=key)


@pytest.mark.parametrize("model", MODELS)
def test_thousands_of_steps_are_the_same_bits_again(model: str, staying: CudaBackend) -> None:
    """A meeting that is passed too early shows as other bits, sooner or later."""
    first = _trained(staying, "adam", model, epochs=500)
    for _ in range(3):
        for key, value in _trained(staying, "adam", model, epochs=500).items():
            np.testing.assert_array_equal(value, first[key], err_msg=key)


@pytest.mark.parametrize("model", MODELS)
def test_recorded_steps_are_near(model: str, staying: CudaBackend, backend: CudaBackend) -> None:
    found, other = _trained(staying, "adam", model), _trained(backend, "adam", model)
    np.testing.assert_allclose(found["losses"], other["losses"], rtol=1e-4)
