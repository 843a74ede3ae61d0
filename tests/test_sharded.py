"""Optimisers whose state is divided among ranks: the same results, and a part of the memory."""

from __future__ import annotations

import copy

import numpy as np
import pytest
from rank_work import (
    Recorder,
    X,
    Y,
    assert_close,
    assert_same_bits,
    classifier,
    on_ranks,
    parallel,
    step_of,
    trained,
)

import gpubp as gp
from gpubp import nn, optim
from gpubp.distributed import LocalCommunicator, run_threads
from gpubp.errors import CheckpointError, CopyError, DataError, DistributedError
from gpubp.train import Trainer

SHARDED = {"shard_optimizer": True}
RULES = ["SGD", "Adam", "AdamW", "Adadelta", "Adagrad", "Adamax", "ASGD", "Lion", "NAdam", "RAdam"]
RULES += ["RMSprop", "Rprop"]
WAYS = {
    "plain": {},
    "accumulated": {"accumulate": 3},
    "clipped by norm": {"max_grad_norm": 0.1},
    "clipped by value": {"max_grad_value": 0.01},
    "scaled": {"loss_scale": 8.0},
    "kept": {"keep_grads": True},
}


@pytest.mark.parametrize("backend", ["numpy", pytest.param("numba", marks=pytest.mark.full)])
@pytest.mark.parametrize("rule", RULES)
def test_every_rule_gives_what_it_gives_undivided(rule, backend):
    made = getattr(optim, rule)
    first, second = on_ranks(2, options=SHARDED, rule=made, backend=backend)
    assert_close(first, on_ranks(2, rule=made, backend=backend)[0])
    assert_same_bits(second, first)


@pytest.mark.parametrize("backend", ["numpy", pytest.param("numba", marks=pytest.mark.full)])
@pytest.mark.parametrize("way", WAYS)
def test_divided_among_two_to_nine_ranks_it_is_one(way, backend):
    expected = trained(None, **WAYS[way], backend=backend)
    for size in (2, 3, 9):  # of nine, some have a batch without a row, or no part of a parameter
        first, *others = on_ranks(size, options=SHARDED, **WAYS[way], backend=backend)
        assert_close(first, expected)
        for other in others:
            assert_same_bits(other, first)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("way", ["plain", "accumulated", "clipped by norm", "scaled"])
def test_deterministic_training_has_the_bits_of_the_undivided_one(way, backend):
    kwargs = {"dtype": "float32", "backend": backend, **WAYS[way]}
    expected = trained(LocalCommunicator(), options={"deterministic": True}, **kwargs)
    for size in (2, 3):
        for found in on_ranks(size, options={"deterministic": True, **SHARDED}, **kwargs):
            assert_same_bits(found, expected)


def test_each_rank_keeps_its_part_of_the_state_alone():
    def work(communicator):
        model, optimizer = classifier()
        step = step_of(parallel(communicator, **SHARDED), model, optimizer)
        step.run(X, Y, epochs=2)
        with pytest.raises(DataError, match=r"no state 'exp_avg' of .*state_dict\(\) the whole"):
            optimizer.state_of("exp_avg", next(iter(model.parameters())))
        slots, names = optimizer.divided_slots(), (".exp_avg", ".exp_avg_sq")
        kept = {n: sum(s.size for s in slots if s.name.endswith(n)) for n in names}
        return kept, sum(p.size for p in model.parameters())

    found = run_threads(3, work, timeout=60)
    whole = found[0][1]
    for name in (".exp_avg", ".exp_avg_sq"):
        sizes = [kept[name] for kept, _ in found]
        assert sum(sizes) == whole and max(sizes) < whole / 2


@pytest.mark.parametrize("way", ["plain", "clipped by norm"])
def test_gradients_are_scattered_unless_all_of_them_are_needed(way):
    def work(communicator):
        events = []
        model, optimizer = classifier()
        made = parallel(Recorder(communicator, events), **SHARDED)
        step = step_of(made, model, optimizer, **WAYS[way])
        step(X, Y)
        events.clear()
        step(X, Y)
        return [e.split()[0] for e in events]

    for events in run_threads(2, work, timeout=60):
        if way == "plain":
            assert events == [
                "start_reduce_scatter", "all_reduce", "wait_reduce_scatter", "gather", "all_reduce",
            ]  # fmt: skip
        else:
            assert events == ["all_reduce", "gather", "all_reduce"]


