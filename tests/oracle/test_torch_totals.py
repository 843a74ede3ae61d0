"""Accumulation, epochs and batches without a counted label, as torch does it on one batch."""

from __future__ import annotations

import numpy as np
import pytest
from loss_cases import IGNORED, SOFT, WEIGHT, N, X, Y
from registered import BACKENDS

from gpubp import nn, ops, optim
from gpubp.runtime.step import compile_step
from gpubp.runtime.totals import together

torch = pytest.importorskip("torch", reason="torch is not installed")
pytestmark = pytest.mark.oracle

CASES = {
    "ignored": ("CrossEntropyLoss", {"ignore_index": -100}, IGNORED),
    "weight": ("CrossEntropyLoss", {"weight": WEIGHT}, Y),
    "all": (
        "CrossEntropyLoss",
        {"weight": WEIGHT, "ignore_index": -100, "label_smoothing": 0.1},
        IGNORED,
    ),
    "summed": ("CrossEntropyLoss", {"ignore_index": -100, "reduction": "sum"}, IGNORED),
    "probabilities": ("CrossEntropyLoss", {"weight": WEIGHT}, SOFT),
    "nll": ("NLLLoss", {"weight": WEIGHT, "ignore_index": -100}, IGNORED),
    "margin": ("MultiMarginLoss", {"weight": WEIGHT}, Y),
    "batchmean": ("KLDivLoss", {"reduction": "batchmean"}, SOFT),
    "kl": ("KLDivLoss", {}, SOFT),
    "squares": ("MSELoss", {"reduction": "sum"}, SOFT),
    "yes or no": ("BCEWithLogitsLoss", {"pos_weight": WEIGHT}, SOFT),
}


