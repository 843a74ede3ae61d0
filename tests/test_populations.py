"""Members of a population compute what they would compute alone, bit for bit."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import populations as pop
import pytest
from registered import with_workers

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.backends.base import Backend
from gpubp.errors import DataError, UnknownNameError
from gpubp.optim import lr_scheduler

MAKERS = with_workers(1, 2, 3)
ONE = with_workers(2)
X, Y = pop.data()
RATES = np.geomspace(1e-3, 1e-1, 64)


@pytest.fixture(params=MAKERS)
def backend(request: Any) -> Backend:
    return MAKERS[request.param]()


@pytest.fixture(params=ONE)
def any_backend(request: Any) -> Backend:
    return ONE[request.param]()


def _sgd(parameters: Any) -> optim.SGD:
    return optim.SGD(parameters, momentum=0.5)


@pytest.mark.parametrize("n", [1, 7, pytest.param(64, marks=pytest.mark.full)])
def test_members_are_the_models_alone(backend: Backend, n: int) -> None:
    decays = np.linspace(0.0, 0.1, 64)
    made = pop.population(n, backend=backend, lr=RATES[:n], weight_decay=decays[:n])
    losses = made.run(X, Y, batch_size=40, epochs=2)
    assert losses.shape == (n, 8)
    for i in range(n):
        numbers = {"lr": RATES[i], "weight_decay": decays[i]}
        alone = pop.Alone(i, backend=backend, numbers=numbers)
        assert pop.as_bits([losses[i]]) == pop.as_bits(
            [alone.run(X, Y, batch_size=40, epochs=2)]
        ), i
        assert pop.same(made.state_dict(i), alone.state()), i


def test_one_program_serves_all_members(any_backend: Backend) -> None:
    made = pop.population(7, backend=any_backend, lr=RATES[:7])
    made.run(X, Y, batch_size=30, epochs=2)
    assert made.programs == 1
    made.run(X, Y, batch_size=40)
    assert made.programs == 2  # of 40; the last batch has 30 again


def test_momenta_and_dropout_differ_between_members(any_backend: Backend) -> None:
    rate = nn.Buffer(np.float64(0.5))
    momenta, drops = [0.2, 0.5, 0.9], np.array([0.0, 0.3, 0.6])
    made = pop.population(
        3,
        _sgd,
        any_backend,
        drop=rate,
        initial=lambda: pop.make(nn.Buffer(np.float64(0.5))),
        momentum=momenta,
        slots={rate: drops},
    )
    losses = made.run(X, Y, batch_size=50, epochs=2)
    for i in range(3):
        own = nn.Buffer(np.float64(0.5))
        alone = pop.Alone(i, _sgd, any_backend, {"momentum": momenta[i]}, own)
        own.value = drops[i]
        assert pop.as_bits([losses[i]]) == pop.as_bits([alone.run(X, Y, batch_size=50, epochs=2)])


def test_a_dropout_rate_in_a_slot_drops_what_a_number_drops(any_backend: Backend) -> None:
    alone = pop.Alone(3, _sgd, any_backend, drop=0.3)
    other = pop.Alone(3, _sgd, any_backend, drop=nn.Buffer(np.float64(0.3)))
    expected = alone.run(X, Y, batch_size=50)
    np.testing.assert_allclose(other.run(X, Y, batch_size=50), expected, rtol=1e-6)


def test_members_have_rows_of_their_own(backend: Backend) -> None:
    rng = np.random.default_rng(1)
    rows = [np.arange(100), np.arange(50, 140), rng.integers(0, len(X), len(X))]
    made = pop.population(3, backend=backend)
    losses = made.run(X, Y, batch_size=40, epochs=2, rows=rows)
    assert [len(own) for own in losses] == [6, 6, 8]
    for i, own in enumerate(rows):
        alone = pop.Alone(i, backend=backend)
        expected = alone.run(X[own], Y[own], batch_size=40, epochs=2)
        assert pop.as_bits([losses[i]]) == pop.as_bits([expected])
        assert pop.same(made.state_dict(i), alone.state())


def test_members_have_schedules_of_their_own(any_backend: Backend) -> None:
    rules: list[Callable[[Any], Any]] = [
        lambda o: lr_scheduler.StepLR(o, 3, 0.5),
        lambda o: lr_scheduler.CosineAnnealingLR(o, 10),
        lambda o: lr_scheduler.OneCycleLR(o, 0.1, 40, cycle_momentum=False),
    ]
    rates = [0.01, 0.02, 0.03]
    made = pop.population(3, backend=any_backend, lr=rates, scheduler=rules)
    first = made.run(X, Y, batch_size=50, epochs=2)
    second = made.run(X, Y, batch_size=50, epochs=2)
    for i, rule in enumerate(rules):
        alone = pop.Alone(i, backend=any_backend, numbers={"lr": rates[i]}, scheduler=rule)
        for losses in (first, second):
            expected = alone.run(X, Y, batch_size=50, epochs=2)
            assert pop.as_bits([losses[i]]) == pop.as_bits([expected])
        assert made.hyper("lr")[i] == alone.optimizer.param_groups[0]["lr"]


def test_a_schedule_longer_than_its_table_goes_on(
    any_backend: Backend, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(lr_scheduler.table.Table, "capacity", 4)
    made = pop.population(2, backend=any_backend, scheduler=lambda o: lr_scheduler.StepLR(o, 3))
    losses = made.run(X, Y, batch_size=50, epochs=4)
    for i in range(2):
        alone = pop.Alone(i, backend=any_backend, scheduler=lambda o: lr_scheduler.StepLR(o, 3))
        expected = alone.run(X, Y, batch_size=50, epochs=4)
        assert pop.as_bits([losses[i]]) == pop.as_bits([expected])


@pytest.mark.parametrize(
    "options", [{"accumulate": 2}, {"max_grad_norm": 0.5}, {"loss_scale": "dynamic"}], ids=str
)
def test_options_of_the_step_are_those_alone(any_backend: Backend, options: Any) -> None:
    made = pop.population(3, _sgd, any_backend, **options)
    losses = made.run(X, Y, batch_size=40, epochs=2)
    for i in range(3):
        alone = pop.Alone(i, _sgd, any_backend, **options)
        expected = alone.run(X, Y, batch_size=40, epochs=2)
        assert pop.as_bits([losses[i]]) == pop.as_bits([expected])


def test_stopped_members_stay_as_they_are(backend: Backend) -> None:
    made = pop.population(4, backend=backend)
    made.run(X, Y, batch_size=50)
    made.stop([1, 3])
    before = [made.state_dict(i) for i in range(4)]
    losses = made.run(X, Y, batch_size=50)
    assert made.active == [0, 2] and losses.shape == (2, 3)
    assert pop.same(made.state_dict(1), before[1]) and pop.same(made.state_dict(3), before[3])
    made.resume(1)
    made.run(X, Y, batch_size=50)
    assert made.steps == [9, 6, 9, 3] and list(map(len, made.histories)) == [3, 2, 3, 1]
    alone = pop.Alone(1, backend=backend)
    for _ in range(2):
        alone.run(X, Y, batch_size=50)
    assert pop.same(made.state_dict(1), alone.state())


def test_a_callback_stops_members_after_an_epoch(any_backend: Backend) -> None:
    made = pop.population(3, backend=any_backend)

    def stop(population: gp.Population, epoch: int) -> bool:
        population.stop(epoch - 1)
        return epoch == 3

    losses = made.run(X, Y, batch_size=50, epochs=9, callback=stop)
    assert [len(own) for own in losses] == [3, 6, 9]
    for i in range(3):
        alone = pop.Alone(i, backend=any_backend)
        expected = [alone.run(X, Y, batch_size=50, epochs=i + 1)]
        assert pop.as_bits([losses[i]]) == pop.as_bits(expected)


def test_a_copy_goes_on_as_the_copied_with_its_own_order(any_backend: Backend) -> None:
    made = pop.population(3, backend=any_backend, lr=[0.01, 0.02, 0.03])
    made.run(X, Y, batch_size=50, epochs=2)
    made.copy(0, 2)
    assert made.hyper("lr").tolist() == [0.01, 0.02, 0.01]
    made.set_hyper("lr", 0.012, 2)
    losses = made.run(X, Y, batch_size=50)
    source, target = (
        pop.Alone(i, backend=any_backend, numbers={"lr": r}) for i, r in ((0, 0.01), (2, 0.03))
    )
    for alone in (source, target):
        alone.run(X, Y, batch_size=50, epochs=2)
    target.model.load_state_dict(source.model.state_dict())
    target.optimizer.load_state_dict(source.optimizer.state_dict())
    target.optimizer.param_groups[0]["lr"] = 0.012
    assert pop.as_bits([losses[2]]) == pop.as_bits([target.run(X, Y, batch_size=50)])
    assert pop.same(made.state_dict(2), target.state())
    assert pop.as_bits([losses[0]]) == pop.as_bits([source.run(X, Y, batch_size=50)])


def test_a_member_that_diverges_touches_no_other(backend: Backend) -> None:
    made = pop.population(3, optim.SGD, backend, lr=[0.01, 1e30, 0.02])
    losses = made.run(X, Y, batch_size=50, epochs=2)
    assert np.isnan(losses[1]).any() and np.isnan(made.histories[1][-1])
    assert np.isfinite(losses[[0, 2]]).all() and made.best() in (0, 2)
    for i, rate in ((0, 0.01), (2, 0.02)):
        alone = pop.Alone(i, optim.SGD, backend, {"lr": rate})
        expected = alone.run(X, Y, batch_size=50, epochs=2)
        assert pop.as_bits([losses[i]]) == pop.as_bits([expected])


def test_the_model_itself_and_the_random_numbers_stay_as_they_were(any_backend: Backend) -> None:
    model = pop.make()
    gp.manual_seed(5)
    before = model.state_dict(), gp.ops.random.default_generator.state.value.copy()
    made = gp.compile_population(
        pop.loss_of(model), optim.Adam(model.parameters()), n=3, model=model, initial=pop.make,
        backend=any_backend,
    )  # fmt: skip
    made.run(X, Y, batch_size=50)
    assert pop.same(model.state_dict(), before[0])
    assert np.array_equal(gp.ops.random.default_generator.state.value, before[1])


def test_orders_can_be_given(any_backend: Backend) -> None:
    rng = np.random.default_rng(0)
    orders = [[rng.permutation(len(X)) for _ in range(2)] for _ in range(3)]
    made = pop.population(3, backend=any_backend)
    losses = made.run(X, Y, batch_size=50, epochs=2, orders=orders)
    stepwise = pop.population(3, backend=any_backend)
    again = stepwise.run(X, Y, batch_size=50, epochs=2, orders=orders, callback=lambda p, e: None)
    assert pop.as_bits(losses) == pop.as_bits(again)
    alone = pop.Alone(1, backend=any_backend)
    expected = alone.run(X, Y, batch_size=50, order=np.array(orders[1]))
    assert pop.as_bits([losses[1]]) == pop.as_bits([expected])


def test_predictions_are_the_models_own(backend: Backend) -> None:
    made = pop.population(3, backend=backend)
    made.run(X, Y, batch_size=50)
    found = made.predict(X, batch_size=64)
    assert found.shape == (3, len(X), pop.CLASSES)
    for i in range(3):
        model = pop.make()
        model.load_state_dict(made.state_dict(i))
        alone = gp.Trainer(model, pop.loss_fn, optim.SGD(model.parameters()), backend=backend)
        assert np.array_equal(found[i], alone.predict(X, batch_size=64))
    assert np.array_equal(made.predict(X, members=[2])[0], made.predict(X)[2])


def test_an_ensemble_has_means_votes_and_spread(any_backend: Backend) -> None:
    made = pop.population(5, backend=any_backend)
    made.run(X, Y, batch_size=50)
    together, outputs = made.ensemble([0, 1, 4]), made.predict(X)[[0, 1, 4]].astype(np.float64)
    made.run(X, Y, batch_size=50)  # copies: the ensemble stays as it was
    np.testing.assert_allclose(together.mean(X), outputs.mean(axis=0))
    np.testing.assert_allclose(together.spread(X), outputs.std(axis=0))
    votes = together.votes(X)
    assert votes.shape == (len(X), 3) and (votes.sum(axis=1) == 3).all()
    np.testing.assert_allclose(together.mean(X, softmax=True).sum(axis=1), 1.0)


def test_a_custom_op_works_in_members(any_backend: Backend) -> None:
    seen = set()

    def forward(x: Any) -> Any:
        seen.add(threading.get_ident())
        return x * 2.0

    double = gp.custom_op("double_in_members", forward, lambda g, y, x: [g * 2.0])
    model = nn.Linear(pop.FEATURES, pop.CLASSES)
    made = gp.compile_population(
        lambda x, t: pop.loss_fn(double(model(x)), t), optim.SGD(model.parameters()), n=3,
        backend=any_backend, lr=[0.1, 0.2, 0.3],
    )  # fmt: skip
    losses = made.run(X, Y, batch_size=50)
    assert np.isfinite(losses).all() and seen == {threading.get_ident()}


def test_loops_have_memory_of_their_own_in_each_thread(backend: Backend) -> None:
    def build() -> nn.Module:
        return nn.GRU(2, 5, batch_first=True)

    def loss(model: nn.Module) -> Any:
        return lambda x, t: pop.loss_fn(model(x)[0][:, -1, :], t)

    sequences = X.reshape(len(X), 3, 2)
    gp.manual_seed(0)
    model = build()
    made = gp.compile_population(
        loss(model), optim.Adam(model.parameters()), n=5, model=model, initial=build,
        backend=backend,
    )  # fmt: skip
    losses = made.run(sequences, Y, batch_size=50, epochs=3)
    for i in range(5):
        gp.manual_seed(i)
        own = build()
        step = gp.compile_step(loss(own), optim.Adam(own.parameters()), seed=i, backend=backend)
        expected = step.run(sequences, Y, batch_size=50, epochs=3)
        assert pop.as_bits([losses[i]]) == pop.as_bits([expected])


def test_the_best_member_has_a_finite_score() -> None:
    made = pop.population(3)
    with pytest.raises(DataError, match="no member has a finite score"):
        made.best()
    assert made.best([np.nan, 3.0, 2.0]) == 2
    assert made.best([np.inf, 3.0, 2.0], mode="max") == 1
    with pytest.raises(UnknownNameError, match="mode"):
        made.best([1, 2, 3], mode="most")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"lr": [0.1, 0.2]}, "lr is .* one for each of the 3 members"),
        ({"lr": -1.0}, "expected at least 0"),
        ({"eps": 1e-3}, "eps is no option that may differ"),
        ({"momentum": 1.5}, "two numbers in"),
        ({"seeds": [1, 2]}, "seeds has 2 entries, expected 3"),
        ({"seeds": [1, 2, -3]}, "a seed must be"),
        ({"initial": [{}, {}]}, "initial has 2 states, expected 3"),
        ({"initial": lambda: nn.Linear(2, 2)}, "another model"),
        ({"slots": {"p": 1.0}}, "expected a gpubp.nn.Buffer"),
        ({"scheduler": 3}, "scheduler is 3; expected a function"),
        ({"n": 0}, "n is 0"),
    ],
    ids=lambda value: value if isinstance(value, str) else next(iter(value)),
)
def test_bad_arguments_are_refused_before_any_work(options: Any, message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        pop.population(**{"n": 3, **options})


def test_bad_runs_are_refused_before_any_work() -> None:
    made = pop.population(2)
    before = made.state_dict(0)
    for options, message in [
        ({"rows": [[0]]}, "rows has 1 entries for 2 members"),
        ({"rows": [[0, 1], [999]]}, "expected 0 to 149"),
        ({"rows": [[0, 1], [0, 1]]}, "member 0 has only 2 samples"),
        ({"orders": [[0]]}, "orders has 1 entries"),
        ({"batch_size": 0}, "batch_size is 0"),
    ]:
        with pytest.raises(DataError, match=message):
            made.run(X, Y, **{"batch_size": 30, **options})
    with pytest.raises(DataError, match="holds 7"):
        made.run(X, np.where(Y == 1, 7, Y))
    with pytest.raises(DataError, match="nan"):
        made.run(np.where(X > 2, np.nan, X), Y)
    assert pop.same(made.state_dict(0), before) and made.steps == [0, 0]
    alone = pop.Alone(0)  # nor was an order used up
    assert pop.as_bits([made.run(X, Y)[0]]) == pop.as_bits([alone.run(X, Y)])
    made.stop([0, 1])
    with pytest.raises(DataError, match="all members were stopped"):
        made.run(X, Y)
    with pytest.raises(DataError, match="there is no member 2"):
        made.state_dict(2)


def test_what_steps_return_beside_the_loss_is_joined_over_epochs() -> None:
    model = pop.make()

    def fn(x: Any, t: Any) -> Any:
        outputs = model(x)
        return pop.loss_fn(outputs, t), {"mean": ops.mean(outputs)}

    def made() -> gp.Population:
        rule = optim.SGD(model.parameters(), lr=0.1)
        return gp.compile_population(fn, rule, n=2, model=model, initial=pop.make)

    whole = made().run(X, Y, batch_size=50, epochs=2)
    by_epoch = made().run(X, Y, batch_size=50, epochs=2, callback=lambda population, epoch: None)
    for (losses, more), (again, others) in zip(whole, by_epoch, strict=True):
        assert losses.shape == (6,) and np.array_equal(losses, again)
        assert np.array_equal(more["mean"], others["mean"])
