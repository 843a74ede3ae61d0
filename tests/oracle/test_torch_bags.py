"""Bags of embeddings trained beside PyTorch's; the adaptive softmax with its weights."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpubp as gp
from gpubp import nn, ops, optim

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
pytestmark = pytest.mark.oracle


def models(dtype: str, mode: str) -> tuple[Any, Any]:
    theirs = torch.nn.Sequential(torch.nn.EmbeddingBag(50, 8, mode=mode), torch.nn.Linear(8, 4))
    theirs = theirs.to(getattr(torch, dtype))
    mine = nn.Sequential(
        nn.EmbeddingBag(50, 8, mode=mode, dtype=dtype), nn.Linear(8, 4, dtype=dtype)
    )
    mine.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    return mine, theirs


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("mode", ["sum", "mean", "max"])
def test_fifty_steps_of_a_bag(mode: str, dtype: str) -> None:
    torch.manual_seed(0)
    mine, theirs = models(dtype, mode)
    rng = np.random.default_rng(0)
    x, y = rng.integers(0, 50, (50 * 16, 6)), rng.integers(0, 4, 50 * 16)
    loss = nn.CrossEntropyLoss()
    step = gp.compile_step(
        lambda x, y: loss(mine(x), y), optim.SGD(mine.parameters(), lr=0.2, momentum=0.9)
    )
    losses = step.run(x, y, batch_size=16, shuffle=False)
    optimizer = torch.optim.SGD(theirs.parameters(), lr=0.2, momentum=0.9)
    wanted = []
    for i in range(50):
        batch = slice(16 * i, 16 * i + 16)
        optimizer.zero_grad()
        out = theirs(torch.tensor(x[batch]))
        cost = torch.nn.functional.cross_entropy(out, torch.tensor(y[batch]))
        cost.backward()
        optimizer.step()
        wanted.append(cost.item())
    tolerance = 1e-4 if dtype == "float32" else 1e-10
    np.testing.assert_allclose(losses, wanted, tolerance, tolerance)
    for name, value in theirs.state_dict().items():
        np.testing.assert_allclose(mine.state_dict()[name], value.numpy(), tolerance, tolerance)


LOOKUPS: list[tuple[str, dict[str, Any]]] = [
    *[(c, {"max_norm": 1.0}) for c in ("Embedding", "EmbeddingBag")],
    *[(c, {"max_norm": 1.5, "norm_type": 1.0}) for c in ("Embedding", "EmbeddingBag")],
    ("Embedding", {"max_norm": 1.2, "norm_type": float("inf"), "sparse": False}),
    ("Embedding", {"scale_grad_by_freq": True}),
    ("Embedding", {"scale_grad_by_freq": True, "max_norm": 2.0, "padding_idx": 1}),
]


@pytest.mark.parametrize("rule", ["SGD", "Adam"])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize(("name", "options"), LOOKUPS)
def test_tables_whose_rows_are_shortened_or_scaled_by_frequency(
    name: str, options: dict[str, Any], backend: str, rule: str
) -> None:
    """Looked up twice in a step, of which the second sees what the first has shortened."""
    theirs = getattr(torch.nn, name)(20, 4, **options).double()
    mine = getattr(nn, name)(20, 4, dtype="float64", **options)
    mine.load_state_dict({k: v.numpy().copy() for k, v in theirs.state_dict().items()})
    rng = np.random.default_rng(0)
    x, t = rng.integers(0, 20, (10, 8, 3)), rng.standard_normal(4)
    step = gp.compile_step(
        lambda x: ops.sum(mine(x) * t) + ops.sum(ops.square(mine(x[:3]))),
        getattr(optim, rule)(mine.parameters(), lr=0.1),
        backend=backend,
    )
    optimizer = getattr(torch.optim, rule)(theirs.parameters(), lr=0.1)
    for batch in x:
        found = step(batch)
        optimizer.zero_grad()
        first = (theirs(torch.tensor(batch)) * torch.tensor(t)).sum()
        cost = first + theirs(torch.tensor(batch[:3])).square().sum()
        cost.backward()
        optimizer.step()
        np.testing.assert_allclose(found, cost.item(), 1e-10)
    np.testing.assert_allclose(mine.weight.value, theirs.weight.detach(), 1e-10, 1e-12)


def test_an_adaptive_softmax_has_torchs_numbers() -> None:
    theirs = torch.nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 12], 2.0, head_bias=True).double()
    mine = nn.AdaptiveLogSoftmaxWithLoss(8, 20, [5, 12], 2.0, head_bias=True, dtype="float64")
    mine.load_state_dict({k: v.numpy() for k, v in theirs.state_dict().items()})
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((7, 8)), rng.integers(0, 20, 7)
    found, wanted = mine(x, y), theirs(torch.tensor(x), torch.tensor(y))
    np.testing.assert_allclose(found.output, wanted.output.detach(), 1e-12)
    np.testing.assert_allclose(found.loss, wanted.loss.detach(), 1e-12)
    np.testing.assert_allclose(mine.log_prob(x), theirs.log_prob(torch.tensor(x)).detach(), 1e-12)
    assert mine.predict(x).tolist() == theirs.predict(torch.tensor(x)).tolist()


def test_tables_that_are_given() -> None:
    table = np.random.default_rng(0).standard_normal((5, 3)).astype(np.float32)
    for cls in (nn.Embedding, nn.EmbeddingBag):
        made = cls.from_pretrained(table)
        assert not made.weight.requires_grad
        np.testing.assert_array_equal(made.weight.value, table)
        assert cls.from_pretrained(table, freeze=False).weight.requires_grad


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("bag", [False, True])
def test_fifty_steps_of_sparse_adam(bag: bool, backend: str, dtype: str) -> None:
    """Rows that no batch looked up stay; gradients of 0 of those that one did move them on."""
    name = "EmbeddingBag" if bag else "Embedding"
    options = {"mode": "sum", "sparse": True} if bag else {"sparse": True, "padding_idx": 3}
    theirs = getattr(torch.nn, name)(40, 4, **options).to(getattr(torch, dtype))
    mine = getattr(nn, name)(40, 4, dtype=dtype, **options)
    mine.load_state_dict({k: v.numpy().copy() for k, v in theirs.state_dict().items()})
    rng = np.random.default_rng(0)
    x = rng.integers(0, 30, (50, 6, 3))
    t = rng.standard_normal((50, 4)).astype(dtype)
    t[::5] = 0.0
    rule = optim.SparseAdam(mine.parameters(), lr=0.02, betas=(0.8, 0.95))
    step = gp.compile_step(lambda x, t: ops.sum(ops.square(mine(x) * t)), rule, backend=backend)
    other = torch.optim.SparseAdam(theirs.parameters(), lr=0.02, betas=(0.8, 0.95))
    tolerance = 1e-4 if dtype == "float32" else 1e-10
    for batch, target in zip(x, t, strict=True):
        found = step(batch, gp.whole(target))
        other.zero_grad()
        cost = (theirs(torch.tensor(batch)) * torch.tensor(target)).square().sum()
        cost.backward()
        other.step()
        np.testing.assert_allclose(found, cost.item(), tolerance, tolerance)
    np.testing.assert_allclose(mine.weight.value, theirs.weight.detach(), tolerance, tolerance)
    moments = rule.state_dict()["state"][0]
    for key in ("exp_avg", "exp_avg_sq"):
        wanted = other.state_dict()["state"][0][key]
        np.testing.assert_allclose(moments[key], wanted, tolerance, tolerance)


@pytest.mark.parametrize("p", [0.0, 0.5, 1.0, 2.0, 3.0, float("inf")])
def test_distances_of_pairs(p: float) -> None:
    rng = np.random.default_rng(0)
    a, b = rng.standard_normal((2, 4, 3)), rng.standard_normal((5, 3))
    pairs = (
        (
            lambda x: ops.cdist(x, b, p),
            lambda x: torch.cdist(x, torch.tensor(b).expand(2, 5, 3), p),
        ),
        (lambda x: ops.pdist(x[0], p), lambda x: torch.pdist(x[0], p)),
    )
    for mine, theirs in pairs:
        x = torch.tensor(a, requires_grad=True)
        wanted = theirs(x)
        np.testing.assert_allclose(mine(a), wanted.detach(), 1e-10)
        wanted.square().sum().backward()
        slope = gp.grad(lambda x, f=mine: ops.sum(ops.square(f(x))))(a)
        np.testing.assert_allclose(slope, x.grad, 1e-9, 1e-12)


def test_decompositions_have_torchs_results_and_gradients() -> None:
    rng = np.random.default_rng(1)
    for shape in ((4, 4), (5, 3), (3, 5)):
        a = rng.standard_normal(shape)
        for mine, theirs in (
            (lambda x: ops.svd(x, False)[1], lambda x: torch.linalg.svd(x, False)[1]),
            (lambda x: ops.qr(x)[0], lambda x: torch.linalg.qr(x)[0]),
            (lambda x: ops.qr(x)[1], lambda x: torch.linalg.qr(x)[1]),
            (ops.pinv, torch.linalg.pinv),
            (
                lambda x: ops.square(ops.svd(x, False)[0]),
                lambda x: torch.linalg.svd(x, False)[0] ** 2,
            ),
            (lambda x: ops.eigh(x @ x.T)[0], lambda x: torch.linalg.eigh(x @ x.T)[0]),
        ):
            x = torch.tensor(a, requires_grad=True)
            wanted = theirs(x)
            weights = rng.standard_normal(tuple(wanted.shape))
            np.testing.assert_allclose(mine(a), wanted.detach(), 1e-9, 1e-11)
            (wanted * torch.tensor(weights)).sum().backward()
            slope = gp.grad(lambda x, f=mine, w=weights: ops.sum(f(x) * w))(a)
            np.testing.assert_allclose(slope, x.grad, 1e-7, 1e-9)
