"""Trainer and History: what is measured, reproducibility, modes, errors."""

from __future__ import annotations

import copy
import csv

import numpy as np
import pytest
from registered import BACKENDS

from gpubp import nn, ops, optim
from gpubp.errors import DataError, UnknownNameError
from gpubp.train import History, Trainer


def _data(samples=90, seed=0):
    """Points around three centres, far apart."""
    rng = np.random.default_rng(seed)
    y = rng.integers(0, 3, samples)
    centres = np.array([[2.0, 0.0], [-1.0, 2.0], [-1.0, -2.0]])
    return (centres[y] + 0.2 * rng.normal(size=(samples, 2))).astype(np.float32), y


def _trainer(backend="numpy", dropout=0.0, **options):
    ops.manual_seed(0)
    layers = [nn.Linear(2, 8), nn.Tanh(), nn.Dropout(dropout), nn.Linear(8, 3)]
    model = nn.Sequential(*layers)
    optimizer = optim.Adam(model.parameters(), lr=0.03)
    return Trainer(model, nn.CrossEntropyLoss(), optimizer, backend=backend, **options)


@pytest.mark.parametrize("backend", BACKENDS)
def test_fit_learns_and_records(backend):
    trainer = _trainer(backend)
    X, y = _data()
    history = trainer.fit(
        X, y, epochs=12, validation_data=_data(60, seed=1), verbose=False, metrics=["accuracy"]
    )
    assert list(history) == ["epoch", "loss", "accuracy", "val_loss", "val_accuracy"]
    assert history["epoch"] == list(range(1, 13))
    assert history["loss"][-1] < 0.2 < history["loss"][0]
    assert history["val_accuracy"][-1] == 1.0
    assert history["val_loss"][-1] == pytest.approx(trainer.evaluate(*_data(60, seed=1))["loss"])


def test_epoch_loss_is_weighted_by_the_size_of_the_batches():
    X, y = _data(samples=10)
    model = nn.Linear(2, 3)
    loss_fn = nn.CrossEntropyLoss()
    expected = float(loss_fn(model(X), y))
    trainer = Trainer(model, loss_fn, optim.SGD(model.parameters(), lr=0.0), backend="numpy")
    history = trainer.fit(X, y, epochs=1, batch_size=4, verbose=False)
    assert history["loss"] == [pytest.approx(expected, rel=1e-5)]
    assert trainer.evaluate(X, y)["loss"] == pytest.approx(expected, rel=1e-5)


def test_a_batch_larger_than_the_data_takes_all_of_it():
    history = _trainer().fit(*_data(10), epochs=2, batch_size=64, verbose=False)
    assert len(history["loss"]) == 2


@pytest.mark.parametrize("backend", BACKENDS)
def test_equal_seeds_give_equal_runs_and_others_do_not(backend):
    X, y = _data()
    runs = []
    for seed in (1, 1, 2):
        trainer = _trainer(backend, dropout=0.2, seed=seed)
        runs.append(trainer.fit(X, y, epochs=3, verbose=False)["loss"])
    assert runs[0] == runs[1]
    assert runs[0] != runs[2]


def test_a_second_fit_goes_on():
    X, y = _data()
    whole, halves = _trainer(), _trainer()
    expected = whole.fit(X, y, epochs=4, verbose=False)
    halves.fit(X, y, epochs=2, verbose=False)
    assert halves.fit(X, y, epochs=2, verbose=False)["loss"] == expected["loss"]
    assert halves.history["epoch"] == [1, 2, 3, 4]


def test_without_shuffling_the_order_is_that_of_the_data():
    X, y = _data()
    runs = [
        _trainer(seed=s).fit(X, y, epochs=2, shuffle=False, verbose=False)["loss"] for s in (1, 2)
    ]
    assert runs[0] == runs[1]


