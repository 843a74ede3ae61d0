"""Random numbers, running statistics and batch normalisation on ranks."""

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

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.distributed import LocalCommunicator, run_threads
from gpubp.errors import DataError


def test_random_numbers_differ_between_ranks_and_are_drawn_alike_by_pieces():
    between = (lambda: nn.Dropout(0.5, generator=gp.Generator(3)),)
    options = {"deterministic": True, "pieces": 6}
    expected = trained(LocalCommunicator(), *between, options=options, single=False)
    for size in (2, 3):
        for found in on_ranks(size, *between, options=options, single=False):
            assert_same_bits(found, expected)
    plain = on_ranks(2, *between)
    assert_same_bits(plain[1], plain[0])
    assert not np.array_equal(plain[0]["losses"], trained(None, *between)["losses"])


def test_masks_of_ranks_are_not_the_same():
    def work(communicator):
        seen = []
        generator = gp.Generator(3)
        model, optimizer = classifier()

        def loss(a, b):
            drawn = ops.uniform((), "float64", generator)
            return nn.CrossEntropyLoss()(model(a), b), {"drawn": drawn}

        step = gp.compile_step(loss, optimizer, communicator=communicator)
        for _ in range(3):
            seen.append(float(step(X[:2], Y[:2])[1]["drawn"]))
        return seen, generator.state.value.tolist()

    (found, state), other = run_threads(2, work, timeout=60)
    assert (found, state) == other
    assert state == [3, 6]  # two draws, one a rank, in each of three batches
    # The number is a mean over ranks of what each has drawn.
    drawn = []
    for counter in range(6):
        generator = gp.Generator(3)
        generator.state.value = np.array([3, counter])
        drawn.append(float(ops.uniform((), "float64", generator)))
    np.testing.assert_allclose(found, np.array(drawn).reshape(3, 2).mean(axis=1), rtol=1e-12)


def test_running_statistics_are_averaged_by_samples_and_counted_once():
    def moments(rows):
        return rows.mean(axis=0), rows.var(axis=0, ddof=1)

    def work(communicator):
        model = nn.Sequential(nn.BatchNorm1d(6, dtype="float64"), nn.Linear(6, 3, dtype="float64"))
        step = gp.compile_step(
            lambda a, b: nn.CrossEntropyLoss()(model(a), b),
            optim.SGD(model.parameters(), lr=0.0),
            communicator=communicator,
        )
        step(X[:7], Y[:7])
        return model.state_dict()

    first, second = run_threads(2, work, timeout=60)
    (mean_a, var_a), (mean_b, var_b) = moments(X[:4]), moments(X[4:7])
    expected = 0.1 * (4 * mean_a + 3 * mean_b) / 7, 0.9 + 0.1 * (4 * var_a + 3 * var_b) / 7
    np.testing.assert_allclose(first["0.running_mean"], expected[0], rtol=1e-12)
    np.testing.assert_allclose(first["0.running_var"], expected[1], rtol=1e-12)
    assert int(first["0.num_batches_tracked"]) == 1
    assert_same_bits(second, first)


@pytest.mark.parametrize("backend", ["numpy", pytest.param("numba", marks=pytest.mark.full)])
def test_synchronised_batch_normalisation_is_that_of_the_whole_batch(backend):
    between = (lambda: nn.BatchNorm1d(8, dtype="float64"),)
    # Adam would make the gradient of the bias before the norm large, which is rounding alone.
    options = {"batch_size": 15, "backend": backend, "rule": optim.SGD}
    expected = trained(None, *between, **options)
    for size in (2, 3):
        first, *others = on_ranks(size, *between, options={"sync_batch_norm": True}, **options)
        assert_close(first, expected)
        for other in others:
            assert_same_bits(other, first)
    apart = on_ranks(2, *between, single=False, **options)[0]
    assert np.abs(apart["0.weight"] - expected["0.weight"]).max() > 1e-6


def test_synchronised_batch_normalisation_needs_a_row_on_each_rank():
    def work(communicator):
        model, optimizer = classifier(lambda: nn.BatchNorm1d(8, dtype="float64"))
        step = step_of(parallel(communicator, sync_batch_norm=True), model, optimizer)
        with pytest.raises(DataError, match="each of 3 ranks needs one"):
            step(X[:2], Y[:2])
        step(X[:3], Y[:3])

    run_threads(3, work, timeout=60)
