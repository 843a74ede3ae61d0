"""Averages of weights against PyTorch's swa_utils; its schedule is among the other schedules."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import gpubp as gp
from gpubp import nn
from gpubp.errors import ArgumentError, DataError, ShapeError
from gpubp.optim import swa_utils

torch = pytest.importorskip("torch", reason="needs PyTorch: pip install 'gpubp[oracle]'")

pytestmark = pytest.mark.oracle

X = np.random.default_rng(0).normal(1.5, 2.0, size=(50, 4))


def _models() -> tuple[nn.Module, Any]:
    """A network with BatchNorm in both libraries, with the same weights."""
    gp.manual_seed(0)
    f64: dict[str, Any] = {"dtype": "float64"}
    mine = nn.Sequential(nn.Linear(4, 5, **f64), nn.BatchNorm1d(5, **f64), nn.Linear(5, 2, **f64))
    t = torch.nn
    theirs = t.Sequential(t.Linear(4, 5), t.BatchNorm1d(5), t.Linear(5, 2)).double()
    theirs.load_state_dict({k: torch.from_numpy(v) for k, v in mine.state_dict().items()})
    return mine, theirs


def _wander(mine: nn.Module, theirs: Any, seed: int) -> None:
    """Both models get the same new weights, and running statistics."""
    rng = np.random.default_rng(seed)
    state = {k: rng.normal(size=v.shape) for k, v in mine.state_dict().items()}
    state["1.num_batches_tracked"] = np.array(7 * seed)
    mine.load_state_dict(state)
    theirs.load_state_dict({k: torch.from_numpy(np.array(v)) for k, v in state.items()})


def _assert_equal(mine: nn.Module, theirs: Any) -> None:
    expected = {k: v.numpy() for k, v in theirs.state_dict().items()}
    found = mine.state_dict()
    assert list(found) == list(expected)
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-15, err_msg=name)


AVERAGES: dict[str, Any] = {
    "default": lambda s: {},
    "swa": lambda s: {"avg_fn": s.get_swa_avg_fn()},
    "swa, all": lambda s: {"multi_avg_fn": s.get_swa_multi_avg_fn()},
    "ema": lambda s: {"avg_fn": s.get_ema_avg_fn(0.7)},
    "ema, all": lambda s: {"multi_avg_fn": s.get_ema_multi_avg_fn(0.7)},
    "own": lambda s: {"avg_fn": lambda a, w, n: 0.5 * a + w / (n + 2)},
}


@pytest.mark.parametrize("use_buffers", [False, True])
@pytest.mark.parametrize("name", AVERAGES)
def test_averages_equal_torch(name: str, use_buffers: bool) -> None:
    (mine, theirs), make = _models(), AVERAGES[name]
    # Of lists PyTorch's plain average takes 1 / (n + 1) as float32: compare with that of one array.
    their_options = AVERAGES["swa" if name == "swa, all" else name](torch.optim.swa_utils)
    ours = swa_utils.AveragedModel(mine, use_buffers=use_buffers, **make(swa_utils))
    reference = torch.optim.swa_utils.AveragedModel(
        theirs, use_buffers=use_buffers, **their_options
    )
    for seed in range(1, 5):
        _wander(mine, theirs, seed)
        ours.update_parameters(mine)
        reference.update_parameters(theirs)
        _assert_equal(ours, reference)
    assert int(ours.n_averaged.value) == 4
    batches = [X[:20], (X[20:40], None), [X[40:]]]
    swa_utils.update_bn(batches, ours)
    torch.optim.swa_utils.update_bn(
        [torch.from_numpy(b if isinstance(b, np.ndarray) else b[0]) for b in batches], reference
    )
    _assert_equal(ours, reference)
    ours.eval(), reference.eval()
    expected = reference(torch.from_numpy(X)).detach().numpy()
    np.testing.assert_allclose(ours(X), expected, rtol=1e-10, atol=1e-12)


def test_state_goes_from_one_to_the_other() -> None:
    mine, theirs = _models()
    ours = swa_utils.AveragedModel(mine)
    reference = torch.optim.swa_utils.AveragedModel(theirs)
    for seed in (1, 2):
        _wander(mine, theirs, seed)
        reference.update_parameters(theirs)
    ours.load_state_dict({k: v.numpy() for k, v in reference.state_dict().items()})
    _wander(mine, theirs, 3)
    ours.update_parameters(mine)
    reference.update_parameters(theirs)
    _assert_equal(ours, reference)


def test_a_model_without_batch_norm_and_modes_stay_as_they_are() -> None:
    model = nn.Sequential(nn.Linear(4, 3), nn.BatchNorm1d(3, momentum=0.3), nn.Linear(3, 1))
    model[2].eval()
    before = model[0].weight.numpy()
    swa_utils.update_bn([X.astype(np.float32)], model)
    assert model[1].training and not model[2].training and model[1].momentum == 0.3
    np.testing.assert_array_equal(model[0].weight.value, before)
    plain = nn.Linear(4, 3)
    swa_utils.update_bn(iter([]), plain)
    with pytest.raises(ShapeError):
        swa_utils.update_bn([X[:, :3].astype(np.float32)], model)
    assert model[1].momentum == 0.3 and not model[2].training


def test_what_is_refused() -> None:
    model, _ = _models()
    average = swa_utils.get_swa_avg_fn()
    optimizer = gp.optim.SGD(model.parameters(), lr=0.1)
    for call, error, message in (
        (lambda: swa_utils.AveragedModel(model, None, average, average), DataError, "one of them"),
        (lambda: swa_utils.AveragedModel(model, "cuda"), ArgumentError, "device is 'cuda'"),
        (lambda: swa_utils.AveragedModel(5), ArgumentError, "model"),
        (lambda: swa_utils.update_bn([X], model, "cuda"), ArgumentError, "device is 'cuda'"),
        (lambda: swa_utils.get_ema_avg_fn(1.5), DataError, r"decay is 1.5"),
        (lambda: swa_utils.get_ema_multi_avg_fn(-0.1), DataError, r"decay is -0.1"),
        (
            lambda: swa_utils.AveragedModel(model).update_parameters(nn.Linear(4, 5)),
            ShapeError,
            "expected those of",
        ),
        (lambda: swa_utils.SWALR(optimizer, -0.1), DataError, "swa_lr is -0.1"),
        (lambda: swa_utils.SWALR(optimizer, 0.1, -1), DataError, "anneal_epochs is -1"),
        (lambda: swa_utils.SWALR(optimizer, 0.1, 5, "cosine"), DataError, "'cos' or 'linear'"),
        (lambda: swa_utils.SWALR(optimizer, [0.1, 0.2]), DataError, "2 values"),
    ):
        with pytest.raises(error, match=message):
            call()


def test_without_annealing_the_rate_is_there_at_once() -> None:
    params = [nn.Parameter(np.ones(2))], [torch.nn.Parameter(torch.ones(2))]
    mine, theirs = gp.optim.SGD(params[0], lr=0.1), torch.optim.SGD(params[1], lr=0.1)
    ours = swa_utils.SWALR(mine, 0.3, 0)
    reference = torch.optim.swa_utils.SWALR(theirs, 0.3, 0)
    for _ in range(3):
        assert ours.get_last_lr() == reference.get_last_lr() == [0.3]
        theirs.step()
        ours.step()
        reference.step()


def test_it_goes_on_from_where_the_schedule_before_it_ended() -> None:
    schedules = gp.optim.lr_scheduler
    optimizer = gp.optim.SGD([nn.Parameter(np.ones(2))], lr=1.0)
    swa = swa_utils.SWALR(optimizer, 0.05, 4, "linear")
    both = schedules.SequentialLR(optimizer, [schedules.ExponentialLR(optimizer, 0.5), swa], [2])
    rates = []
    for _ in range(8):
        rates += both.get_last_lr()
        both.step()
    np.testing.assert_allclose(rates, [1.0, 0.5, 0.5, 0.3875, 0.275, 0.1625, 0.05, 0.05])
