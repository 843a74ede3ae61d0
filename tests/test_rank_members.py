"""Populations whose members are trained by several ranks: the bits of one rank, on all of them."""

from __future__ import annotations

import signal
import threading

import numpy as np
import pytest
from rank_work import X, Y, seeded

import gpubp as gp
from gpubp import nn, optim
from gpubp.distributed import DataParallel, run_threads, thread_group
from gpubp.errors import DataError, DistributedError, LostPeerError
from gpubp.runtime.member_runs import MemberRuns
from gpubp.train import EarlyStopping, Trainer

MEMBERS = 5
RATES = np.geomspace(0.01, 0.5, MEMBERS)


def made(communicator, rule=optim.SGD, **options):
    """(population, optimizer) of five members."""

    def make():
        return nn.Sequential(
            nn.Linear(6, 8, dtype="float64"), nn.Tanh(), nn.Linear(8, 3, dtype="float64")
        )

    def build():
        model = make()
        optimizer = rule(model.parameters(), lr=0.1)
        population = gp.compile_population(
            lambda a, b: nn.CrossEntropyLoss()(model(a), b), optimizer, n=MEMBERS, model=model,
            initial=make, lr=RATES, backend=options.pop("backend", "numpy"),
            communicator=communicator, **options,
        )  # fmt: skip
        return population, optimizer

    return seeded(build)  # threads share the generator that weights are drawn from


def everything(population, losses):
    """What must be alike."""
    state = population.full_state()
    state["losses"], state["histories"] = losses, population.histories
    return state


def assert_alike(found, expected):
    assert found["record"] == expected["record"]
    assert found["histories"] == expected["histories"]
    for a, b in zip(found["losses"], expected["losses"], strict=True):
        np.testing.assert_array_equal(a, b)
    for name, value in expected["arrays"].items():
        np.testing.assert_array_equal(found["arrays"][name], value, err_msg=name)


def cosine(optimizer):
    return optim.lr_scheduler.CosineAnnealingLR(optimizer, 12)


def plateau(optimizer):
    return optim.lr_scheduler.ReduceLROnPlateau(optimizer, patience=0)


WAYS = {
    "plain": {},
    "adam": {"rule": optim.Adam},
    "accumulated": {"accumulate": 3},
    "schedules by step": {"scheduler": cosine},
    "schedules by epoch": {"scheduler": plateau, "scheduler_every": "epoch"},
    "penalties": {"weight_decay": np.linspace(0, 0.1, MEMBERS)},
    "clipped": {"max_grad_norm": 0.1, "backend": "numba"},
}


@pytest.mark.parametrize("way", WAYS)
def test_members_have_the_bits_of_one_rank(way):
    def work(communicator):
        population, _ = made(communicator, **WAYS[way])
        losses = list(population.run(X, Y, batch_size=16, epochs=2))
        folds = [np.arange(i, 50, 2) for i in range(MEMBERS)]
        losses += list(population.run(X, Y, batch_size=9, rows=folds))
        return everything(population, losses)

    expected = work(None)
    for size in (2, 3, 7):  # two of seven ranks have no member
        for found in run_threads(size, work, timeout=60):
            assert_alike(found, expected)


def test_members_that_are_stopped_copied_and_changed_on_the_way_have_the_bits_of_one_rank():
    def work(communicator):
        population, _ = made(communicator, rule=optim.Adam)

        def between(population, epoch):
            best = population.best()
            population.stop([i for i in population.active if i == MEMBERS - epoch])
            follower = next(i for i in population.active if i != best)
            population.copy(best, follower)
            population.set_hyper("lr", population.hyper("lr", best) * 1.2, follower)
            return epoch == 3

        losses = population.run(X, Y, batch_size=16, epochs=10, callback=between)
        assert population.steps[0] == 12
        return everything(population, losses)

    expected = work(None)
    for found in run_threads(2, work, timeout=60):
        assert_alike(found, expected)


def test_several_architectures_are_shared_as_one():
    def work(communicator):
        groups = [made(communicator)[0], made(communicator, rule=optim.Adam)[0]]
        both = gp.Populations(groups)
        losses = both.run(X, Y, batch_size=16, epochs=2)
        return [everything(group, losses) for group in groups]

    expected = work(None)
    for found in run_threads(3, work, timeout=60):
        for mine, theirs in zip(found, expected, strict=True):
            assert_alike(mine, theirs)


def test_groups_of_other_ranks_are_refused():
    groups = [made(thread_group(2)[0])[0] for _ in range(2)]
    with pytest.raises(DataError, match="give all of them one communicator"):
        gp.Populations(groups)


def test_what_stands_in_members_at_first_is_that_of_rank_0():
    def work(communicator):
        population, _ = made(communicator)
        if communicator is not None and communicator.rank == 1:
            state = {k: v + 1.0 for k, v in population.state_dict(2).items()}
            population.load_state_dict(2, state)
        return everything(population, population.run(X, Y, batch_size=16))

    expected = work(None)
    for found in run_threads(2, work, timeout=60):
        assert_alike(found, expected)


def changed_weights(population, optimizer):
    population.load_state_dict(2, population.state_dict(1))


