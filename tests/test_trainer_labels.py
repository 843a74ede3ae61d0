"""Labels that are texts, samples that are their own targets, data frames, and probabilities."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import gpubp as gp
from gpubp import errors, nn, optim

RNG = np.random.default_rng(0)
X = RNG.normal(size=(60, 3)).astype(np.float32)
NAMES = np.array(["no", "yes"])[(X[:, 0] > 0).astype(int)]


def _trainer(outputs: int = 2, loss: Any = None, **options: Any) -> gp.Trainer:
    gp.manual_seed(0)
    model = nn.Linear(3, outputs)
    loss = nn.CrossEntropyLoss() if loss is None else loss
    return gp.Trainer(
        model, loss, optim.Adam(model.parameters(), lr=0.1), backend="numpy", **options
    )


def _fit(trainer: gp.Trainer, y: Any, **options: Any) -> Any:
    return trainer.fit(X, y, epochs=10, verbose=False, **options)


@pytest.mark.parametrize(
    "given", [NAMES, NAMES.tolist(), NAMES.astype(object)], ids=["array", "list", "object"]
)
def test_labels_may_be_texts(given: Any) -> None:
    named, numbered = _trainer(), _trainer()
    history = _fit(named, given, validation_split=0.2, class_weight={"no": 1.0, "yes": 2.0})
    other = _fit(
        numbered, (NAMES == "yes").astype(int), validation_split=0.2, class_weight={0: 1.0, 1: 2.0}
    )
    assert named.classes == ["no", "yes"] and numbered.classes == []
    assert history["val_accuracy"] == other["val_accuracy"] and history["loss"] == other["loss"]
    found = named.predict_classes(X)
    assert (found == NAMES).mean() == named.evaluate(X, given)["accuracy"] > 0.8
    np.testing.assert_array_equal(found == "yes", numbered.predict_classes(X) == 1)


def test_a_label_that_was_not_learned_is_refused() -> None:
    trainer = _trainer()
    _fit(trainer, NAMES)
    with pytest.raises(errors.DataError, match=re.escape("y[0] is 'maybe'")):
        trainer.evaluate(X[:1], ["maybe"])
    with pytest.raises(errors.DataError, match="'maybe'"):
        _fit(trainer, NAMES, class_weight={"maybe": 2.0})


def test_checkpoints_hold_the_labels(tmp_path: Path) -> None:
    trainer, again = _trainer(), _trainer()
    _fit(trainer, NAMES)
    trainer.save(tmp_path / "run.ckpt")
    again.load(tmp_path / "run.ckpt")
    assert again.classes == ["no", "yes"]
    np.testing.assert_array_equal(again.predict_classes(X), trainer.predict_classes(X))


def test_samples_without_targets_are_their_own() -> None:
    alone, pairs = (_trainer(3, nn.MSELoss()) for _ in range(2))
    history = alone.fit(X, epochs=3, verbose=False, validation_data=(X[:20],))
    other = pairs.fit(X, X, epochs=3, verbose=False, validation_data=(X[:20], X[:20]))
    assert history.records == other.records
    assert alone.evaluate(X) == pairs.evaluate(X, X)


def test_probabilities_are_what_the_loss_takes_outputs_for() -> None:
    trainer = _trainer()
    _fit(trainer, NAMES)
    outputs, shares = trainer.predict(X), trainer.predict_proba(X)
    np.testing.assert_allclose(
        shares, np.exp(outputs) / np.exp(outputs).sum(1, keepdims=True), 1e-5
    )
    yes = _trainer(1, nn.BCEWithLogitsLoss())
    _fit(yes, (NAMES == "yes").astype(np.float32)[:, None])
    np.testing.assert_allclose(yes.predict_proba(X), 1 / (1 + np.exp(-yes.predict(X))), 1e-5)
    np.testing.assert_array_equal(yes.predict_classes(X), yes.predict(X)[:, 0] > 0)
    with pytest.raises(errors.DataError, match="does not say what the model's outputs mean"):
        _trainer(2, nn.MSELoss()).predict_proba(X)


def test_data_frames_are_their_columns() -> None:
    pandas = pytest.importorskip("pandas")
    frame = pandas.DataFrame({"a": X[:, 0], "b": X[:, 1] > 0, "c": range(60)})
    array = np.stack([X[:, 0], X[:, 1] > 0, range(60)], 1)
    framed, plain = _trainer(), _trainer()
    history = framed.fit(frame, pandas.Series(NAMES), epochs=2, verbose=False)
    assert history.records == plain.fit(array, NAMES, epochs=2, verbose=False).records
    np.testing.assert_array_equal(framed.predict(frame), plain.predict(array))
    frame["city"] = "Rome"
    with pytest.raises(errors.DataError, match=r"do not hold numbers.*'city'"):
        framed.predict(frame)


def test_frames_of_polars_are_taken_too() -> None:
    polars = pytest.importorskip("polars")
    trainer = _trainer()
    frame = polars.DataFrame({"a": X[:, 0], "b": X[:, 1], "c": X[:, 2]})
    np.testing.assert_array_equal(trainer.predict(frame), trainer.predict(X))


def test_a_refused_fit_remembers_no_labels() -> None:
    """Labels that the model has no outputs for are no labels of the run."""
    model = nn.Linear(2, 2)
    trainer = gp.Trainer(model, nn.CrossEntropyLoss(), optim.SGD(model.parameters(), lr=0.1))
    X = np.ones((4, 2), np.float32)
    with pytest.raises(errors.DataError, match="y has 3 different labels; the model has 2 outputs"):
        trainer.fit(X, ["a", "b", "c", "a"], epochs=1)
    assert trainer.state.classes == []
    trainer.fit(X, ["d", "e", "e", "d"], epochs=1)
    assert trainer.state.classes == ["d", "e"]