def test_the_state_is_whole_where_it_is_asked_for_and_may_be_loaded_anywhere():
    def work(communicator, options, state):
        model, optimizer = classifier()
        if state is not None:
            optimizer.load_state_dict(state)
        made = parallel(communicator, **options)
        step = step_of(made, model, optimizer)
        step.run(X, Y, epochs=2, shuffle=False)
        middle = optimizer.state_dict()
        optimizer.load_state_dict(middle)  # with the step compiled
        step.run(X, Y, epochs=1, shuffle=False)
        return {**model.state_dict(), **_flat(optimizer.state_dict())}, middle

    expected, state = work(None, {}, None)
    continued, _ = work(None, {}, state)
    for size in (2, 3):
        for found, middle in run_threads(size, lambda c: work(c, SHARDED, None), timeout=60):
            assert_close(found, expected)
            assert_close(_flat(middle), _flat(state))
        for found, _ in run_threads(size, lambda c: work(c, SHARDED, state), timeout=60):
            assert_close(found, continued)


def _flat(state):
    return {f"{i}.{k}": v for i, arrays in state["state"].items() for k, v in arrays.items()}


def test_groups_and_thawed_parameters_and_several_optimizers():
    def work(communicator):
        model, _ = classifier()
        first, second = list(model.parameters())[:2], list(model.parameters())[2:]
        groups = [{"params": first, "lr": 0.03}, {"params": second, "weight_decay": 0.1}]
        one = optim.NAdam(groups)
        second[0].requires_grad_(False)
        step = step_of(parallel(communicator, **SHARDED), model, one)
        step.run(X, Y, epochs=1, shuffle=False)
        second[0].requires_grad_(True)
        step.run(X, Y, epochs=1, shuffle=False)
        first[0].requires_grad_(False)
        step.run(X, Y, epochs=1, shuffle=False)
        states = _flat(one.state_dict())
        other, _ = classifier()
        parts = list(other.parameters())
        two = [optim.SGD(parts[:1], lr=0.1, momentum=0.9, dampening=0.1), optim.Adam(parts[1:])]
        step_of(parallel(communicator, **SHARDED), other, two).run(X, Y, epochs=2, shuffle=False)
        states.update({f"sgd {k}": v for k, v in _flat(two[0].state_dict()).items()})
        return {
            **states,
            **model.state_dict(),
            **{f"o.{k}": v for k, v in other.state_dict().items()},
        }

    expected = work(None)
    for found in run_threads(3, work, timeout=60):
        assert found.keys() == expected.keys()
        assert_close(found, expected)


def test_what_cannot_be_divided_is_refused():
    def work(communicator):
        model, optimizer = classifier()
        made = parallel(communicator, **SHARDED)
        for rule in (optim.Adafactor, optim.Muon):
            matrices = [p for p in model.parameters() if p.ndim == 2]
            with pytest.raises(DataError, match=f"{rule.__name__} updates more than single elem"):
                step_of(made, model, rule(matrices))
        with pytest.raises(DataError, match="ema reads whole parameters"):
            step_of(made, model, optimizer, ema=optim.EMA(model.parameters()))
        step = step_of(made, model, optimizer)
        step(X, Y)
        with pytest.raises(CopyError, match="divided among ranks"):
            copy.deepcopy(optimizer)
        with pytest.raises(DataError, match="divided among ranks by another step"):
            step_of(None, model, optimizer)(X, Y)
        with pytest.raises(DataError, match="use one DataParallel for both"):
            step_of(parallel(communicator, bucket_cap_mb=1, **SHARDED), model, optimizer)
        again = step_of(made, model, optimizer)
        return {"loss": again(X, Y), **model.state_dict()}

    model, optimizer = classifier()
    step = step_of(None, model, optimizer)
    step(X, Y)
    expected = {"loss": step(X, Y), **model.state_dict()}
    for found in run_threads(2, work, timeout=60):
        assert_close(found, expected)