CHANGES = {
    "weights": (changed_weights, "what members have in .*weight is"),
    "rates": (lambda p, o: p.set_hyper("lr", 0.3, 2), r"the members' lr is \[.*on rank 0 and"),
    "stopped": (lambda p, o: p.stop(1), "members that are trained is .* on rank 1"),
    "seeds": (lambda p, o: p.seed(range(3, 8)), "the order of their samples is"),
}


@pytest.mark.parametrize("what", CHANGES)
def test_members_that_are_changed_on_one_rank_alone_are_refused(what):
    change, expected = CHANGES[what]

    def work(communicator):
        population, optimizer = made(communicator)
        population.run(X, Y, batch_size=16)
        if communicator.rank == 1:
            change(population, optimizer)
        with pytest.raises(DistributedError, match=expected):
            population.run(X, Y, batch_size=16)

    run_threads(2, work, timeout=60)


@pytest.mark.parametrize(
    ("differs", "expected"),
    [
        ("data", "argument 0 is .* on rank 0 and"),
        ("epochs", "how they are trained is .*epochs=2.* on rank 0 and .*epochs=3"),
        ("momentum", "the optimizer's momentum is 0 on rank 0 and 0.9 on rank 1"),
        ("rates", "the members' lr is"),
    ],
)
def test_populations_that_differ_are_refused(differs, expected):
    def work(communicator):
        odd = differs if communicator.rank else ""

        def rule(parameters, lr):
            return optim.SGD(parameters, lr=lr, momentum=0.9 if odd == "momentum" else 0.0)

        population, _ = made(communicator, rule=rule)
        if odd == "rates":
            population.set_hyper("lr", 0.3)
        with pytest.raises(DistributedError, match=expected):
            population.run(X + (odd == "data"), Y, epochs=3 if odd == "epochs" else 2)

    run_threads(2, work, timeout=60)


def test_an_error_in_a_callback_of_one_rank_is_told_to_the_others():
    def work(communicator):
        population, _ = made(communicator)

        def between(population, epoch):
            if communicator.rank == 1:
                raise ValueError("out of luck")

        try:
            population.run(X, Y, epochs=3, callback=between)
        except (ValueError, LostPeerError) as error:
            return error

    first, second = run_threads(2, work, timeout=600)
    assert isinstance(second, ValueError)
    assert isinstance(first, LostPeerError) and "rank 1 has left: ValueError" in str(first)


def test_ctrl_c_on_one_rank_ends_the_run_of_all_where_members_have_come_to(monkeypatch):
    """Rank 0 is in the main thread, where it is heard, as its members of the third epoch begin."""
    communicators, ended, begun = thread_group(2, 60), {}, []
    fill = MemberRuns.fill

    def pressed(runs, parts):
        if threading.current_thread() is threading.main_thread():
            begun.append(parts)
            if len(begun) == 3:
                signal.raise_signal(signal.SIGINT)
        fill(runs, parts)

    monkeypatch.setattr(MemberRuns, "fill", pressed)

    def work(communicator):
        population, _ = made(communicator)
        try:
            population.run(X, Y, batch_size=2, epochs=100)
        except KeyboardInterrupt:
            ended[communicator.rank] = everything(population, [])

    other = threading.Thread(target=work, args=(communicators[1],))
    other.start()
    work(communicators[0])
    other.join()
    assert_alike(ended[1], ended[0])
    assert ended[0]["record"]["steps"] == [51, 75, 50, 75, 50]  # rank 0 has every other one


def test_options_for_ranks_that_share_batches_are_refused():
    for name, options in {
        'data="own"': {"data": "own"},
        "average_every": {"average_every": 2},
        "shard_optimizer": {"shard_optimizer": True},
    }.items():
        with pytest.raises(DataError, match=f"{name} is for ranks that share batches"):
            made(DataParallel(thread_group(2)[0], **options))


def test_a_fit_of_a_population_is_shared_and_rank_0_alone_writes(tmp_path):
    def work(communicator):
        name = "one" if communicator is None else "ranks"

        def make():
            return nn.Sequential(nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 3))

        def build():
            model = make()
            optimizer = optim.Adam(model.parameters())
            return Trainer(
                model, nn.CrossEntropyLoss(), optimizer, backend="numpy",
                population={"n": MEMBERS, "lr": RATES, "initial": make},
                communicator=communicator,
            )  # fmt: skip

        trainer = seeded(build)

        def fit(epochs, **options):
            trainer.fit(
                X, Y, epochs=epochs, batch_size=16, validation_data=(X[:20], Y[:20]),
                metrics=["accuracy"], callbacks=[EarlyStopping("val_loss", 1)],
                checkpoint=tmp_path / f"{name}.ckpt", **options,
            )  # fmt: skip

        fit(3)
        first = [list(history.records) for history in trainer.histories]
        trainer = seeded(build)
        fit(6, resume=tmp_path / f"{name}.ckpt")
        records = [history.records for history in trainer.histories]
        return first, records, trainer.best, trainer.model.state_dict()

    expected = work(None)
    for found in run_threads(3, work, timeout=60):
        assert found[:3] == expected[:3]
        for key, value in expected[3].items():
            np.testing.assert_array_equal(found[3][key], value, err_msg=key)
    assert {path.name for path in tmp_path.iterdir()} == {"one.ckpt", "ranks.ckpt"}
