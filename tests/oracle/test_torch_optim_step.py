"""What a step does beside the update rule, against PyTorch: clipping, accumulation, averages."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import pytest
from registered import BACKENDS
from tolerances import ORACLE
from twin import BATCH, Twin

from gpubp import optim
from gpubp.optim import lr_scheduler

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")

pytestmark = pytest.mark.oracle

OPTIMIZERS = [("SGD", {"lr": 0.1, "momentum": 0.9}), ("AdamW", {"lr": 0.01})]


@pytest.fixture(params=list(itertools.product(("float32", "float64"), BACKENDS)))
def twin(request: pytest.FixtureRequest) -> Twin:
    return Twin(*request.param)


@pytest.mark.parametrize(
    "settings",
    [
        {"max_grad_value": 0.05},
        {"max_grad_norm": 0.2},
        {"max_grad_value": 0.1, "max_grad_norm": 0.2},
    ],
    ids=str,
)
@pytest.mark.parametrize(("name", "options"), OPTIMIZERS)
def test_clipped_gradients_and_updates_equal_torch(
    twin: Twin, name: str, options: dict[str, Any], settings: dict[str, Any]
) -> None:
    mine, theirs = twin.optimizers(name, options)
    changed = []

    def clip() -> None:
        params = list(twin.other.parameters())
        before = [p.grad.clone() for p in params]
        if "max_grad_value" in settings:
            torch.nn.utils.clip_grad_value_(params, settings["max_grad_value"])
        if "max_grad_norm" in settings:
            torch.nn.utils.clip_grad_norm_(params, settings["max_grad_norm"])
        changed.append(any((p.grad != g).any() for p, g in zip(params, before, strict=True)))

    twin.train(twin.stepper(mine, **settings), theirs, 50, before=clip)
    assert sum(changed) > 10
    twin.check()


@pytest.mark.parametrize(("name", "options"), OPTIMIZERS)
@pytest.mark.parametrize("settings", [{}, {"max_grad_norm": 0.2}], ids=str)
def test_accumulated_batches_equal_torchs_large_one(
    twin: Twin, name: str, options: dict[str, Any], settings: dict[str, Any]
) -> None:
    """As torch with one large batch; the last group of an epoch has fewer batches and samples."""
    mine, theirs = twin.optimizers(name, options)
    schedules = [
        s.ExponentialLR(o, gamma=0.9)
        for s, o in ((lr_scheduler, mine), (torch.optim.lr_scheduler, theirs))
    ]
    step = twin.stepper(mine, accumulate=3, scheduler=schedules[0], **settings)
    for _ in range(4):
        order = twin.order[:37]
        losses = step.run(twin.X, twin.y, batch_size=5, order=order)
        batches = [order[i : i + 5] for i in range(0, 37, 5)]
        assert len(losses) == len(batches) == 8
        for i in range(0, 8, 3):
            rows = np.concatenate(batches[i : i + 3])
            twin.losses.append(
                np.average(losses[i : i + 3], weights=[len(b) for b in batches[i : i + 3]])
            )
            theirs.zero_grad()
            twin.expected.append(twin.backward(rows))
            if settings:
                torch.nn.utils.clip_grad_norm_(twin.other.parameters(), 0.2)
            theirs.step()
            schedules[1].step()
        assert step.pending == 0
    assert schedules[0].last_epoch == schedules[1].last_epoch == 12
    twin.check()


@pytest.mark.parametrize("decay", [0.9, 0.999, 0.0])
def test_averages_of_weights_equal_torch(twin: Twin, decay: float) -> None:
    mine, theirs = twin.optimizers("SGD", {"lr": 0.1, "momentum": 0.9})
    average = torch.optim.swa_utils.AveragedModel(
        twin.other, multi_avg_fn=torch.optim.swa_utils.get_ema_multi_avg_fn(decay)
    )
    ema = optim.EMA(twin.model.parameters(), decay)
    step = twin.stepper(mine, ema=ema)
    for steps in (1, 20, 9):
        twin.train(step, theirs, steps, lambda: average.update_parameters(twin.other))
    twin.check()
    assert ema.n_averaged == int(average.n_averaged) == 30
    before = twin.model.state_dict()
    with ema.apply():
        twin.check_weights(average.module.state_dict())
        mine_out = np.array(step.backend and twin.model(twin.X))
    theirs_out = average(torch.from_numpy(twin.X)).detach().numpy()
    np.testing.assert_allclose(mine_out, theirs_out, atol=ORACLE[twin.dtype])
    for key, value in twin.model.state_dict().items():
        np.testing.assert_array_equal(value, before[key])


def test_single_calls_equal_runs(twin: Twin) -> None:
    mine, theirs = twin.optimizers("Adam", {"lr": 0.01})
    schedules = [
        s.StepLR(o, step_size=4, gamma=0.7)
        for s, o in ((lr_scheduler, mine), (torch.optim.lr_scheduler, theirs))
    ]
    ema = optim.EMA(twin.model.parameters(), 0.9)
    step = twin.stepper(mine, scheduler=schedules[0], accumulate=2, ema=ema)
    for i in range(15):
        rows = twin.order[i * 2 * BATCH : (i + 1) * 2 * BATCH]
        losses = []
        for j, half in enumerate((rows[:BATCH], rows[BATCH:])):
            losses.append(step(twin.X[half], twin.y[half]))
            assert step.pending == (j + 1) % 2
        twin.losses.append(np.mean(losses))
        theirs.zero_grad()
        twin.expected.append(twin.backward(rows))
        theirs.step()
        schedules[1].step()
    assert schedules[0].get_last_lr() == pytest.approx(schedules[1].get_last_lr())
    assert ema.n_averaged == 15
    twin.check()
