"""Sequences of different lengths in torch programs: CTC, and what takes the place of packing."""

from __future__ import annotations

import copy
from typing import Any

import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
from torch import nn  # noqa: E402

import gpubp.torch  # noqa: E402
from gpubp.errors import ArgumentError, TraceError  # noqa: E402

pytestmark = pytest.mark.oracle
SAMPLES, STEPS, SIZE, CLASSES = 4, 9, 5, 6


class Speech(nn.Module):  # type: ignore[misc]
    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.GRU(SIZE, 8, batch_first=True)
        self.out = nn.Linear(8, CLASSES)

    def forward(self, x: Any) -> Any:
        return self.out(self.rnn(x)[0]).log_softmax(-1).transpose(0, 1)


def _data() -> tuple[Any, ...]:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(SAMPLES, STEPS, SIZE, generator=generator, dtype=torch.float64)
    labels = torch.randint(1, CLASSES, (SAMPLES, 3), generator=generator)
    return x, labels, torch.tensor([9, 7, 9, 8]), torch.tensor([3, 2, 1, 3])


def _trajectories(loss: Any, batch: tuple[Any, ...]) -> tuple[list[float], list[float]]:
    torch.manual_seed(0)
    theirs = Speech().double()
    ours = copy.deepcopy(theirs)
    found: list[list[float]] = []
    for model in (theirs, ours):
        optimizer = torch.optim.Adam(model.parameters(), lr=0.05)
        losses = []
        step = None
        if model is ours:
            step = gpubp.torch.compile_step(model, loss, optimizer)
        for _ in range(6):
            if step is not None:
                losses.append(step(batch[0], batch[1:]).item())
                continue
            optimizer.zero_grad()
            value = loss(model(batch[0]), batch[1:])
            value.backward()
            optimizer.step()
            losses.append(value.item())
        found.append(losses)
    for a, b in zip(theirs.parameters(), ours.parameters(), strict=True):
        torch.testing.assert_close(b, a, rtol=1e-8, atol=1e-10)
    return found[0], found[1]


@pytest.mark.parametrize(
    "options",
    [{}, {"reduction": "sum"}, {"blank": 5}, {"zero_infinity": True}],
    ids=str,
)
def test_ctc_follows_torch(options: dict[str, Any]) -> None:
    module = nn.CTCLoss(**options)
    x, labels, *lengths = _data()
    if "blank" in options:
        labels = labels - 1
    theirs, ours = _trajectories(lambda out, y: module(out, *y), (x, labels, *lengths))
    assert ours == pytest.approx(theirs, rel=1e-10)
    assert ours[-1] < ours[0]


def test_ctc_with_lengths_that_are_numbers_and_one_sequence() -> None:
    x, labels, *_ = _data()
    function = nn.functional.ctc_loss

    def lists(out: Any, y: Any) -> Any:
        return function(out, y[0], (9, 7, 9, 8), (3, 2, 1, 3))

    def alone(out: Any, y: Any) -> Any:
        return function(out[:, 0], y[0][0], torch.tensor(9), torch.tensor(3))

    def each(out: Any, y: Any) -> Any:
        return (function(out, y[0], (9,) * 4, (3, 2, 1, 3), reduction="none") ** 2).sum()

    for loss in (lists, alone, each):
        theirs, ours = _trajectories(loss, (x, labels))
        assert ours == pytest.approx(theirs, rel=1e-10)


def test_labels_one_behind_the_other_are_refused_by_line() -> None:
    x, labels, inputs, lengths = _data()
    model = Speech().double()

    def loss(out: Any, y: Any) -> Any:
        return nn.functional.ctc_loss(out, y[0].reshape(-1)[:9], y[1], y[2])  # joined

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(TraceError, match=r"sequences\.py, line \d+: return .*# joined: .*padded"):
        gpubp.torch.compile_step(model, loss, optimizer)(x, (labels, inputs, lengths))


class Last(nn.Module):  # type: ignore[misc]
    """The last state of each sequence, as the error about packed ones says it."""

    def __init__(self) -> None:
        super().__init__()
        self.rnn = nn.LSTM(SIZE, 8, batch_first=True)
        self.out = nn.Linear(8, 1)

    def forward(self, x: Any, lengths: Any) -> Any:
        outputs = self.rnn(x)[0]
        return self.out(outputs[torch.arange(len(x)), lengths - 1])


def test_what_is_advised_for_packed_sequences_is_the_same() -> None:
    x, _, lengths, _ = _data()
    torch.manual_seed(0)
    model = Last().double()
    packed = nn.utils.rnn.pack_padded_sequence(x, lengths, True, enforce_sorted=False)
    expected = model.out(model.rnn(packed)[1][0][-1])
    torch.testing.assert_close(model(x, lengths), expected)
    y = torch.randn(SAMPLES, 1, dtype=torch.float64)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    before = nn.functional.mse_loss(expected, y).item()
    step = gpubp.torch.compile_step(model, nn.MSELoss(), optimizer)
    assert step(x, lengths, y).item() == pytest.approx(before, rel=1e-10)
    with pytest.raises(ArgumentError, match="got a PackedSequence"):
        step(packed, lengths, y)
