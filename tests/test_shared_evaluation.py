"""What is measured at the end of an epoch is measured by all ranks, a part of the samples each."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from rank_work import X, Y, assert_close, assert_same_bits, classifier, parallel

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.distributed import LocalCommunicator, run_threads, thread_group
from gpubp.runtime.arguments import Arguments
from gpubp.train import Trainer, metric
from gpubp.train.ranks import Ranks

METRICS = ["auc_like", "f1_macro", metric("accuracy", weighted=True)]


def auc_like(y, outputs):
    """A number that is no mean over samples."""
    return float(np.median(outputs[:, 0] * (y == 0)))


def _fit(communicator, loss_fn=None, held=50, weights=None):
    model, optimizer = classifier(lambda: nn.BatchNorm1d(8, dtype="float64"), rule=optim.SGD)
    trainer = Trainer(
        model, loss_fn or nn.CrossEntropyLoss(), optimizer, backend="numpy",
        communicator=parallel(communicator, sync_batch_norm=True),
    )  # fmt: skip
    held_out = (X[:held], Y[:held]) if weights is None else (X[:held], Y[:held], weights[:held])
    history = trainer.fit(
        X, Y, epochs=2, batch_size=10, verbose=False, validation_data=held_out,
        metrics=[auc_like, *METRICS[1:]],
    )  # fmt: skip
    return {k: np.array(v) for k, v in history.items()}


@pytest.mark.parametrize("held", [1, 2, 7, 50])
@pytest.mark.parametrize("weighted", [False, True])
def test_parts_of_any_size_give_what_one_rank_finds(held, weighted):
    weights = np.random.default_rng(0).random(50) if weighted else None
    expected = _fit(None, held=held, weights=weights)
    assert {"val_loss", "val_accuracy", "val_auc_like", "val_f1_macro"} <= set(expected)
    for size in (2, 3):
        for found in run_threads(
            size, lambda c: _fit(c, held=held, weights=weights), timeout=120
        ):  # fmt: skip
            assert found.keys() == expected.keys()
            assert_close(found, expected)


def test_losses_with_counts_of_their_own_and_numbers_beside_the_loss():
    class Loss(nn.CrossEntropyLoss):
        def forward(self, z, y):
            return super().forward(z, y), {"size": ops.mean(ops.square(z))}

    loss_fn = Loss(weight=[0.2, 1.0, 3.0], ignore_index=1)
    expected = _fit(None, loss_fn)
    for found in run_threads(3, lambda c: _fit(c, loss_fn), timeout=120):
        assert_close(found, expected)


def test_deterministic_ranks_find_the_same_bits(monkeypatch):
    monkeypatch.setattr("gpubp.train.evaluation.BATCH", 8)

    def fit(communicator):
        model, optimizer = classifier(dtype="float32")
        trainer = Trainer(
            model, nn.CrossEntropyLoss(), optimizer, backend="numpy",
            communicator=parallel(communicator, deterministic=True),
        )  # fmt: skip
        history = trainer.fit(
            X, Y, epochs=2, batch_size=10, verbose=False, validation_data=(X, Y), metrics=["f1"]
        )
        return {k: np.array(v) for k, v in history.items()}

    expected = fit(LocalCommunicator())
    for size in (2, 3):
        for found in run_threads(size, fit, timeout=60):
            assert_same_bits(found, expected)


def test_each_rank_runs_its_part_alone():
    def work(communicator):
        rows = []
        seen = gp.custom_op("seen", lambda x: rows.append(len(x)) or x, lambda g, y, x: g)

        class Seen(nn.Module):
            def forward(self, x):
                return seen(x)

        model, optimizer = classifier(Seen)
        trainer = Trainer(
            model, nn.CrossEntropyLoss(), optimizer, backend="numpy", communicator=communicator
        )
        trainer.fit(X, Y, epochs=1, verbose=False, batch_size=50)
        rows.clear()
        trainer.evaluator.measure(
            Arguments.taken((X, Y), ("X", "y")), trainer.floating, (),
            trainer.ranks,
        )  # fmt: skip
        return sum(rows)

    assert sum(run_threads(3, work, timeout=60)) == 50


def test_own_held_out_data_are_measured_together():
    cuts = [0, 20, 29, 50]

    def work(communicator):
        mine = slice(*cuts[communicator.rank :][:2])
        model, optimizer = classifier()
        trainer = Trainer(
            model, nn.CrossEntropyLoss(), optimizer, backend="numpy",
            communicator=parallel(communicator, data="own"),
        )  # fmt: skip
        held = trainer.fit(
            X[:30], Y[:30], epochs=1, batch_size=10, verbose=False,
            validation_data=(X[mine], Y[mine]), metrics=[auc_like, "f1_macro"],
        )  # fmt: skip
        whole = trainer.evaluate(X, Y, metrics=[auc_like, "f1_macro"])
        return {k: np.array(v[-1]) for k, v in held.items() if k.startswith("val_")}, whole

    for found, whole in run_threads(3, work, timeout=60):
        assert_close(found, {f"val_{k}": v for k, v in whole.items()})


@pytest.mark.parametrize("options", [{}, {"deterministic": True}])
def test_batches_of_ranks_are_all_rows_once(options):
    for size in (2, 3):
        for samples in (1, 2, 5, 8, 9, 40):
            ranks = [Ranks(parallel(c, **options)) for c in thread_group(size)]
            found = [b for r in ranks for b in r.batches(samples, 8)]
            assert found[0][0] == 0 and found[-1][1] == samples
            assert all(a[1] == b[0] and 0 < b[1] - b[0] <= 8 for a, b in itertools.pairwise(found))
            if options:
                assert found == Ranks(None).batches(samples, 8)
