"""Recurrent layers beside PyTorch: fifty steps of classifiers, lengths, carried states, packing."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from registered import BACKENDS
from tolerances import ORACLE

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.nn.utils import rnn
from gpubp.runtime.step import compile_step

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
from torch.nn.utils import rnn as theirs_rnn  # noqa: E402 - there now

torch.set_num_threads(1)

pytestmark = pytest.mark.oracle

STEPS, BATCH, SAMPLES, LENGTH, WIDTH, CLASSES = 50, 8, 40, 9, 5, 3
# eps as for other networks: gradients that are 0 but for rounding would be scaled up to numbers
# that no two libraries share.
OPTIMIZERS: dict[str, dict[str, Any]] = {
    "Adam": {"lr": 1e-2, "eps": 1e-4},
    "SGD": {"lr": 0.1, "momentum": 0.9},
}
MODELS: dict[str, tuple[str, dict[str, Any]]] = {
    "LSTM": ("LSTM", {}),
    "GRU": ("GRU", {}),
    "LSTM of two layers and directions": (
        "LSTM",
        {"num_layers": 2, "bidirectional": True, "proj_size": 4},
    ),
    "GRU of two layers and directions": ("GRU", {"num_layers": 2, "bidirectional": True}),
    "RNN of two directions": ("RNN", {"bidirectional": True}),
}
# The reference takes ten times as long: the plain models are enough.
RUNS = [(name, b) for name in MODELS for b in BACKENDS if b != "numpy" or name in ("LSTM", "GRU")]
SLOW = {"numpy": pytest.mark.full}


def classifier(nn: Any, name: str, **dtype: Any) -> Any:
    """A recurrent layer of 7, its last states and mean outputs, and a linear layer."""
    kind, options = MODELS[name]

    class Classifier(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layer = getattr(nn, kind)(WIDTH, 7, batch_first=True, **options, **dtype)
            size = options.get("proj_size", 7) * (2 if "bidirectional" in options else 1)
            self.head = nn.Linear(2 * size, CLASSES, **dtype)

        def forward(self, x: Any, *lengths: Any) -> Any:
            return self.joined(*self.layer(x, None, *lengths))

        def joined(self, outputs: Any, state: Any) -> Any:
            h = state[0] if isinstance(state, tuple) else state
            count = 2 if "bidirectional" in options else 1
            parts = [outputs.mean(1)] + [h[h.shape[0] - count + i] for i in range(count)]
            cat = torch.cat if isinstance(h, torch.Tensor) else ops.concat
            return self.head(cat(parts, 1))

    return Classifier()


def models(name: str, dtype: str) -> tuple[Any, Any]:
    """Ours and torch's with the same weights."""
    ops.manual_seed(5)
    mine = classifier(nn, name, dtype=dtype)
    theirs = classifier(torch.nn, name, dtype=getattr(torch, dtype))
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in mine.state_dict().items()})
    return mine, theirs


def data(dtype: str) -> tuple[Any, Any, Any]:
    """Sequences whose class is in their mean, their lengths, the classes."""
    rng = np.random.default_rng(6)
    labels = rng.integers(0, CLASSES, SAMPLES)
    x = rng.standard_normal((SAMPLES, LENGTH, WIDTH)) + (labels[:, None, None] - 1) * 0.7
    return x.astype(dtype), rng.integers(1, LENGTH + 1, SAMPLES), labels


def in_torch(model: Any, x: Any, lengths: Any) -> Any:
    """The model's result for padded sequences, with lengths or without."""
    x = torch.from_numpy(x)
    if lengths is None:
        return model(x)
    packed = theirs_rnn.pack_padded_sequence(
        x, torch.from_numpy(lengths), batch_first=True, enforce_sorted=False
    )
    outputs, state = model.layer(packed)
    padded, _ = theirs_rnn.pad_packed_sequence(outputs, batch_first=True, total_length=LENGTH)
    return model.joined(padded, state)


