"""Ranks that share batches give what one rank gives. (They are threads here, with models apart.)"""

from __future__ import annotations

import copy
import itertools
import math
import threading

import numpy as np
import pytest
from loss_cases import ALL
from loss_cases import X as LOSS_X
from rank_work import (
    X,
    Y,
    assert_close,
    assert_same_bits,
    classifier,
    on_ranks,
    parallel,
    seeded,
    step_of,
    trained,
)  # fmt: skip

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.distributed import DataParallel, LocalCommunicator, run_threads, thread_group
from gpubp.distributed.parallel import bounds
from gpubp.errors import ArgumentError, DataError, DistributedError, LostPeerError, ShapeError
from gpubp.runtime.pauses import Pauses
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


def test_custom_ops_run_on_each_rank():
    double = gp.custom_op("doubled", lambda x: 2 * x, lambda g, y, x: g * 2.0)

    class Doubled(nn.Module):
        def forward(self, x):
            return double(x)

    expected = trained(None, Doubled)
    for found in on_ranks(2, Doubled):
        assert_close(found, expected)


def test_nan_on_one_rank_is_seen_by_all():
    def work(communicator):
        model, optimizer = classifier()
        step = step_of(communicator, model, optimizer)
        x = X[:8].copy()
        x[7] = np.nan  # of the last rank's share
        return float(step(x, Y[:8])), np.isnan(model.state_dict()["0.weight"]).all()

    for loss, spoiled in run_threads(3, work, timeout=60):
        assert math.isnan(loss) and spoiled


def test_an_update_that_one_rank_must_skip_is_skipped_by_all():
    def work(communicator):
        model, optimizer = classifier(dtype="float32")
        step = step_of(
            communicator,
            model,
            optimizer,
            loss_scale="dynamic",
        )
        before = model.state_dict()
        x = X[:6].copy()
        x[0] = np.inf
        step(x, Y[:6])
        assert_same_bits(model.state_dict(), before)
        return step.loss_scale.state_dict()

    for state in run_threads(2, work, timeout=60):
        assert state == {"scale": 32768.0, "good": 0, "skipped": 1}


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
        ("data", r"argument 0 is \(50, 6\) float64 [0-9a-f]{8} on rank 0 and"),
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


def test_a_lost_rank_is_an_error_on_the_others_within_the_timeout():
    def work(communicator):
        model, optimizer = classifier()
        step = step_of(communicator, model, optimizer)
        step(X, Y)
        if communicator.rank == 2:
            return None
        with pytest.raises(LostPeerError, match=r"did not come within 5 s"):
            step(X, Y)
        return "raised"

    assert run_threads(3, work, timeout=5) == ["raised", "raised", None]


def test_ctrl_c_on_one_rank_ends_the_run_of_all_after_the_same_step():
    """Rank 0 is in the main thread, where it is heard."""
    import signal

    communicators = thread_group(2, 60)
    ended = {}

    def work(communicator):
        model, optimizer = classifier()
        step = step_of(communicator, model, optimizer)

        def progress(done, epochs):
            if communicator.rank == 0 and done == 2:
                threading.Timer(0.05, signal.raise_signal, [signal.SIGINT]).start()

        try:
            step.run(X, Y, batch_size=2, epochs=10_000, progress=progress)
        except KeyboardInterrupt:
            ended[communicator.rank] = len(step.losses), model.state_dict()

    beside(communicators, work)
    assert ended[0][0] == ended[1][0] > 50
    assert_same_bits(ended[1][1], ended[0][1])


