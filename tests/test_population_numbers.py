"""Numbers and schedules of members: of losses, in slots, by step and by epoch."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import populations as pop
import pytest
from registered import with_workers

import gpubp as gp
from gpubp import nn, optim
from gpubp.backends.base import Backend
from gpubp.errors import ArgumentError, DataError, UnknownNameError
from gpubp.optim import lr_scheduler

ONE = with_workers(2)
X, Y = pop.data()
SIGNS = np.where(Y == 0, 1.0, -1.0).astype(np.float32)
VALUES = (X[:, :3] * 2.0).astype(np.float32)


@pytest.fixture(params=ONE)
def backend(request: Any) -> Backend:
    return ONE[request.param]()


# Of each loss that declares a number: how it is made, the numbers, and its targets.
LOSSES: dict[str, tuple[Callable[[Any], Any], list[float], Any]] = {
    "label_smoothing": (lambda s: nn.CrossEntropyLoss(label_smoothing=s), [0.0, 0.1, 0.3], Y),
    "smoothing of probabilities": (
        lambda s: nn.CrossEntropyLoss(label_smoothing=s),
        [0.0, 0.1, 0.3],
        np.eye(3, dtype=np.float32)[Y],
    ),
    "delta": (lambda d: nn.HuberLoss(delta=d), [0.1, 1.0, 3.0], VALUES),
    "beta": (lambda b: nn.SmoothL1Loss(beta=b), [0.1, 1.0, 3.0], VALUES),
    "margin of classes": (lambda m: nn.MultiMarginLoss(margin=m), [0.5, 1.0, 2.0], Y),
    "margin of distances": (
        lambda m: _first(nn.HingeEmbeddingLoss(margin=m)),
        [0.5, 1.0, 2.0],
        SIGNS,
    ),
    "margin of ranks": (lambda m: _ranked(nn.MarginRankingLoss(margin=m)), [0.0, 0.5, 1.0], SIGNS),
    "margin of cosines": (
        lambda m: _turned(nn.CosineEmbeddingLoss(margin=m)),
        [0.0, 0.2, 0.5],
        SIGNS,
    ),
    "margin of triplets": (lambda m: _triplets(nn.TripletMarginLoss(m)), [0.5, 1.0, 2.0], VALUES),
}


def _first(loss: Any) -> Any:
    return lambda z, t: loss(gp.ops.abs(z[:, 0]), t)


def _ranked(loss: Any) -> Any:
    return lambda z, t: loss(z[:, 0], z[:, 1], t)


def _turned(loss: Any) -> Any:
    return lambda z, t: loss(z, gp.ops.multiply(z, np.float32([1.0, -1.0, 0.5])), t)


def _triplets(loss: Any) -> Any:
    return lambda z, t: loss(z, t, gp.ops.multiply(t, np.float32(-1.0)))


def _trained(i: int, loss: Any, target: Any, backend: Backend) -> Any:
    gp.manual_seed(i)
    model = nn.Linear(pop.FEATURES, pop.CLASSES)
    step = gp.compile_step(
        lambda x, t: loss(model(x), t),
        optim.SGD(model.parameters(), lr=0.05),
        seed=i,
        backend=backend,
    )
    return step.run(X, target, batch_size=50, epochs=2)


@pytest.mark.parametrize("name", LOSSES)
def test_numbers_of_losses_differ_between_members(name: str, backend: Backend) -> None:
    make, numbers, target = LOSSES[name]
    number = nn.Buffer(np.float64(numbers[1]))
    loss, model = make(number), nn.Linear(pop.FEATURES, pop.CLASSES)
    made = gp.compile_population(
        lambda x, t: loss(model(x), t),
        optim.SGD(model.parameters(), lr=0.05),
        n=3,
        model=model,
        initial=lambda: nn.Linear(pop.FEATURES, pop.CLASSES),
        slots={number: np.array(numbers)},
        backend=backend,
    )
    losses = made.run(X, target, batch_size=50, epochs=2)
    for i, value in enumerate(numbers):
        own = nn.Buffer(np.float64(value))
        assert pop.as_bits([losses[i]]) == pop.as_bits([_trained(i, make(own), target, backend)])
        np.testing.assert_allclose(
            losses[i], _trained(i, make(value), target, backend), rtol=1e-5, atol=1e-6
        )
    assert len(set(pop.as_bits(losses))) == 3


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.CrossEntropyLoss(label_smoothing=nn.Buffer(np.float64(2.0))), r"in \[0, 1\]"),
        (lambda: nn.CrossEntropyLoss(label_smoothing=nn.Buffer(np.zeros(2))), "a Buffer of one"),
        (lambda: nn.HuberLoss(delta=nn.Buffer(np.int64(1))), "a Buffer of one float"),
        (lambda: nn.HuberLoss(delta=nn.Buffer(np.float64(0.0))), "above 0"),
        (lambda: nn.SmoothL1Loss(beta=nn.Buffer(np.float64(0.0))), "at least 0"),
        (lambda: nn.MultiMarginLoss(margin=nn.Buffer(np.float64(np.inf))), "finite"),
        (lambda: nn.MarginRankingLoss(nn.Buffer(np.float64(np.nan))), "finite"),
        (lambda: nn.TripletMarginLoss(nn.Buffer(np.float64(-1.0))), "above 0"),
    ],
)
def test_numbers_of_losses_are_checked_in_buffers_too(make: Any, message: str) -> None:
    with pytest.raises(DataError, match=message):
        make()


def test_slots_are_read_and_changed_between_runs(backend: Backend) -> None:
    rate = nn.Buffer(np.float64(0.0))
    made = pop.population(
        3, backend=backend, drop=rate, initial=lambda: pop.make(nn.Buffer(np.float64(0.0))),
        slots={rate: [0.0, 0.2, 0.4]},
    )  # fmt: skip
    assert made.hyper(rate).tolist() == [0.0, 0.2, 0.4] and made.hyper(rate, 1).tolist() == [0.2]
    made.set_hyper(rate, 0.5, [0, 2])
    made.set_hyper(rate, [0.1], 1)
    assert made.hyper(rate).tolist() == [0.5, 0.1, 0.5]
    made.copy(0, 1)
    assert made.hyper(rate, 1).tolist() == [0.5]
    with pytest.raises(DataError, match="no slot that members have"):
        made.hyper(nn.Buffer(np.float64(0.0)))
    with pytest.raises(ValueError, match=r"one for each member"):
        made.set_hyper(rate, [0.1, 0.2], 1)


def test_a_state_from_before_the_first_run_is_the_beginning_again(backend: Backend) -> None:
    made = pop.population(2, optim.Adam, backend, lr=[0.01, 0.02])
    start = made.full_state()
    first = made.run(X, Y, batch_size=50, epochs=2)
    made.load_full_state(start)
    assert pop.as_bits(made.run(X, Y, batch_size=50, epochs=2)) == pop.as_bits(first)
    part = made.full_state()
    part["arrays"].popitem()
    with pytest.raises(DataError, match="is not in both"):
        made.load_full_state(part)


RULES: list[Callable[[Any], Any]] = [
    lambda o: lr_scheduler.StepLR(o, 2, 0.5),
    lambda o: lr_scheduler.CosineAnnealingLR(o, 4),
    lambda o: lr_scheduler.ReduceLROnPlateau(o, patience=0, threshold=0.9),
]


def test_schedules_by_epoch_are_stepped_after_each(backend: Backend) -> None:
    made = pop.population(
        3, backend=backend, lr=[0.01, 0.02, 0.03], scheduler=RULES, scheduler_every="epoch"
    )
    first = made.run(X, Y, batch_size=50, epochs=3)
    state = made.full_state()
    second = made.run(X, Y, batch_size=50, epochs=2)
    for i, rule in enumerate(RULES):
        alone = pop.Alone(i, backend=backend, numbers={"lr": [0.01, 0.02, 0.03][i]})
        schedule, losses = rule(alone.optimizer), []
        for epoch in range(5):
            losses.append(alone.run(X, Y, batch_size=50))
            schedule.step(*([made.histories[i][epoch]] if i == 2 else []))
        assert pop.as_bits([np.concatenate([first[i], second[i]])]) == pop.as_bits(
            [np.concatenate(losses)]
        )
        assert made.hyper("lr")[i] == alone.optimizer.param_groups[0]["lr"]
    assert made.hyper("lr")[2] < 0.03  # the plateau was seen
    again = pop.population(
        3, backend=backend, lr=[0.01, 0.02, 0.03], scheduler=RULES, scheduler_every="epoch"
    )
    again.load_full_state(state)
    assert pop.as_bits(again.run(X, Y, batch_size=50, epochs=2)) == pop.as_bits(second)


def test_schedules_by_epoch_and_by_step_are_told_apart() -> None:
    with pytest.raises(UnknownNameError, match="scheduler_every"):
        pop.population(2, scheduler=RULES[0], scheduler_every="batch")
    with pytest.raises(DataError, match='scheduler_every="epoch"'):
        pop.population(2, scheduler=RULES[2])
    with pytest.raises(ArgumentError, match=r"expected a schedule with a step"):
        pop.population(2, scheduler=lambda optimizer: 3, scheduler_every="epoch")


def test_orders_of_several_epochs_are_gone_through_with_a_callback(backend: Backend) -> None:
    rng = np.random.default_rng(0)
    orders = [np.stack([rng.permutation(len(X)) for _ in range(3)]) for _ in range(2)]
    whole = pop.population(2, backend=backend).run(X, Y, batch_size=50, orders=orders)
    seen: list[int] = []
    made = pop.population(2, backend=backend)
    found = made.run(
        X, Y, batch_size=50, orders=orders, callback=lambda p, epoch: seen.append(epoch)
    )
    assert seen == [1, 2, 3] and pop.as_bits(found) == pop.as_bits(whole)
    uneven = [orders[0], orders[1][:2]]
    with pytest.raises(DataError, match="orders are of 2 to 3 epochs"):
        made.run(X, Y, batch_size=50, orders=uneven, callback=lambda p, epoch: None)
