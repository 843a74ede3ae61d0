"""What the tests of programs trained in place share: batches, steps of torch's, comparisons."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from tolerances import ORACLE
from torch_programs import BATCH, SAMPLES

EPOCHS = 2
TOLERANCE = ORACLE["float64"]


@pytest.fixture(autouse=True)
def in_float64() -> Iterator[None]:
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.float64)
    torch.manual_seed(1)
    yield
    torch.set_default_dtype(before)


def batches(data: Any, epochs: int = EPOCHS) -> Iterator[Any]:
    for _ in range(epochs):
        for first in range(0, SAMPLES, BATCH):
            yield tuple(d[first : first + BATCH] for d in data)


def eager(model: Any, loss_fn: Any, optimizer: Any, batch: Any) -> float:
    """One step of torch's."""
    optimizer.zero_grad()
    loss = loss_fn(model(*batch[:-1]), batch[-1])
    loss.backward()
    optimizer.step()
    return loss.item()


def assert_close(actual: Any, expected: Any, what: str) -> None:
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.dtype == expected.dtype and actual.shape == expected.shape, what
    error = np.abs(actual - expected).max(initial=0.0)
    assert error <= TOLERANCE * np.abs(expected).max(initial=0.0), what


def assert_same_model(mine: Any, theirs: Any) -> None:
    expected = theirs.state_dict()
    assert list(mine.state_dict()) == list(expected)
    for name, value in mine.state_dict().items():
        assert_close(value, expected[name], name)


def assert_same_optimizer(mine: Any, theirs: Any) -> None:
    actual, expected = mine.state_dict(), theirs.state_dict()
    assert actual["param_groups"] == expected["param_groups"]
    assert actual["state"].keys() == expected["state"].keys()
    for i, state in expected["state"].items():
        assert actual["state"][i].keys() == state.keys()
        for name, value in state.items():
            assert_close(actual["state"][i][name], value, f"{i}: {name}")
