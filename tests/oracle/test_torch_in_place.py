"""Torch programs trained in place: losses, weights, buffers and optimiser state are torch's."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
import torch.nn.functional as F  # noqa: E402, N812
from in_place import (  # noqa: E402, F401 - beside this file
    EPOCHS,
    TOLERANCE,
    assert_same_model,
    assert_same_optimizer,
    batches,
    eager,
    in_float64,
)
from torch import nn  # noqa: E402
from torch_programs import BATCH, PROGRAMS  # noqa: E402

import gpubp.torch  # noqa: E402

torch.set_num_threads(1)

pytestmark = pytest.mark.oracle


@pytest.mark.full
@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_trains_as_torch_trains_it(name: str) -> None:
    """Step by step, then whole epochs; then torch goes on with what gpubp has left."""
    program = PROGRAMS[name]
    mine, data = program.model(), program.data()
    theirs = copy.deepcopy(mine)
    my_optimizer, their_optimizer = program.optimizer(mine), program.optimizer(theirs)
    step = gpubp.torch.compile_step(mine, program.loss, my_optimizer)
    losses = [float(step(*batch)) for batch in batches(data, 1)]
    losses += step.run(*data, batch_size=BATCH, epochs=EPOCHS, shuffle=False).tolist()
    losses += [eager(mine, program.loss, my_optimizer, b) for b in batches(data, 1)]
    losses += step.run(*data, batch_size=BATCH, shuffle=False).tolist()
    expected = [eager(theirs, program.loss, their_optimizer, b) for b in batches(data, EPOCHS + 3)]
    np.testing.assert_allclose(losses, expected, rtol=TOLERANCE)
    assert_same_model(mine, theirs)
    assert_same_optimizer(my_optimizer, their_optimizer)


def _gan() -> tuple[Any, Any]:
    generator = nn.Sequential(nn.Linear(3, 8), nn.ReLU(), nn.Linear(8, 2))
    return generator, nn.Sequential(nn.Linear(2, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))


def _gan_losses(G: Any, D: Any) -> tuple[Any, Any]:
    bce = F.binary_cross_entropy_with_logits

    def of_critic(real: Any, noise: Any) -> Any:
        fake = G(noise).detach()
        right = bce(D(real), torch.ones(len(real), 1))
        return right + bce(D(fake), torch.zeros(len(fake), 1))

    def of_generator(noise: Any) -> Any:
        return bce(D(G(noise)), torch.ones(len(noise), 1))

    return of_critic, of_generator


@pytest.mark.full
def test_a_gan_with_two_optimizers_trains_as_torch_trains_it() -> None:
    mine = _gan()
    theirs = copy.deepcopy(mine)
    optimizers = [
        [torch.optim.Adam(m.parameters(), lr=1e-2, betas=(0.5, 0.999)) for m in pair]
        for pair in (mine, theirs)
    ]
    of_critic, of_generator = _gan_losses(*mine)
    critic = gpubp.torch.compile_step(mine, of_critic, optimizers[0][1])
    generator = gpubp.torch.compile_step(mine, of_generator, optimizers[0][0])
    their_losses = _gan_losses(*theirs)
    for _ in range(6):
        real, noise, other = torch.randn(8, 2), torch.randn(8, 3), torch.randn(8, 3)
        found = [float(critic(real, noise)), float(generator(other))]
        expected = []
        for fn, optimizer, batch in zip(
            their_losses, reversed(optimizers[1]), ((real, noise), (other,)), strict=True
        ):
            optimizer.zero_grad()
            loss = fn(*batch)
            loss.backward()
            optimizer.step()
            expected.append(float(loss))
        np.testing.assert_allclose(found, expected, rtol=TOLERANCE)
    for a, b in zip(mine, theirs, strict=True):
        assert_same_model(a, b)
    for a, b in zip(*optimizers, strict=True):
        assert_same_optimizer(a, b)


SCHEDULES: dict[str, Any] = {
    "StepLR": lambda o: torch.optim.lr_scheduler.StepLR(o, 2, 0.5),
    "OneCycleLR": lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, total_steps=30),
    "LambdaLR": lambda o: torch.optim.lr_scheduler.LambdaLR(o, lambda k: 1 / (1 + k)),
    "SequentialLR": lambda o: torch.optim.lr_scheduler.SequentialLR(
        o,
        [
            torch.optim.lr_scheduler.LinearLR(o, 0.1, total_iters=3),
            torch.optim.lr_scheduler.CosineAnnealingLR(o, 10),
        ],
        milestones=[3],
    ),
}


@pytest.mark.full
@pytest.mark.parametrize("name", SCHEDULES)
@pytest.mark.parametrize("inside", [True, False], ids=["inside", "by hand"])
def test_a_schedule_by_step_is_followed(name: str, inside: bool) -> None:
    program = PROGRAMS["mlp"]
    mine, data = program.model(), program.data()
    theirs = copy.deepcopy(mine)
    mo, to = program.optimizer(mine), program.optimizer(theirs)
    ms, ts = SCHEDULES[name](mo), SCHEDULES[name](to)
    step = gpubp.torch.compile_step(mine, program.loss, mo, scheduler=ms if inside else None)
    losses: list[float] = []
    for batch in batches(data, 1):
        losses.append(float(step(*batch)))
        if not inside:
            ms.step()
    if inside:
        losses += step.run(*data, batch_size=BATCH, epochs=EPOCHS, shuffle=False).tolist()
    expected = []
    for batch in batches(data, EPOCHS + 1 if inside else 1):
        expected.append(eager(theirs, program.loss, to, batch))
        ts.step()
    np.testing.assert_allclose(losses, expected, rtol=TOLERANCE)
    assert ms.get_last_lr() == pytest.approx(ts.get_last_lr(), rel=1e-12)
    assert ms.last_epoch == ts.last_epoch
    assert_same_model(mine, theirs)
    assert [g["lr"] for g in mo.param_groups] == pytest.approx([g["lr"] for g in to.param_groups])
