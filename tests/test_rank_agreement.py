"""Ranks agree before they train: what differs is refused, and the rest is that of rank 0."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from rank_work import X, Y, assert_close, assert_same_bits, classifier, step_of

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.distributed import DataParallel, run_threads, thread_group
from gpubp.distributed.agreement import fingerprint
from gpubp.errors import ArgumentError, DataError, DistributedError
from gpubp.train import Trainer


def test_ranks_begin_with_the_state_of_rank_0():
    def work(communicator):
        model, optimizer = classifier()
        if communicator.rank == 1:
            for p in model.parameters():
                p.value = p.value + 1.0
        step = step_of(communicator, model, optimizer)
        return {"loss": step(X, Y), **model.state_dict()}

    first, second = run_threads(2, work, timeout=60)
    assert_same_bits(second, first)


@pytest.mark.parametrize(
    ("differs", "expected"),
    [
        ("order", "the order of samples is checksum"),
        ("data", r"argument 0 is \(50, 6\) float64 [0-9a-f]{16} on rank 0 and"),
        ("layers", "the model's state is"),
        ("activation", "what the step computes is .*softplus.* on rank 0 and .*relu.* on rank 1"),
        ("accumulate", "how the step updates is"),
        ("optimizer", "the optimizer is Adam on rank 0 and RMSprop on rank 1"),
        ("batches", "the number of batches is 4 on rank 0 and 5 on rank 1"),
    ],
)
def test_ranks_that_differ_are_refused_with_what_differs(differs, expected):
    def work(communicator):
        odd = differs if communicator.rank else ""
        between = [nn.ReLU, lambda: nn.Linear(8, 8, dtype="float64")] if odd == "layers" else []
        if differs == "activation":
            between = [nn.ReLU if odd else nn.Softplus]
        model, optimizer = classifier(
            *between, rule=optim.RMSprop if odd == "optimizer" else optim.Adam
        )
        step = step_of(
            communicator,
            model,
            optimizer,
            accumulate=2 if odd == "accumulate" else 1,
            seed=1 if odd == "order" else 0,
        )
        before = model.state_dict()
        with pytest.raises(DistributedError, match=expected):
            step.run(X + (odd == "data"), Y, batch_size=12 if odd == "batches" else 16)
        assert_same_bits(model.state_dict(), before)

    run_threads(2, work, timeout=60)


def test_options_that_do_not_fit_are_refused():
    two = thread_group(2)[0]
    with pytest.raises(ArgumentError, match="communicator is 3, expected"):
        gp.compile_step(lambda a: a, classifier()[1], communicator=3)
    with pytest.raises(gp.errors.UnknownNameError, match="kind of data"):
        DataParallel(two, data="mine")
    with pytest.raises(DataError, match="needs data='shared'"):
        DataParallel(two, data="own", deterministic=True)
    with pytest.raises(DataError, match="at least one for each of the 2 ranks"):
        DataParallel(two, deterministic=True, pieces=1)
    with pytest.raises(DataError, match="sync_batch_norm needs all of a batch"):
        DataParallel(two, deterministic=True, sync_batch_norm=True)
    with pytest.raises(DataError, match="average_every is 0"):
        DataParallel(two, average_every=0)
    with pytest.raises(DataError, match="cannot be used with it"):
        model, _ = classifier()
        gp.compile_step(
            lambda a: ops.sum(model(a)), optim.LBFGS(model.parameters()), communicator=two
        )


def test_copies_of_a_trainer_share_the_communicator():
    model, optimizer = classifier()
    made = Trainer(model, nn.CrossEntropyLoss(), optimizer, communicator=thread_group(2)[0])
    copied = copy.deepcopy(made)
    assert copied.step.settings.parallel is made.step.settings.parallel


def rated(schedule):
    def options(optimizer):
        return {"scheduler": schedule(optimizer)}

    return options


SCHEDULES = optim.lr_scheduler
# Of two ranks: (rule, options of the optimiser, options of the step) on each, and what is said.
TOLD = {
    "lr": ({"lr": 0.1}, {"lr": 0.2}, "the optimizer's lr is 0.1 on rank 0 and 0.2 on rank 1"),
    "betas": (
        {"betas": (0.9, 0.99)},
        {"betas": (0.9, 0.999)},
        r"the optimizer's betas is \(0.9, 0.99\) on rank 0 and \(0.9, 0.999\) on rank 1",
    ),
    "eps": ({"eps": 1e-8}, {"eps": 1e-7}, "the optimizer's eps is 1e-08 on rank 0 and 1e-07"),
    "amsgrad": ({}, {"amsgrad": True}, "the optimizer's amsgrad is False on rank 0 and True"),
    "cosine": (
        rated(lambda o: SCHEDULES.CosineAnnealingLR(o, 10)),
        rated(lambda o: SCHEDULES.CosineAnnealingLR(o, 20)),
        "the schedule is .*T_max=10.* on rank 0 and .*T_max=20.* on rank 1",
    ),
    "functions": (
        rated(lambda o: SCHEDULES.LambdaLR(o, lambda epoch: 1 / (1 + epoch))),
        rated(lambda o: SCHEDULES.LambdaLR(o, lambda epoch: 1 / (1 + 2 * epoch))),
        r"the schedule's next rates is \(0.005, .* on rank 0 and \(0.0033",
    ),
    "one schedule": (
        {},
        rated(lambda o: SCHEDULES.ConstantLR(o)),
        "the optimizer's lr is 0.01 on rank 0 and 0.00333",
    ),
    "loss scale": (
        lambda o: {"loss_scale": 8.0},
        lambda o: {"loss_scale": 16.0},
        "the loss scale is .*scale=8.* on rank 0 and .*scale=16.* on rank 1",
    ),
    "growth": (
        lambda o: {"loss_scale": gp.LossScale(growth_interval=5)},
        lambda o: {"loss_scale": gp.LossScale(growth_interval=6)},
        "the loss scale is .*growth_interval=5.* on rank 0 and",
    ),
    "average": (
        lambda o: {"ema": optim.EMA(o.parameters(), 0.9)},
        lambda o: {"ema": optim.EMA(o.parameters(), 0.99)},
        "the average of weights is EMA 0.9 on rank 0 and EMA 0.99 on rank 1",
    ),
    "clipping": (
        lambda o: {"max_grad_norm": 1.0},
        lambda o: {"max_grad_norm": 2.0},
        "how the step updates is .*'max_grad_norm': 1.0.* on rank 0 and",
    ),
}


@pytest.mark.parametrize("what", TOLD)
def test_how_ranks_update_must_be_alike(what):
    *each, expected = TOLD[what]

    def work(communicator):
        given = each[communicator.rank]
        model, optimizer = classifier(**({} if callable(given) else {"rule": rule_with(given)}))
        options = given(optimizer) if callable(given) else {}
        step = step_of(communicator, model, optimizer, **options)
        with pytest.raises(DistributedError, match=expected):
            step(X, Y)

    run_threads(2, work, timeout=60)


def rule_with(given):
    return lambda parameters, lr: optim.Adam(parameters, **{"lr": lr, **given})


def test_an_option_that_is_set_on_one_rank_alone_is_refused_by_the_next_run():
    def work(communicator):
        model, optimizer = classifier()
        step = step_of(communicator, model, optimizer)
        step.run(X, Y, batch_size=16)
        if communicator.rank == 1:
            optimizer.param_groups[0]["lr"] = 0.5
        with pytest.raises(DistributedError, match=r"lr is 0\.01 on rank 0 and 0\.5 on rank 1"):
            step.run(X, Y, batch_size=16)

    run_threads(2, work, timeout=60)


def test_a_model_that_was_changed_on_one_rank_alone_is_refused_by_the_next_run():
    def work(communicator):
        model, optimizer = classifier(lambda: nn.LeakyReLU(0.1))
        step = step_of(communicator, model, optimizer)
        step.run(X, Y, batch_size=16)
        model[1].negative_slope = 0.2  # on all: they agree again
        step.run(X, Y, batch_size=16)
        if communicator.rank == 1:
            model[1].negative_slope = 0.3
        with pytest.raises(DistributedError, match=r"what the step computes is .*0\.2.*0\.3"):
            step.run(X, Y, batch_size=16)

    run_threads(2, work, timeout=60)


@pytest.mark.parametrize("average_every", [None, 2])
@pytest.mark.parametrize(
    ("losses", "expected"),
    [
        # Operations that come and go with the number of rows are part of a program too.
        ([lambda z: z, lambda z: -z], "what the step computes is"),
        ([lambda z: z + z * z, lambda z: z - z * z], "what the step computes is"),
        ([lambda z: z, lambda z: ops.where(z > 0, z, 0.0)], "what the step computes is"),
        (
            [lambda z: z * np.array([1.0, 2.0, 3.0]), lambda z: z * np.array([1.0, 2.5, 3.0])],
            "a constant in what the step computes is 2 on rank 0 and 2.5 on rank 1",
        ),
        ([lambda z: z * 0.5, lambda z: z * 0.25], "is 0.5 on rank 0 and 0.25 on rank 1"),
    ],
)
def test_another_program_is_refused(losses, expected, average_every):
    def work(communicator):
        model, optimizer = classifier()
        step = gp.compile_step(
            lambda a, b: nn.CrossEntropyLoss()(losses[communicator.rank](model(a)), b),
            optimizer,
            communicator=DataParallel(communicator, average_every=average_every),
            backend="numpy",
        )
        with pytest.raises(DistributedError, match=expected):
            step(X[:9], Y[:9])  # five rows, and four

    run_threads(2, work, timeout=60)


def test_seeds_of_random_numbers_must_be_alike_where_some_are_drawn():
    def work(communicator):
        generator = gp.Generator(communicator.rank)
        model, optimizer = classifier(lambda: nn.Dropout(0.5, generator=generator))
        step = step_of(communicator, model, optimizer)
        with pytest.raises(DistributedError, match="the seed of random numbers is 0 on rank 0 and"):
            step(X, Y)

    run_threads(2, work, timeout=60)


def test_constants_that_processors_have_rounded_differently_are_the_same():
    def work(communicator):
        model, optimizer = classifier()
        table = np.array([0.1, 0.2, 0.3])
        table = np.nextafter(table, 1.0) if communicator.rank else table
        step = gp.compile_step(
            lambda a, b: nn.CrossEntropyLoss()(model(a) * table, b),
            optimizer,
            communicator=communicator,
        )
        return step(X, Y)

    run_threads(2, work, timeout=60)


class ByRows(nn.Module):
    """Computes the same in other ways for other numbers of rows."""

    def forward(self, x):
        if x.shape[0] == 1:
            return ops.reshape(ops.concat([x[0, :4], x[0, 4:]]), (1, 8))
        if x.shape[0] % 2:
            return ops.concat([x[: x.shape[0] // 2], x[x.shape[0] // 2 :]])
        return ops.negative(ops.negative(x))


@pytest.mark.parametrize("options", [{}, {"shard_optimizer": True}, {"bucket_cap_mb": 1e-4}])
@pytest.mark.parametrize("rows", [1, 2, 3, 4, 7, 10])
def test_ranks_with_other_numbers_of_rows_are_not_refused(rows, options):
    def work(communicator):
        model, optimizer = classifier(ByRows)
        parallel = DataParallel(communicator, **options) if communicator else None
        step = step_of(parallel, model, optimizer)
        return {"loss": step(X[:rows], Y[:rows]), "run": step.run(X, Y, batch_size=rows + 2)}

    expected = work(None)
    for found in run_threads(3, work, timeout=60):
        assert_close(found, expected)


def test_fits_that_would_end_elsewhere_are_refused():
    def work(differs):
        def on_rank(communicator):
            odd = communicator.rank == 1
            model, optimizer = classifier()
            schedule = SCHEDULES.StepLR(optimizer, 3 if odd and differs == "schedule" else 2)
            made = Trainer(
                model, nn.CrossEntropyLoss(), optimizer, scheduler=schedule, backend="numpy",
                communicator=communicator,
            )  # fmt: skip
            held_out = (X[:9] + (odd and differs == "held out"), Y[:9])
            made.fit(
                X, Y, epochs=3 if odd and differs == "epochs" else 2, verbose=False,
                validation_data=held_out,
                metrics=["accuracy"] if odd and differs == "metrics" else [],
                max_steps=1 if odd and differs == "max_steps" else None,
            )  # fmt: skip

        return lambda: run_threads(2, on_rank, timeout=60)

    for differs, expected in {
        "epochs": "the epochs to train is 1 to 2 on rank 0 and 1 to 3 on rank 1",
        "schedule": "the schedule is StepLR .*step_size=2.* on rank 0 and .*step_size=3",
        "metrics": "the metrics is none on rank 0 and accuracy on rank 1",
        "max_steps": "max_steps is None on rank 0 and 1 on rank 1",
        "held out": r"the held-out data is \(9, 6\) float64 .* on rank 0 and",
    }.items():
        with pytest.raises(DistributedError, match=expected):
            work(differs)()


@pytest.mark.parametrize("apart", [1, 5, 1019, 1021, 1019 * 1021])
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64", "bool"])
def test_fingerprints_see_any_two_words_that_change_places(apart, dtype):
    if apart > 10_000 and dtype in ("int64", "float64"):
        pytest.skip("of an array that large some rows are looked at")
    data = np.arange(max(4096, apart + 2)) % 251
    data = (data % 2 if dtype == "bool" else data).astype(dtype)
    for first in (0, 1):
        other = data.copy()
        other[first], other[first + apart] = data[first + apart], data[first]
        assert (fingerprint(other) == fingerprint(data)) == np.array_equal(other, data)