@pytest.mark.parametrize("dtype", list(ORACLE))
@pytest.mark.parametrize("with_lengths", [False, True], ids=["whole", "lengths"])
@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize(
    ("name", "backend"), [pytest.param(*run, marks=SLOW.get(run[1], ())) for run in RUNS]
)
@pytest.mark.filterwarnings("ignore:LSTM with projections")
def test_fifty_steps_equal_torchs(
    name: str, optimizer: str, with_lengths: bool, dtype: str, backend: str
) -> None:
    """Losses of all steps, then weights."""
    mine, theirs = models(name, dtype)
    x, lengths, y = data(dtype)
    order = np.random.default_rng(7).integers(0, SAMPLES, STEPS * BATCH)
    loss_fn, options = nn.CrossEntropyLoss(), OPTIMIZERS[optimizer]
    step = compile_step(
        lambda x, y, *rest: loss_fn(mine(x, *rest), y),
        getattr(optim, optimizer)(mine.parameters(), **options),
        backend=backend,
    )
    given = (x, y, lengths) if with_lengths else (x, y)
    losses = step.run(*given, batch_size=BATCH, order=order)

    other = getattr(torch.optim, optimizer)(theirs.parameters(), **options)
    expected = []
    for rows in order.reshape(STEPS, BATCH):
        other.zero_grad()
        out = in_torch(theirs, x[rows], lengths[rows] if with_lengths else None)
        loss = torch.nn.functional.cross_entropy(out, torch.from_numpy(y[rows]))
        loss.backward()
        other.step()
        expected.append(loss.item())
    np.testing.assert_allclose(losses, expected, rtol=ORACLE[dtype])
    assert min(expected[-5:]) < 0.9 * expected[0], "nothing was learnt"
    state, reference = mine.state_dict(), theirs.state_dict()
    assert list(state) == list(reference)
    for key, value in state.items():
        wanted = reference[key].numpy()
        assert np.abs(value - wanted).max() <= ORACLE[dtype] * np.abs(wanted).max(), key


@pytest.mark.parametrize("packed", [False, True], ids=["lengths", "packed"])
@pytest.mark.parametrize("name", MODELS)
def test_lengths_are_torchs_packed_sequences(name: str, packed: bool) -> None:
    """Outputs, last states, and gradients by x, by the states before, and by weights."""
    mine, theirs = (m.layer for m in models(name, "float64"))
    rng = np.random.default_rng(8)
    x, lengths = rng.standard_normal((4, LENGTH, WIDTH)), np.array([3, LENGTH, 1, 6])
    count = 2 * mine.num_layers if mine.bidirectional else mine.num_layers
    sizes = [mine.proj_size or 7, 7][: 2 if name.startswith("LSTM") else 1]
    states = [rng.standard_normal((count, 4, n)) for n in sizes]
    arrays = [x, *states]
    tensors = [torch.from_numpy(a).requires_grad_() for a in arrays]
    given = theirs_rnn.pack_padded_sequence(
        tensors[0], torch.from_numpy(lengths), batch_first=True, enforce_sorted=False
    )
    out, last = theirs(given, tuple(tensors[1:]) if len(sizes) == 2 else tensors[1])
    padded, _ = theirs_rnn.pad_packed_sequence(out, batch_first=True)
    wanted = [padded, *(last if len(sizes) == 2 else (last,))]
    weights = [rng.standard_normal(tuple(w.shape)) for w in wanted]
    total = sum((w * torch.from_numpy(v)).sum() for w, v in zip(wanted, weights, strict=True))
    slopes = torch.autograd.grad(total, [*tensors, *theirs.parameters()])

    def called(x: Any, n: Any, *states: Any) -> Any:
        hx = states if len(states) == 2 else states[0]
        if packed:
            out, last = mine(rnn.pack_padded_sequence(x, n, True, enforce_sorted=False), hx)
            out, _ = rnn.pad_packed_sequence(out, batch_first=True)
        else:
            out, last = mine(x, hx, n)
        return (out, *last) if len(states) == 2 else (out, last)

    def loss(x: Any, n: Any, *states: Any) -> Any:
        found = called(x, n, *states)
        return sum(ops.sum(ops.multiply(a, v)) for a, v in zip(found, weights, strict=True))

    for run in (called, gp.compile(called)):
        for a, b in zip(run(x, lengths, *states), wanted, strict=True):
            np.testing.assert_allclose(np.asarray(a), b.detach().numpy(), rtol=0, atol=1e-12)
    places = (0, *range(2, 2 + len(states)))
    found = gp.compile(gp.grad(loss, argnums=places))(x, lengths, *states)
    for a, b in zip(found, slopes, strict=False):
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=1e-11)
    step = compile_step(
        lambda x, n: loss(x, n, *states), optim.SGD(mine.parameters(), lr=0.0), keep_grads=True
    )
    step(x, lengths)
    for a, b in zip(step.grads, slopes[len(tensors) :], strict=True):
        np.testing.assert_allclose(a, b.numpy(), rtol=0, atol=1e-11)