def test_evaluation_ignores_dropout_and_leaves_the_modes_alone():
    trainer = _trainer(dropout=0.9)
    X, y = _data()
    trainer.model[0].eval()
    before = [m.training for m in trainer.model.modules()]
    first, second = trainer.predict(X), trainer.predict(X)
    np.testing.assert_array_equal(first, second)
    assert trainer.evaluate(X, y) == trainer.evaluate(X, y)
    trainer.fit(X, y, epochs=1, verbose=False)
    assert [m.training for m in trainer.model.modules()] == before
    np.testing.assert_array_equal(trainer.predict(X), trainer.model.eval()(X))


def test_predict_in_parts_equals_predict_at_once():
    trainer = _trainer()
    X, _ = _data()
    whole = trainer.predict(X)
    assert whole.shape == (90, 3)
    np.testing.assert_allclose(trainer.predict(X, batch_size=32), whole, rtol=1e-6)
    np.testing.assert_allclose(whole, trainer.model(X), rtol=1e-5, atol=1e-6)


def test_large_evaluations_are_weighted_by_their_parts(monkeypatch):
    monkeypatch.setattr("gpubp.train.evaluation.BATCH", 32)
    trainer = _trainer()
    X, y = _data()
    found = trainer.evaluate(X, y)
    outputs = trainer.model(X)
    assert found["loss"] == pytest.approx(float(trainer.loss_fn(outputs, y)), rel=1e-5)
    assert found["accuracy"] == pytest.approx(np.mean(outputs.argmax(1) == y))


def test_regression_has_no_accuracy():
    X, _ = _data()
    y = X @ np.array([[1.0], [2.0]])
    model = nn.Linear(2, 1)
    optimizer = optim.SGD(model.parameters(), lr=0.05)
    trainer = Trainer(model, nn.MSELoss(), optimizer, backend="numpy")
    history = trainer.fit(X, y, epochs=15, validation_data=(X, y), verbose=False)
    assert list(history) == ["epoch", "loss", "val_loss"]
    assert history["val_loss"][-1] < 1e-3
    with pytest.raises(DataError, match="accuracy needs integer class labels"):
        trainer.fit(X, y, epochs=1, verbose=False, metrics=["accuracy"])


def test_float64_data_is_converted_for_a_float32_model():
    X, y = _data()
    runs = [
        _trainer().fit(x, y, epochs=1, verbose=False)["loss"] for x in (X, X.astype(np.float64))
    ]
    assert runs[0] == runs[1]


def _broken(X, y, where, value):
    X, y = X.copy(), y.copy()
    (X if where == "X" else y)[2] = value
    return X, y


@pytest.mark.parametrize(
    ("where", "value", "message"),
    [
        ("X", np.nan, r"X holds nan at index \(2, 0\)"),
        ("y", 3, r"y holds label 3 at index \(2,\); expected 0 to 2"),
        ("y", -1, "y holds label -1"),
    ],
)
def test_bad_data_is_refused_before_anything_is_trained(where, value, message):
    trainer = _trainer()
    X, y = _data()
    before = trainer.model.state_dict()
    bad = _broken(X, y, where, value)
    with pytest.raises(DataError, match=message):
        trainer.fit(*bad, epochs=1, verbose=False)
    with pytest.raises(DataError, match=f"validation {where}"):
        trainer.fit(X, y, epochs=1, validation_data=bad, verbose=False)
    with pytest.raises(DataError, match=message):
        trainer.evaluate(*bad)
    for name, array in trainer.model.state_dict().items():
        np.testing.assert_array_equal(array, before[name])
    assert len(trainer.history.records) == 0


