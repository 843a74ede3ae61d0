"""Loops on a real GPU: one kernel of all rounds, rounds that are launched, unknown lengths."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from tolerances import ORACLE

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends.cuda import CupyBackend
from gpubp.backends.cuda.codegen import encode_rounds


def _trained(kind: str, backend: Any) -> dict[str, Any]:
    gp.manual_seed(0)
    layer, head = getattr(nn, kind)(6, 32, num_layers=2, batch_first=True), nn.Linear(32, 3)
    loss_fn = nn.CrossEntropyLoss()
    step = gp.compile_step(
        lambda x, n, y: loss_fn(head(layer(x, None, n)[0][:, -1]), y),
        optim.SGD([*layer.parameters(), *head.parameters()], lr=0.1),
        backend=backend,
    )
    rng = np.random.default_rng(0)
    x, lengths = rng.normal(size=(320, 40, 6)).astype("float32"), rng.integers(1, 41, 320)
    losses = step.run(x, lengths, rng.integers(0, 3, 320), batch_size=32, epochs=2)
    return {"losses": losses, **layer.state_dict()}


@pytest.mark.parametrize("whole", [True, False])
@pytest.mark.parametrize("kind", ["RNN", "LSTM", "GRU"])
def test_recurrent_layers_train_as_on_numpy(
    kind: str, whole: bool, backend: CupyBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    if not whole:
        monkeypatch.setattr(encode_rounds, "MOST_MULTIPLICATIONS", -1)
    found, expected = _trained(kind, backend), _trained(kind, "numpy")
    for name, value in expected.items():
        most = ORACLE["float32"] * np.abs(value).max()
        np.testing.assert_allclose(found[name], value, 0, most, err_msg=name)


def test_loops_of_unknown_length(backend: CupyBackend) -> None:
    def halve(x: Any) -> Any:
        return gp.while_loop(lambda c: ops.sum(c) > 1.0, lambda c: c * 0.5, x)

    run = gp.compile(halve, backend=backend)
    for start in (7.0, 0.25, 1e6):
        x = np.full(2, start, np.float32)
        np.testing.assert_array_equal(run(x), halve(x))
