"""Ranks that share batches give what one rank gives. (They are threads here, with models apart.)"""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from loss_cases import ALL
from loss_cases import X as LOSS_X
from rank_work import X, Y, assert_close, assert_same_bits, classifier, on_ranks, parallel, trained

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.distributed import LocalCommunicator, run_threads
from gpubp.distributed.parallel import bounds
from gpubp.errors import ShapeError
from gpubp.train import CSVLogger, ModelCheckpoint, Trainer

WAYS = {
    "plain": {},
    "accumulated": {"accumulate": 3},
    "clipped by norm": {"max_grad_norm": 0.1},
    "clipped by value": {"max_grad_value": 0.01},
    "scaled": {"loss_scale": 8.0},
    "momentum": {"rule": optim.RMSprop},
}
# Accumulation is the quick part: it has all that an update has, and more.
CASES = [
    pytest.param(way, backend, marks=[] if quick else [pytest.mark.full])
    for way in WAYS
    for backend in ("numpy", "numba")
    for quick in [way == "accumulated" and backend == "numpy"]
]


@pytest.mark.parametrize(("way", "backend"), CASES)
def test_two_to_four_ranks_are_one(way, backend):
    expected = trained(None, **WAYS[way], backend=backend)
    for size in (2, 3, 4):
        first, *others = on_ranks(size, **WAYS[way], backend=backend)
        assert_close(first, expected)
        for other in others:
            assert_same_bits(other, first)


@pytest.mark.parametrize("name", ALL)
def test_sums_and_counts_of_losses_are_those_of_the_whole_batch(name):
    loss_fn, y = ALL[name]

    def work(communicator):
        model = nn.Linear(5, 3, dtype="float64")
        for p in model.parameters():
            p.value = np.linspace(-1, 1, p.size).reshape(p.shape)
        step = gp.compile_step(
            lambda a, b: loss_fn(model(a), b),
            optim.SGD(model.parameters(), lr=0.1),
            communicator=communicator,
            backend="numpy",
        )
        losses = step.run(LOSS_X, y, batch_size=9, shuffle=False)
        return {"losses": losses, "totals": step.totals, **model.state_dict()}

    expected = work(None)
    for found in run_threads(3, work, timeout=60):
        assert_close(found, expected)


@pytest.mark.parametrize(("way", "backend"), CASES)
def test_deterministic_training_has_the_same_bits_at_any_number_of_ranks(way, backend):
    options = {"deterministic": True}
    kwargs = {"dtype": "float32", "options": options, "backend": backend, **WAYS[way]}
    expected = trained(LocalCommunicator(), **kwargs)
    for size in (2, 3) if backend == "numpy" else (2, 3, 4, 5):
        for found in on_ranks(size, **kwargs):
            assert_same_bits(found, expected)


def test_custom_ops_run_on_each_rank():
    double = gp.custom_op("doubled", lambda x: 2 * x, lambda g, y, x: g * 2.0)

    class Doubled(nn.Module):
        def forward(self, x):
            return double(x)

    expected = trained(None, Doubled)
    for found in on_ranks(2, Doubled):
        assert_close(found, expected)


def test_own_data_of_uneven_sizes_are_one_batch():
    cuts = np.array([0, 20, 29, 50])

    def work(communicator):
        model, optimizer = classifier()
        lo, hi = (0, 50) if communicator is None else cuts[communicator.rank :][:2]
        step = gp.compile_step(
            lambda a, b: nn.CrossEntropyLoss()(model(a), b),
            optimizer,
            communicator=parallel(communicator, data="own"),
        )
        losses = [step(X[lo:hi], Y[lo:hi]) for _ in range(3)]
        run = step.run(X[lo:hi], Y[lo:hi], batch_size=hi - lo, epochs=2, shuffle=False)
        return {"losses": losses, "run": run, "totals": step.totals, **model.state_dict()}

    expected = work(None)
    for found in run_threads(3, work, timeout=60):
        assert_close(found, expected)


def test_one_rank_keeps_the_fused_step():
    model, optimizer = classifier()
    step = gp.compile_step(
        lambda a, b: nn.CrossEntropyLoss()(model(a), b),
        optimizer,
        communicator=LocalCommunicator(),
    )
    assert "grad_sums" not in str(step.prepare(X, Y))
    assert_same_bits(trained(LocalCommunicator()), trained(None))


def test_arrays_beside_the_loss_are_refused_and_numbers_are_those_of_the_batch():
    def work(communicator):
        model, optimizer = classifier()

        def loss(a, b):
            z = model(a)
            right = ops.equal(ops.argmax(z, axis=1), b)
            beside = z if communicator is not None and communicator.size == 3 else z[0, 0] * 0.0
            numbers = {"right": ops.sum(right), "mean": ops.mean(z), "beside": beside}
            return nn.CrossEntropyLoss()(z, b), numbers

        step = gp.compile_step(loss, optimizer, communicator=communicator)
        if communicator is not None and communicator.size == 3:
            with pytest.raises(ShapeError, match="it can return numbers"):
                step(X, Y)
            return {}
        found = step.run(X, Y, batch_size=15)
        return {"loss": found[0], **found[1]}

    expected = work(None)
    for found in run_threads(2, work, timeout=60):
        assert_close(found, expected)
    run_threads(3, work, timeout=60)


def test_pieces_cover_a_batch_and_differ_by_one_row():
    for samples in range(1, 30):
        for pieces in range(1, 9):
            cuts = [bounds(samples, p, pieces) for p in range(pieces)]
            assert cuts[0][0] == 0 and cuts[-1][1] == samples
            assert all(a[1] == b[0] for a, b in itertools.pairwise(cuts))
            sizes = [hi - lo for lo, hi in cuts]
            assert max(sizes) - min(sizes) <= 1 and sizes[0] >= 1


def test_a_fit_is_shared_and_rank_0_alone_writes(tmp_path, capsys):
    def work(communicator):
        model, optimizer = classifier()
        name = "one" if communicator is None else "ranks"
        trainer = Trainer(
            model, nn.CrossEntropyLoss(), optimizer, backend="numpy", communicator=communicator
        )
        history = trainer.fit(
            X, Y, epochs=3, batch_size=8, validation_split=0.2, metrics=["accuracy"],
            callbacks=[
                CSVLogger(tmp_path / f"{name}.csv"), ModelCheckpoint(tmp_path / f"{name}.m"),
            ],
            checkpoint=tmp_path / f"{name}.ckpt", verbose=communicator is not None,
        )  # fmt: skip
        return {**{k: np.array(v) for k, v in history.items()}, **model.state_dict()}

    expected = work(None)
    for found in run_threads(3, work, timeout=60):
        assert_close(found, expected)
    endings = ("csv", "ckpt", "m")
    assert {p.name for p in tmp_path.iterdir()} == {
        f"{name}.{ending}" for name in ("one", "ranks") for ending in endings
    }
    assert capsys.readouterr().err.count("epoch 3/3") == 1