def test_a_state_that_one_rank_alone_has_loaded_is_refused():
    model, optimizer = classifier()
    step_of(None, model, optimizer)(X, Y)
    state = optimizer.state_dict()

    def work(communicator):
        model, optimizer = classifier()
        if communicator.rank == 0:
            optimizer.load_state_dict(state)
        step = step_of(parallel(communicator, **SHARDED), model, optimizer)
        with pytest.raises(DistributedError, match="the optimizer's steps is"):
            step(X, Y)

    run_threads(2, work, timeout=60)


def _fit(communicator, options, folder, epochs, resume=None, between=(), **kwargs):
    """Train, with a checkpoint in a folder; what came out."""
    model, optimizer = classifier(*between)
    trainer = Trainer(
        model, nn.CrossEntropyLoss(), optimizer, backend="numpy", max_grad_norm=0.5,
        communicator=parallel(communicator, **options), **kwargs,
    )  # fmt: skip
    history = trainer.fit(
        X, Y, epochs=epochs, batch_size=8, verbose=False, checkpoint=folder / "run.ckpt",
        save_every_steps=4, resume=resume,
    )  # fmt: skip
    numbers = {k: np.array(v) for k, v in history.items()}
    return {**numbers, **model.state_dict(), **_flat(optimizer.state_dict())}


KINDS = {
    "one": (1, {}),
    "two": (2, {}),
    "two divided": (2, SHARDED),
    "three divided": (3, SHARDED),
    "three divided, buckets": (3, {**SHARDED, "bucket_cap_mb": 1e-4}),
}


@pytest.mark.parametrize("before", KINDS)
@pytest.mark.parametrize("after", ["one", "two", "three divided"])
def test_a_run_goes_on_at_another_number_of_ranks(before, after, tmp_path):
    def dropping():
        return nn.Dropout(0.0, generator=gp.Generator(3))  # a generator that has no other name

    def ranks(kind, *args, **kwargs):
        size, options = KINDS[kind]
        return run_threads(
            size, lambda c: _fit(c, options, *args, between=[dropping], **kwargs), timeout=60
        )

    (tmp_path / "whole").mkdir()
    expected = ranks("one", tmp_path / "whole", 4)[0]
    ranks(before, tmp_path, 2)
    (tmp_path / "then").mkdir()
    for found in ranks(after, tmp_path / "then", 4, resume=tmp_path / "run.ckpt"):
        assert_close(found, expected)


def test_within_an_epoch_a_run_goes_on_with_the_same_bits(tmp_path):
    def stopped(communicator, steps, resume):
        model, optimizer = classifier(dtype="float32")
        made = parallel(communicator, deterministic=True, **SHARDED)
        trainer = Trainer(
            model, nn.CrossEntropyLoss(), optimizer, backend="numpy", communicator=made
        )
        trainer.fit(
            X, Y, epochs=3, batch_size=8, verbose=False, checkpoint=tmp_path / "run.ckpt",
            max_steps=steps, resume=resume,
        )  # fmt: skip
        return {**model.state_dict(), **_flat(optimizer.state_dict())}

    expected = run_threads(2, lambda c: stopped(c, None, None), timeout=60)[0]
    run_threads(3, lambda c: stopped(c, 10, None), timeout=60)
    for found in run_threads(2, lambda c: stopped(c, None, tmp_path / "run.ckpt"), timeout=60):
        assert_same_bits(found, expected)


def test_another_model_or_another_step_is_refused_still(tmp_path):
    run_threads(2, lambda c: _fit(c, SHARDED, tmp_path, 1), timeout=60)
    with pytest.raises(CheckpointError, match="does not fit"):
        run_threads(
            3,
            lambda c: _fit(
                c, SHARDED, tmp_path, 1, resume=tmp_path / "run.ckpt",
                between=[lambda: nn.Linear(8, 8, dtype="float64")],
            ),
            timeout=60,
        )  # fmt: skip


def test_a_save_is_of_all_ranks_and_written_by_one(tmp_path):
    def work(communicator):
        model, optimizer = classifier()
        trainer = Trainer(
            model, nn.CrossEntropyLoss(), optimizer, backend="numpy",
            communicator=parallel(communicator, **SHARDED),
        )  # fmt: skip
        trainer.fit(X, Y, epochs=1, verbose=False)
        trainer.save(tmp_path / f"rank{communicator.rank}.ckpt")

    run_threads(2, work, timeout=60)
    assert [p.name for p in tmp_path.iterdir()] == ["rank0.ckpt"]