@pytest.mark.parametrize(
    ("call", "error", "message"),
    [
        (lambda t, X, y: t.fit(X, y[:-1], epochs=1), DataError, "90 samples and y has 89"),
        (lambda t, X, y: t.fit(X[:0], y[:0], epochs=1), DataError, "X is empty"),
        (lambda t, X, y: t.fit(X, y, epochs=0), DataError, "epochs=0"),
        (lambda t, X, y: t.fit(X, y, epochs=1, batch_size=0), DataError, "batch_size=0"),
        (lambda t, X, y: t.fit(X, y, 1, metrics=["acuracy"]), UnknownNameError, "'accuracy'"),
        (lambda t, X, y: t.predict(X[:0]), DataError, "X is empty"),
        (lambda t, X, y: t.predict(X, batch_size=0), DataError, "batch_size=0"),
    ],
)
def test_wrong_arguments_of_the_trainer_are_refused(call, error, message):
    with pytest.raises(error, match=message):
        call(_trainer(), *_data())


def test_progress_is_one_plain_line_an_epoch_where_there_is_no_terminal(capsys):
    trainer = _trainer()
    X, y = _data()
    trainer.fit(X, y, epochs=2, validation_data=(X, y))
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert [line.split()[:2] for line in lines] == [["epoch", "1/2"], ["epoch", "2/2"]]
    assert f"val_loss {trainer.history['val_loss'][1]:.4f}" in lines[1]
    assert lines[1].endswith("samples/s")
    trainer.fit(X, y, epochs=1, verbose=False)
    assert capsys.readouterr().err == ""


def test_a_live_bar_does_not_change_the_results(monkeypatch, capsys):
    X, y = _data()
    expected = _trainer().fit(X, y, epochs=3, batch_size=8, verbose=False)["loss"]
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    monkeypatch.setattr("gpubp.train.fit.FIRST_CHUNK_BATCHES", 2)
    monkeypatch.setattr("gpubp.train.fit.SECONDS_BETWEEN_UPDATES", 0.0)
    trainer = _trainer()
    assert trainer.fit(X, y, epochs=3, batch_size=8)["loss"] == expected
    err = capsys.readouterr().err
    assert "epoch 3/3:   0%" in err
    assert f"epoch 3/3  loss {expected[-1]:.4f}" in err


def test_history_is_a_mapping_and_writes_csv(tmp_path):
    history = History()
    assert (len(history), history.last) == (0, {})
    history.add({"epoch": 1, "loss": 0.5})
    history.add({"epoch": 2, "loss": 0.25, "val_loss": 0.75})
    held = history["val_loss"]  # an entry for each epoch, so that all are of one length
    assert dict(history) == {"epoch": [1, 2], "loss": [0.5, 0.25], "val_loss": held}
    assert np.array_equal(held, [np.nan, 0.75], equal_nan=True)
    with pytest.raises(KeyError):
        history["accuracy"]
    path = tmp_path / "run.csv"
    history.to_csv(path)
    with path.open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert rows == [
        {"epoch": "1", "loss": "0.5", "val_loss": ""},
        {"epoch": "2", "loss": "0.25", "val_loss": "0.75"},
    ]


def test_a_history_of_fits_with_other_metrics_is_a_data_frame():
    pandas = pytest.importorskip("pandas")
    made, (X, y) = _trainer(), _data()
    made.fit(X, y, epochs=1, metrics=["accuracy"], verbose=False)
    made.fit(X, y, epochs=2, validation_data=(X, y), verbose=False)
    frame = pandas.DataFrame(made.history)
    for same in (dict(made.history), made.history.records, copy.deepcopy(made.history)):
        pandas.testing.assert_frame_equal(frame, pandas.DataFrame(same))
    assert frame["accuracy"].isna().tolist() == [False, True, True]
    assert frame["val_loss"].isna().tolist() == [True, False, False]


def test_a_failed_csv_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "run.csv"
    path.write_text("old")
    history = History()
    history.add({"epoch": 1})
    monkeypatch.setattr("os.replace", _no_space)
    with pytest.raises(OSError, match="no space"):
        history.to_csv(path)
    assert path.read_text() == "old"
    assert [p.name for p in tmp_path.iterdir()] == ["run.csv"]


def _no_space(*_):
    raise OSError("no space left")
