"""What is done to torch's objects between steps; modules from one library to the other."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")
import torch.nn.functional as F  # noqa: E402, N812
import torch_programs  # noqa: E402
from in_place import (  # noqa: E402, F401 - beside this file
    TOLERANCE,
    assert_close,
    assert_same_model,
    assert_same_optimizer,
    batches,
    eager,
    in_float64,
)
from torch import nn  # noqa: E402
from torch_programs import BATCH, PROGRAMS, SAMPLES  # noqa: E402

import gpubp.torch  # noqa: E402

torch.set_num_threads(1)

pytestmark = pytest.mark.oracle


def _mlp_step(**options: Any) -> tuple[Any, Any, Any, Any]:
    program = PROGRAMS["mlp"]
    model, data = program.model(), program.data()
    optimizer = program.optimizer(model)
    return (
        model,
        optimizer,
        gpubp.torch.compile_step(model, program.loss, optimizer, **options),
        data,
    )


def test_states_go_both_ways_between_steps() -> None:
    """Weights and optimiser state that are loaded are what the next step starts from."""
    model, optimizer, step, data = _mlp_step()
    step.run(*data, batch_size=BATCH, shuffle=False)
    file = io.BytesIO()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, file)
    later = step.run(*data, batch_size=BATCH, shuffle=False)
    file.seek(0)
    saved = torch.load(file, weights_only=True)
    assert file.tell() < 60_000  # no bank was saved with each tensor
    model.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    again = step.run(*data, batch_size=BATCH, shuffle=False)
    np.testing.assert_array_equal(again, later)


def test_parameters_that_are_replaced_are_no_longer_trained() -> None:
    """As in torch, whose optimiser keeps the old ones."""
    model, _, step, data = _mlp_step()
    batch = next(batches(data))
    step(*batch)
    model.load_state_dict(copy.deepcopy(model.state_dict()), assign=True)
    expected = float(F.cross_entropy(model(batch[0]), batch[1]))
    assert [float(step(*batch)) for _ in range(2)] == pytest.approx([expected] * 2, rel=1e-12)


def test_torch_sees_each_step_in_its_own_memory() -> None:
    model, _, step, data = _mlp_step()
    batch = next(batches(data))
    step(*batch)
    before = {name: p.data_ptr() for name, p in model.named_parameters()}
    first = float(F.cross_entropy(model(batch[0]), batch[1]))
    step(*batch)
    second = float(F.cross_entropy(model(batch[0]), batch[1]))
    assert second < first
    assert before == {name: p.data_ptr() for name, p in model.named_parameters()}


def test_modes_attributes_and_frozen_parameters_are_read_at_each_call() -> None:
    model = nn.Sequential(nn.Linear(6, 5), nn.BatchNorm1d(5), nn.Linear(5, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    step = gpubp.torch.compile_step(model, nn.CrossEntropyLoss(), optimizer)
    batch = next(batches((torch.randn(SAMPLES, 6), torch.randint(0, 3, (SAMPLES,)))))
    step(*batch)
    assert int(model[1].num_batches_tracked) == 1
    model.eval()
    step(*batch)
    assert int(model[1].num_batches_tracked) == 1
    model.train()
    model[0].weight.requires_grad_(False)
    frozen = model[0].weight.clone()
    bias = model[2].bias.clone()
    step(*batch)
    assert int(model[1].num_batches_tracked) == 2
    assert torch.equal(model[0].weight, frozen) and not torch.equal(model[2].bias, bias)
    model[1].momentum = 1.0
    mean = model[0](batch[0]).mean(0).detach()
    step(*batch)
    assert_close(model[1].running_mean, mean, "all of the batch")


@pytest.mark.parametrize("layer", [nn.BatchNorm1d, nn.BatchNorm2d])
def test_running_statistics_of_all_batches_follow_torch(layer: Any) -> None:
    """momentum=None: the mean, whose weights depend on the count of batches."""
    front = nn.Linear(6, 5) if layer is nn.BatchNorm1d else nn.Unflatten(1, (3, 2, 1))
    behind = nn.Linear(5, 3) if layer is nn.BatchNorm1d else nn.Flatten()
    width = 5 if layer is nn.BatchNorm1d else 3
    mine = nn.Sequential(front, layer(width, momentum=None), behind)
    theirs = copy.deepcopy(mine)
    mo, to = (torch.optim.SGD(m.parameters(), lr=0.1) for m in (mine, theirs))
    loss_fn = nn.CrossEntropyLoss()
    step = gpubp.torch.compile_step(mine, loss_fn, mo)
    for batch in batches((torch.randn(SAMPLES, 6), torch.randint(0, 3, (SAMPLES,)))):
        assert_close(step(*batch), eager(theirs, loss_fn, to, batch), "loss")
    assert_same_model(mine, theirs)
    assert int(mine[1].num_batches_tracked) > 1
    mine.eval(), theirs.eval()
    step(*batch), eager(theirs, loss_fn, to, batch)
    assert_same_model(mine, theirs)


def test_parameters_that_do_not_reach_the_loss_stay_as_torch_leaves_them() -> None:
    class TwoHeads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.body, self.a, self.b = nn.Linear(6, 4), nn.Linear(4, 3), nn.Linear(4, 3)

        def forward(self, x: Any) -> Any:
            return self.a(torch.tanh(self.body(x)))

    mine = TwoHeads()
    theirs = copy.deepcopy(mine)
    mo, to = (torch.optim.AdamW(m.parameters(), lr=0.1) for m in (mine, theirs))
    step = gpubp.torch.compile_step(mine, nn.CrossEntropyLoss(), mo)
    for batch in batches((torch.randn(SAMPLES, 6), torch.randint(0, 3, (SAMPLES,)))):
        step(*batch)
        eager(theirs, nn.CrossEntropyLoss(), to, batch)
    assert_same_model(mine, theirs)
    assert_same_optimizer(mo, to)


def test_a_loader_of_one_short_batch_is_run_and_an_empty_one_refused() -> None:
    _, _, step, data = _mlp_step()
    dataset = torch.utils.data.TensorDataset(*data)
    loader = torch.utils.data.DataLoader(dataset, batch_size=2 * SAMPLES)
    assert step.run(loader).shape == (1,)
    with pytest.raises(gpubp.errors.ArgumentError, match="no batches"):
        step.run(torch.utils.data.DataLoader(dataset, batch_size=2 * SAMPLES, drop_last=True))
    with pytest.raises(gpubp.errors.ArgumentError, match="loader's own"):
        step.run(loader, batch_size=8)


@pytest.mark.full
def test_a_data_loader_is_run_in_its_own_order() -> None:
    program = PROGRAMS["mlp"]
    mine, data = program.model(), program.data()
    theirs = copy.deepcopy(mine)
    mo, to = program.optimizer(mine), program.optimizer(theirs)
    dataset = torch.utils.data.TensorDataset(*data)
    loader = torch.utils.data.DataLoader(dataset, batch_size=7, shuffle=True)
    step = gpubp.torch.compile_step(mine, program.loss, mo)
    torch.manual_seed(3)
    losses = step.run(loader, epochs=2).tolist()
    torch.manual_seed(3)
    expected = [eager(theirs, program.loss, to, batch) for _ in range(2) for batch in loader]
    np.testing.assert_allclose(losses, expected, rtol=TOLERANCE)
    assert_same_model(mine, theirs)


@pytest.mark.full
def test_clipped_gradients_are_torchs() -> None:
    mine, _, step, data = _mlp_step(max_grad_norm=0.01)
    theirs = copy.deepcopy(mine)
    to = PROGRAMS["mlp"].optimizer(theirs)
    for batch in batches(data, 1):
        loss = step(*batch)
        to.zero_grad()
        expected = F.cross_entropy(theirs(batch[0]), batch[1])
        expected.backward()
        nn.utils.clip_grad_norm_(theirs.parameters(), 0.01)
        to.step()
        assert_close(float(loss), float(expected), "loss")
    assert_same_model(mine, theirs)


@pytest.mark.full
def test_a_module_of_torch_is_one_of_gpubp() -> None:
    import gpubp as gp

    theirs = torch_programs.convolutional()
    mine = gpubp.torch.from_module(theirs)
    assert list(mine.state_dict()) == list(theirs.state_dict())
    x, y = torch.randn(8, 1, 8, 8).numpy(), torch.randint(0, 3, (8,)).numpy()
    theirs.eval()
    expected = theirs(torch.from_numpy(x)).detach()
    assert_close(mine(x), expected, "at once")
    assert_close(gp.compile(lambda x: mine(x))(x), expected, "compiled")
    mine.train()
    assert theirs.training and theirs[1].training
    loss = gp.nn.CrossEntropyLoss()
    step = gp.compile_step(lambda x, y: loss(mine(x), y), gp.optim.SGD(mine.parameters(), lr=0.1))
    step(x, y)
    assert_same_model(theirs, gpubp.torch.to_module(mine))
    assert int(theirs[1].num_batches_tracked) == 1
    for name, value in mine.state_dict().items():
        np.testing.assert_array_equal(theirs.state_dict()[name].numpy(), value)


def test_layers_of_gpubp_are_torchs() -> None:
    import gpubp as gp

    mine = gp.nn.Sequential(
        gp.nn.Conv2d(1, 4, 3, padding=1, bias=False, dtype="float64"),
        gp.nn.BatchNorm2d(4, dtype="float64"),
        gp.nn.LeakyReLU(0.2),
        gp.nn.MaxPool2d(2),
        gp.nn.Flatten(),
        gp.nn.Linear(64, 3, dtype="float64"),
    )
    theirs = gpubp.torch.to_module(mine)
    x = torch.randn(4, 1, 8, 8)
    assert_close(theirs(x).detach(), mine(x.numpy()), "outputs")
    with pytest.raises(gpubp.errors.ArgumentError, match="has no counterpart in torch"):
        gpubp.torch.to_module(type("Own", (gp.nn.Module,), {})())
