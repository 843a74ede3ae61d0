"""CTCLoss beside PyTorch's, behind log_softmax.

PyTorch's gradient by the logarithms themselves is not their derivative: it is the one by the scores
that log_softmax is taken of, which is the same thing behind a log_softmax and only there.
"""

from __future__ import annotations

import numpy as np
import pytest

import gpubp as gp
from gpubp import nn, ops
from gpubp.errors import GpubpError

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
pytestmark = pytest.mark.oracle

CASES = [(r, z) for r in ("none", "sum", "mean") for z in (True, False)]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(("reduction", "zero_infinity"), CASES)
@pytest.mark.parametrize("blank", [0, 2])
def test_losses_and_gradients(blank: int, reduction: str, zero_infinity: bool, dtype: str) -> None:
    rng = np.random.default_rng(blank)
    scores = rng.standard_normal((12, 4, 6)).astype(dtype)
    labels = rng.integers(0, 5, (4, 5))
    labels += labels >= blank
    labels[1, :3] = labels[1, 0]  # a label again and again
    times, sizes = np.array([12, 12, 7, 9 if not zero_infinity else 3]), np.array([5, 4, 0, 5])
    mine = nn.CTCLoss(blank, reduction, zero_infinity)

    def loss(x: object) -> object:
        return mine(ops.log_softmax(x), labels, times, sizes)

    x = torch.tensor(scores, requires_grad=True)
    given = [torch.tensor(a) for a in (labels, times, sizes)]
    theirs = torch.nn.functional.ctc_loss(
        x.log_softmax(-1), *given, blank, reduction, zero_infinity
    )
    tolerance = 2e-5 if dtype == "float32" else 1e-11
    np.testing.assert_allclose(
        gp.compile(loss, backend="numba")(scores), theirs.detach().numpy(), tolerance, tolerance
    )
    theirs.sum().backward()
    found = gp.compile(gp.grad(lambda x: ops.sum(loss(x))), backend="numba")(scores)
    np.testing.assert_allclose(found, x.grad.numpy(), tolerance, tolerance)


@pytest.mark.parametrize("reduction", ["none", "sum", "mean"])
@pytest.mark.parametrize("zero_infinity", [True, False])
def test_infinite_losses(zero_infinity: bool, reduction: str) -> None:
    """Losses are torch's. Gradients are, too, with `zero_infinity`; without it torch has NaN for
    sequences without a way, where gpubp has the same zeros."""
    scores = np.random.default_rng(0).standard_normal((4, 4, 4))
    labels = np.array([[1, 1, 1], [1, 2, 3], [2, 2, 0], [3, 1, 0]])  # twice the same needs a blank
    times, sizes = np.array([4, 4, 2, 3]), np.array([3, 3, 2, 2])
    scores[:, 3, 1] = -np.inf  # a label of probability 0
    mine = nn.CTCLoss(0, reduction, zero_infinity)

    def loss(x: object) -> object:
        return mine(ops.log_softmax(x), labels, times, sizes)

    x = torch.tensor(scores, requires_grad=True)
    given = [torch.tensor(a) for a in (labels, times, sizes)]
    theirs = torch.nn.functional.ctc_loss(x.log_softmax(-1), *given, 0, reduction, zero_infinity)
    theirs.sum().backward()
    found = gp.compile(gp.grad(lambda x: ops.sum(loss(x))), backend="numba")(scores)
    value = gp.compile(loss, backend="numba")(scores)
    np.testing.assert_allclose(value, theirs.detach().numpy(), 1e-11, 1e-11)
    wanted = x.grad.numpy()
    assert np.isfinite(wanted).all() == zero_infinity
    np.testing.assert_allclose(found[:, 1], wanted[:, 1], 1e-11, 1e-11)
    for endless in (0, 2, 3):
        assert (found[:, endless] == 0.0).all()
        there = wanted[:, endless]
        assert (there == 0.0).all() if zero_infinity else np.isnan(there).any()


def test_labels_one_behind_the_other() -> None:
    x = np.log(np.full((5, 2, 3), 1 / 3))
    times, sizes = np.array([5, 4]), np.array([2, 1])
    padded = nn.CTCLoss()(x, np.array([[1, 2], [2, 0]]), times, sizes)
    np.testing.assert_allclose(nn.CTCLoss()(x, np.array([1, 2, 2]), times, sizes), padded)


@pytest.mark.parametrize(
    ("blank", "labels", "times", "sizes", "message"),
    [
        (3, [[1, 2], [2, 0]], [5, 4], [2, 1], "blank"),
        (0, [[1, 2], [2, 0]], [6, 4], [2, 1], "input_lengths"),
        (0, [[1, 2], [2, 0]], [5, 4], [3, 1], "target_lengths"),
        (0, [1, 2], [5, 4], [2, 1], "add up to 3"),
    ],
)
def test_what_cannot_be(
    blank: int, labels: list[int], times: list[int], sizes: list[int], message: str
) -> None:
    x = np.log(np.full((5, 2, 3), 1 / 3))
    with pytest.raises(GpubpError, match=message):
        nn.CTCLoss(blank)(x, np.array(labels), np.array(times), np.array(sizes))
