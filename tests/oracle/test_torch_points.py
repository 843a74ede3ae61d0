"""Activations against PyTorch where they have kinks, ends or limits: values and gradients."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tolerances import ATOL, ORACLE

import gpubp as gp
from gpubp import nn, ops

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
torch.set_num_threads(1)

pytestmark = pytest.mark.oracle

POINTS = (-1e4, -100.0, -20.0, -6.0, -3.0, -1.0, -0.5, -1e-3, -0.0, 0.0, 1e-3, 0.5, 1.0, 2.0, 3.0)
PLAIN = (
    "ReLU", "ReLU6", "LeakyReLU", "PReLU", "ELU", "CELU", "SELU", "GELU", "SiLU", "Mish",
    "Sigmoid", "LogSigmoid", "Hardsigmoid", "Tanh", "Hardtanh", "Hardswish", "Softplus",
    "Softsign", "Tanhshrink", "Hardshrink", "Softshrink",
)  # fmt: skip
ACTIVATIONS: dict[str, tuple[Any, ...]] = {
    **dict.fromkeys(PLAIN, ()),
    "Threshold": (0.5, 2.0),
    "RReLU": (0.3, 0.3),  # of which each draw is the same
}

# The gradient of PyTorch's own Hardsigmoid in float64 has 1/6 to float32's precision only.
REPLACED = {"Hardsigmoid": lambda x: torch.nn.functional.relu6(x + 3.0) / 6.0}


@pytest.mark.parametrize("dtype", list(ORACLE))
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_values_and_gradients_at_special_points(name: str, dtype: str) -> None:
    x = np.array([*POINTS, 6.0, 20.0, 100.0, 1e4], dtype)
    options = {"dtype": dtype} if name == "PReLU" else {}
    mine = getattr(nn, name)(*ACTIVATIONS[name], **options)
    tx = torch.from_numpy(x.copy()).requires_grad_()
    theirs = getattr(torch.nn, name)(*ACTIVATIONS[name]).to(getattr(torch, dtype))
    out = REPLACED.get(name, theirs)(tx)
    out.sum().backward()
    expected = [out.detach().numpy(), tx.grad.numpy()]

    def both(x: Any) -> Any:
        return mine(x), gp.grad(lambda v: ops.sum(mine(v)))(x)

    for found in (both(x), gp.compile(both, backend="numba")(x)):
        for actual, reference in zip(found, expected, strict=True):
            # Point by point: the largest ones would hide the rest.
            np.testing.assert_allclose(actual, reference, ORACLE[dtype], ATOL[dtype], strict=True)


def test_gains_equal_torch() -> None:
    for name in ("linear", "sigmoid", "tanh", "relu", "leaky_relu", "selu", "conv2d"):
        expected = torch.nn.init.calculate_gain(name)
        assert nn.init.calculate_gain(name) == pytest.approx(expected, rel=1e-15)
    assert nn.init.calculate_gain("leaky_relu", 0.2) == torch.nn.init.calculate_gain(
        "leaky_relu", 0.2
    )


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("xavier_uniform_", {"gain": 2.0}),
        ("xavier_normal_", {}),
        ("kaiming_uniform_", {"a": 0.2}),
        ("kaiming_normal_", {"mode": "fan_out", "nonlinearity": "relu"}),
        ("trunc_normal_", {"std": 0.5, "a": -0.4, "b": 0.9}),
        ("orthogonal_", {"gain": 3.0}),
    ],
)
@pytest.mark.parametrize("shape", [(300, 200), (40, 30, 50)])
def test_initialisers_have_torch_distribution(name: str, options: Any, shape: Any) -> None:
    torch.manual_seed(0)
    gp.manual_seed(0)
    mine = getattr(nn.init, name)(nn.Parameter(np.zeros(shape, np.float32)), **options).value
    theirs = getattr(torch.nn.init, name)(torch.empty(shape), **options).numpy()
    # 60,000 numbers each: quantiles agree within 3 percent of the spread.
    at = np.linspace(0.02, 0.98, 25)
    gap = np.abs(np.quantile(mine, at) - np.quantile(theirs, at)).max()
    assert gap < 0.03 * theirs.std()