def _twins(name, kw):
    """The two models and losses, with the same weights."""
    ops.manual_seed(0)
    ours = nn.Linear(5, 3, dtype="float64")
    theirs = torch.nn.Linear(5, 3, dtype=torch.float64)
    with torch.no_grad():
        theirs.weight.copy_(torch.tensor(ours.weight.numpy()))
        theirs.bias.copy_(torch.tensor(ours.bias.numpy()))
    given = {k: torch.tensor(v) if isinstance(v, np.ndarray) else v for k, v in kw.items()}
    return ours, theirs, getattr(nn, name)(**kw), getattr(torch.nn, name)(**given)


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("case", CASES)
def test_groups_of_batches_are_torchs_large_batches(case, backend):
    """Adam over groups of 12 samples in batches of 4; the last group has 11."""
    name, kw, y = CASES[case]
    ours, theirs, loss, torch_loss = _twins(name, kw)
    optimizer = optim.Adam(ours.parameters(), lr=0.05)
    step = compile_step(lambda a, b: loss(ours(a), b), optimizer, accumulate=3, backend=backend)
    step.run(X, y, batch_size=4, shuffle=False, epochs=2)
    torch_optimizer = torch.optim.Adam(theirs.parameters(), lr=0.05)
    for rows in [slice(0, 12), slice(12, N)] * 2:
        torch_optimizer.zero_grad()
        torch_loss(theirs(torch.tensor(X[rows])), torch.tensor(y[rows])).backward()
        torch_optimizer.step()
    np.testing.assert_allclose(ours.weight.numpy(), theirs.weight.detach().numpy(), rtol=1e-8)
    np.testing.assert_allclose(ours.bias.numpy(), theirs.bias.detach().numpy(), rtol=1e-8)
    step = compile_step(lambda a, b: loss(ours(a), b), optim.SGD(ours.parameters(), lr=1e-30))
    step.run(X, y, batch_size=5)
    expected = torch_loss(theirs(torch.tensor(X)), torch.tensor(y)).item()
    assert together(step.totals) == pytest.approx(expected, rel=1e-7)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_batch_of_ignored_labels_steps_as_torchs_does(backend):
    """Its loss is NaN and its gradient 0 in both, so momentum goes on."""
    y = np.where((np.arange(N) >= 8) & (np.arange(N) < 16), -100, Y)
    ours, theirs, loss, torch_loss = _twins("CrossEntropyLoss", {"ignore_index": -100})
    optimizer = optim.SGD(ours.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    step = compile_step(lambda a, b: loss(ours(a), b), optimizer, backend=backend)
    losses = step.run(X, y, batch_size=8, shuffle=False)
    other = torch.optim.SGD(theirs.parameters(), lr=0.1, momentum=0.9, weight_decay=0.01)
    expected = []
    for i in range(0, N, 8):
        other.zero_grad()
        value = torch_loss(theirs(torch.tensor(X[i : i + 8])), torch.tensor(y[i : i + 8]))
        value.backward()
        other.step()
        expected.append(value.item())
    np.testing.assert_allclose(losses, expected, rtol=1e-10)
    assert np.isnan(losses).tolist() == [False, True, False]
    np.testing.assert_allclose(ours.weight.numpy(), theirs.weight.detach().numpy(), rtol=1e-10)


def _drawn(rng, classes):
    """A random loss: terms of (torch's name, arguments, factor, scale of the outputs)."""
    terms = []
    for _ in range(int(rng.integers(1, 4))):
        name = str(rng.choice(["CrossEntropyLoss", "NLLLoss", "MSELoss"]))
        kw = {"reduction": str(rng.choice(["mean", "sum"]))}
        if name != "MSELoss":
            kw["ignore_index"] = int(rng.choice([-100, 1]))
            if rng.integers(2):
                kw["weight"] = np.round(rng.uniform(0.1, 3.0, classes), 1)
        if name == "CrossEntropyLoss":
            kw["label_smoothing"] = float(rng.choice([0.0, 0.2]))
        terms.append((name, kw, float(rng.normal()), float(rng.uniform(0.5, 1.5))))
    return terms


def _value(library, terms, outputs, y, ones):
    total = 0.0
    for name, kw, factor, scale in terms:
        given = kw
        if library is torch.nn:
            given = {k: torch.tensor(v) if k == "weight" else v for k, v in kw.items()}
        target = ones if name == "MSELoss" else y
        total = total + factor * getattr(library, name)(**given)(outputs * scale, target)
    return total


@pytest.mark.parametrize("seed", range(40))
def test_random_losses_in_random_batches(seed):
    """Sums of losses of any kinds, labels (N,) and (N, L): one update by all batches."""
    rng = np.random.default_rng(seed)
    n, classes, length = (int(rng.integers(a, b)) for a, b in ((3, 20), (2, 5), (1, 4)))
    terms = _drawn(rng, classes)
    x, y = rng.normal(size=(n, 4)), rng.integers(0, classes, (n, length))
    if all(kw.get("ignore_index", -100) == -100 for _, kw, _, _ in terms):
        y[rng.random(y.shape) < 0.4] = -100
    start = rng.normal(size=(classes * length, 4))
    theirs = torch.tensor(start, requires_grad=True)
    outputs = (torch.tensor(x) @ theirs.T).reshape(n, classes, length)
    expected = _value(torch.nn, terms, outputs, torch.tensor(y), torch.ones_like(outputs))
    expected.backward()
    ours = nn.Linear(4, classes * length, bias=False, dtype="float64")
    ours.weight.value = start

    def loss(a, b):
        z = ops.reshape(ours(a), (a.shape[0], classes, length))
        return _value(nn, terms, z, b, ops.broadcast_to(np.ones(()), z.shape))

    batch_size = int(rng.integers(1, n + 1))
    step = compile_step(
        loss,
        optim.SGD(ours.parameters(), lr=1.0),
        accumulate=-(-n // batch_size),
        backend="numpy" if seed % 2 else "numba",
    )
    step.run(x, y, batch_size=batch_size, shuffle=False)
    found = together(step.totals)
    if not np.isfinite(expected.item()):  # no label counts
        assert np.isnan(found) and np.isfinite(ours.weight.numpy()).all()
        return
    assert found == pytest.approx(expected.item(), rel=1e-8, abs=1e-10)
    np.testing.assert_allclose(
        start - ours.weight.numpy(), theirs.grad.numpy(), rtol=1e-8, atol=1e-10
    )