@pytest.mark.parametrize("dtype", list(ORACLE))
def test_states_that_are_carried_from_step_to_step(dtype: str) -> None:
    """Truncated backpropagation through time, as with `detach` in torch."""
    mine, theirs = models("LSTM", dtype)
    x, _, _ = data(dtype)
    targets = np.cumsum(x, 1)[..., :CLASSES].astype(dtype)

    class Stateful(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = mine
            for name in ("h", "c"):
                self.register_buffer(name, np.zeros((1, SAMPLES, 7), dtype))
            self.out = nn.Linear(7, CLASSES, dtype=dtype)

        def forward(self, x: Any) -> Any:
            y, (h, c) = self.model.layer(x, (self.h, self.c))
            ops.assign(self.h, h)
            ops.assign(self.c, c)
            return self.out(y)

    model = Stateful()
    other = torch.nn.Linear(7, CLASSES, dtype=getattr(torch, dtype))
    other.load_state_dict({k: torch.from_numpy(v) for k, v in model.out.state_dict().items()})
    step = compile_step(
        lambda x, y: ops.mean((model(x) - y) ** 2),
        optim.SGD([*mine.layer.parameters(), *model.out.parameters()], lr=0.05),
    )
    sgd = torch.optim.SGD([*theirs.layer.parameters(), *other.parameters()], lr=0.05)
    state = None
    for _ in range(5):
        for first in range(0, LENGTH, 3):
            piece = slice(first, first + 3)
            found = step(x[:, piece].copy(), targets[:, piece].copy())
            y, state = theirs.layer(torch.from_numpy(x[:, piece].copy()), state)
            state = tuple(s.detach() for s in state)
            loss = (other(y) - torch.from_numpy(targets[:, piece].copy())).square().mean()
            sgd.zero_grad()
            loss.backward()
            sgd.step()
            np.testing.assert_allclose(float(found), loss.item(), rtol=ORACLE[dtype])
    np.testing.assert_allclose(model.h.value, state[0].numpy(), rtol=0, atol=ORACLE[dtype])


def test_packing_is_torchs() -> None:
    rng = np.random.default_rng(9)
    parts = [rng.standard_normal((n, 2)) for n in (4, 6, 1)]
    tensors = [torch.from_numpy(p) for p in parts]
    for first in (False, True):
        for side in ("left", "right"):
            found = rnn.pad_sequence(parts, first, 1.5, side)
            wanted = theirs_rnn.pad_sequence(tensors, first, 1.5, side)
            np.testing.assert_array_equal(found, wanted.numpy())
        mine, n = rnn.pad_packed_sequence(rnn.pack_sequence(parts, False), first, -2.0, 8)
        packed = theirs_rnn.pack_sequence(tensors, False)
        wanted, lengths = theirs_rnn.pad_packed_sequence(packed, first, -2.0, 8)
        np.testing.assert_array_equal(mine, wanted.numpy())
        np.testing.assert_array_equal(n, lengths.numpy())
        back = rnn.unpad_sequence(mine, n, first)
        for a, b in zip(back, parts, strict=True):
            np.testing.assert_array_equal(a, b)
    for a, b in zip(rnn.unpack_sequence(rnn.pack_sequence(parts, False)), parts, strict=True):
        np.testing.assert_array_equal(a, b)
    padded = np.stack([np.arange(10.0).reshape(5, 2)] * 2)
    cut = rnn.pack_padded_sequence(padded, [3, 2], batch_first=True)
    wanted, _ = theirs_rnn.pad_packed_sequence(
        theirs_rnn.pack_padded_sequence(torch.from_numpy(padded), [3, 2], batch_first=True)
    )
    np.testing.assert_array_equal(rnn.pad_packed_sequence(cut)[0], wanted.numpy())