@pytest.mark.parametrize("average_every", [None, 7])
def test_ctrl_c_in_what_is_the_users_own_leaves_no_rank_waiting(average_every):
    """Heard while `progress` is at work on one rank: both end after the next step."""
    import signal

    communicators = thread_group(2, 60)
    ended = {}

    def work(communicator):
        model, optimizer = classifier()
        step = step_of(parallel(communicator, average_every=average_every), model, optimizer)

        def progress(done, epochs):
            if communicator.rank == 0 and done == 2:
                signal.raise_signal(signal.SIGINT)

        try:
            step.run(X, Y, batch_size=2, epochs=1000, progress=progress)
        except KeyboardInterrupt:
            ended[communicator.rank] = len(step.losses), model.state_dict()

    beside(communicators, work)
    epoch = -(-len(X) // 2)
    assert ended[0][0] == ended[1][0]
    assert 2 * epoch < ended[0][0] <= 3 * epoch
    assert_same_bits(ended[1][1], ended[0][1])


@pytest.mark.parametrize("open_there", [False, True])
def test_who_presses_ctrl_c_twice_leaves_at_once(open_there):
    import contextlib
    import signal

    with Pauses(together=True) as pauses, contextlib.ExitStack() as stack:
        if open_there:
            stack.enter_context(pauses.open())
        signal.raise_signal(signal.SIGINT)
        assert pauses.heard
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)


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


def beside(communicators, work):
    """Run the work on two ranks, the first in this thread."""
    other = threading.Thread(target=work, args=(communicators[1],))
    other.start()
    work(communicators[0])
    other.join()


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


def test_a_population_cannot_be_shared_yet():
    model, optimizer = classifier()
    with pytest.raises(DataError, match="a population cannot be shared by ranks yet"):
        Trainer(
            model, nn.CrossEntropyLoss(), optimizer, population=2, communicator=thread_group(2)[0]
        )
    with pytest.raises(DataError, match="a population cannot be shared by ranks yet"):
        gp.compile_population(
            lambda a: ops.sum(model(a)), optimizer, n=2, communicator=thread_group(2)[0]
        )


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


def test_copies_of_a_trainer_share_the_communicator():
    model, optimizer = classifier()
    made = Trainer(model, nn.CrossEntropyLoss(), optimizer, communicator=thread_group(2)[0])
    copied = copy.deepcopy(made)
    assert copied.step.settings.parallel is made.step.settings.parallel


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


@pytest.mark.full
@pytest.mark.parametrize("seed", range(50))
def test_random_models_are_those_of_one_rank(seed):
    rng = np.random.default_rng(seed)
    widths = rng.integers(1, 12, rng.integers(0, 3)).tolist()
    activations = rng.choice(["ReLU", "Tanh", "Sigmoid", "GELU", "Softplus"], len(widths))
    rule = getattr(optim, rng.choice(["SGD", "Adam", "AdamW", "RMSprop", "Adagrad", "NAdam"]))
    options = {"accumulate": int(rng.integers(1, 4))}
    if rng.random() < 0.5:
        options["max_grad_norm"] = float(rng.uniform(0.01, 1))
    kinds = [{}, {"weight": rng.random(3)}, {"reduction": "sum"}]
    kinds.append({"ignore_index": 1, "label_smoothing": 0.1})
    loss_fn, size = nn.CrossEntropyLoss(**kinds[rng.integers(4)]), int(rng.integers(1, 40))
    backend = ["numpy", "numba"][seed % 2]
    sharing = {"shard_optimizer": True} if rng.random() < 0.5 else {}
    sharing |= {"bucket_cap_mb": 1e-4} if rng.random() < 0.5 else {}

    def work(communicator):
        def make():
            layers, width = [], 6
            for n, name in zip(widths, activations):
                layers += [nn.Linear(width, n, dtype="float64")]
                layers += [nn.LayerNorm(n, dtype="float64"), getattr(nn, name)()]
                width = n
            return nn.Sequential(*layers, nn.Linear(width, 3, dtype="float64"))

        model = seeded(make, seed)
        step = gp.compile_step(
            lambda a, b: loss_fn(model(a), b),
            rule(model.parameters(), lr=0.003),
            communicator=parallel(communicator, **sharing),
            backend=backend,
            **options,
        )
        losses = step.run(X, Y, batch_size=size, epochs=2)
        return {"losses": losses, **model.state_dict()}

    expected = work(None)
    for found in run_threads(2 + seed % 3, work, timeout=120):
        assert_close(found, expected)
