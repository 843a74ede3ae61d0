"""Rules of torch's operations: results and gradients of small functions are torch's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tolerances import ORACLE

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
from torch_functions import FUNCTIONS  # noqa: E402 - beside this file

import gpubp as gp  # noqa: E402
from gpubp.torch.translated import Translated  # noqa: E402

torch.set_num_threads(1)

pytestmark = [pytest.mark.oracle, pytest.mark.full]

TOLERANCE = ORACLE["float64"]


def _arguments() -> tuple[Any, ...]:
    torch.manual_seed(2)
    x, y = (torch.randn(3, 4, dtype=torch.float64) for _ in range(2))
    return x, y, torch.randint(0, 4, (3, 4)), torch.rand(3, 4) > 0.5


def _assert_close(actual: Any, expected: Any) -> None:
    actual = np.asarray(actual)
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    error = np.abs(actual - expected).max(initial=0.0)
    assert error <= TOLERANCE * max(1.0, np.abs(expected).max(initial=0.0))


@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_translated_equals_torch(name: str) -> None:
    fn = FUNCTIONS[name]
    x, y, i, m = _arguments()
    leaves = [v.clone().requires_grad_() for v in (x, y)]
    out = fn(*leaves, i, m)
    cotangent = np.random.default_rng(3).standard_normal(tuple(out.shape))
    total = (out * torch.from_numpy(np.array(cotangent))).sum()
    given = torch.autograd.grad(total, leaves, allow_unused=True)
    translated = Translated([], fn)
    params = [gp.nn.Parameter(v.numpy()) for v in (x, y)]

    def loss(i: Any, m: Any) -> Any:
        made = translated(*[p * 1.0 for p in params], i, m)
        unused = sum(gp.ops.sum(p * 0.0) for p in params)
        return gp.ops.sum(gp.ops.multiply(made, cotangent)) + unused, made

    optimizer = gp.optim.SGD(params, lr=0.0)
    step = gp.compile_step(loss, optimizer, backend="numpy", keep_grads=True)
    _, found = step(i.numpy(), m.numpy())
    _assert_close(found, out.detach().numpy())
    for grad, wanted in zip(step.grads, given, strict=True):
        _assert_close(grad, np.zeros((3, 4)) if wanted is None else wanted.numpy())
