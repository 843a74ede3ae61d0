"""Local SGD: ranks that train by themselves and average what they have."""

from __future__ import annotations

import numpy as np
import pytest
from rank_work import (
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

from gpubp import nn, optim
from gpubp.distributed import run_threads
from gpubp.errors import DataError
from gpubp.train import Trainer


def test_progress_changes_no_number_where_ranks_average():
    """An epoch ends with an average, whether the run goes through Python there or not."""

    def work(progress):
        def on_rank(communicator):
            model, optimizer = classifier()
            step = step_of(parallel(communicator, average_every=4), model, optimizer)
            losses = step.run(X, Y, batch_size=4, epochs=5, seed=1, progress=progress)
            return {"losses": losses, **model.state_dict()}

        return run_threads(2, on_rank, timeout=60)

    assert_same_bits(work(lambda done, epochs: None)[0], work(None)[0])


def test_local_sgd_with_an_average_at_each_update_is_the_whole_batch():
    options = {"options": {"average_every": 1}, "rule": optim.SGD}
    expected = trained(None, rule=optim.SGD)
    for found in on_ranks(2, **options):
        assert_close(found, expected)


@pytest.mark.parametrize("every", [2, 5])
def test_local_sgd_averages_parameters_and_moments_after_so_many_updates(every):
    def alone(rank, model, optimizer):
        step = step_of(None, model, optimizer)
        for i in range(5):
            lo = 10 * i + 5 * rank
            step(X[lo : lo + 5], Y[lo : lo + 5])

    def shared(communicator):
        model, optimizer = classifier()
        made = parallel(communicator, average_every=every)
        step = step_of(made, model, optimizer)
        order = np.arange(50)[: 10 * every]
        step.run(X, Y, batch_size=10, order=order, flush=False)
        return {**model.state_dict(), "apart": step.apart}

    found = run_threads(2, shared, timeout=60)
    assert_same_bits(found[1], found[0])
    assert found[0]["apart"] == 0
    if every == 5:
        models = [classifier() for _ in range(2)]
        for rank, (model, optimizer) in enumerate(models):
            alone(rank, model, optimizer)
        states = [model.state_dict() for model, _ in models]
        for name in states[0]:
            mean = (states[0][name] + states[1][name]) / 2
            np.testing.assert_allclose(found[0][name], mean, rtol=1e-12, atol=1e-15)


@pytest.mark.parametrize("steps", [4, 5, 6, 7, 8])
def test_a_fit_that_ends_between_averages_leaves_ranks_alike(steps, tmp_path):
    def work(communicator):
        model, optimizer = classifier()
        shared = parallel(communicator, average_every=3)
        trainer = Trainer(
            model, nn.CrossEntropyLoss(), optimizer, backend="numpy", communicator=shared
        )
        trainer.fit(
            X, Y, epochs=9, batch_size=8, verbose=False, max_steps=steps,
            checkpoint=tmp_path / "run.ckpt",
        )  # fmt: skip
        assert trainer.steps == steps and trainer.step.apart == 0
        return {
            **model.state_dict(),
            **{
                f"{i} {k}": v
                for i, s in optimizer.state_dict()["state"].items()
                for k, v in s.items()
            },
        }

    first, second = run_threads(2, work, timeout=60)
    assert_same_bits(second, first)
    assert (tmp_path / "run.ckpt").exists()


def test_local_sgd_needs_a_sample_for_each_rank():
    def work(communicator):
        model, optimizer = classifier()
        step = step_of(parallel(communicator, average_every=2), model, optimizer)
        with pytest.raises(DataError, match="a batch has 2 samples, and 3 ranks"):
            step.run(X, Y, batch_size=16)

    run_threads(3, work, timeout=60)
