"""Models of several inputs and outputs through Trainer, arrays without samples."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from registered import BACKENDS

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.errors import ArgumentError, DataError, GpubpError
from gpubp.train import EarlyStopping, LRFinder, Trainer
from gpubp.train.history import History

RNG = np.random.default_rng(0)
A, B = RNG.normal(size=(90, 3)).astype("f4"), RNG.normal(size=(90, 2)).astype("f4")
TABLE = RNG.normal(size=(2, 4)).astype("f4")
LABELS = np.where(A[:, 0] > 0, 1, np.where(B[:, 1] > 0, 2, 0))
NUMBERS = (A[:, :1] - B[:, 1:]).astype("f4")


class Two(nn.Module):
    """Of inputs a and b and a table that has no samples; classes, and a number."""

    def __init__(self, heads: bool = False) -> None:
        super().__init__()
        self.a, self.b = nn.Linear(3, 4), nn.Linear(4, 4)
        self.classes, self.heads = nn.Linear(4, 3), heads
        if heads:
            self.number = nn.Linear(4, 1)

    def forward(self, a: Any, b: Any, table: Any = TABLE) -> Any:
        z = ops.tanh(self.a(a) + self.b(b @ table))
        found = self.classes(z)
        return {"classes": found, "number": self.number(z)} if self.heads else found


class OfOne(Two):
    """The same of one argument: a tuple, or a dict whose keys are no parameters."""

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        parts = [x["1"], x["2"]] if isinstance(x, dict) else x
        return super().forward(*parts)


class Flat(Two):
    """The same of one array."""

    def forward(self, x: Any) -> Any:  # type: ignore[override]
        return super().forward(x[:, :3], x[:, 3:])


def made(kind: type[Two] = Two, loss: Any = None, backend: str = "numpy", **options: Any) -> Any:
    gp.manual_seed(0)
    model = kind(options.pop("heads", False))
    optimizer = optim.Adam(model.parameters(), lr=0.03)
    return Trainer(model, loss or nn.CrossEntropyLoss(), optimizer, backend=backend, **options)


FLAT = np.concatenate([A, B], axis=1)
FORMS: dict[str, tuple[type[Two], Any]] = {
    "a tuple": (Two, (A, B)),
    "keywords": (Two, {"b": B, "a": A}),
    "with a whole table": (Two, {"a": A, "b": B, "table": gp.whole(TABLE)}),
    "a whole table by position": (Two, (A, B, gp.whole(TABLE))),
    "one tuple": (OfOne, (A, B)),
    "one dict": (OfOne, {"1": A, "2": B}),
}


def rows_of(X: Any, rows: Any) -> Any:
    if isinstance(X, dict):
        return {k: rows_of(v, rows) for k, v in X.items()}
    if isinstance(X, tuple):
        return tuple(rows_of(v, rows) for v in X)
    return X[rows] if isinstance(X, np.ndarray) else X


def records(history: History) -> Any:
    return history.records


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("form", FORMS)
def test_every_form_trains_as_one_array(form: str, backend: str) -> None:
    options = {"epochs": 3, "batch_size": 16, "validation_split": 0.2, "metrics": ["f1_macro"]}
    plain = made(Flat, backend=backend)
    expected = plain.fit(FLAT, LABELS, verbose=False, **options)
    kind, X = FORMS[form]
    trainer = made(kind, backend=backend)
    history = trainer.fit(X, LABELS, verbose=False, **options)
    assert list(history) == [
        "epoch",
        "loss",
        "f1_macro",
        "val_loss",
        "val_accuracy",
        "val_f1_macro",
    ]
    for key in history:
        np.testing.assert_allclose(history[key], expected[key], rtol=2e-4)
    np.testing.assert_allclose(trainer.predict(X), plain.predict(FLAT), rtol=2e-4, atol=1e-6)
    np.testing.assert_array_equal(trainer.predict(X, batch_size=7), trainer.predict(X))
    got, wanted = trainer.evaluate(X, LABELS), plain.evaluate(FLAT, LABELS)
    assert got == pytest.approx(wanted, rel=2e-4)


def test_weights_and_held_out_data_of_several_inputs() -> None:
    weights = RNG.uniform(0.5, 2.0, 90)
    options = {"epochs": 2, "verbose": False, "class_weight": "balanced"}
    plain = made(Flat)
    expected = plain.fit(
        FLAT, LABELS, validation_data=(FLAT, LABELS, weights), sample_weight=weights, **options
    )
    X = {"a": A, "b": B}
    history = made().fit(
        X, LABELS, validation_data=(X, LABELS, weights), sample_weight=weights, **options
    )
    for key in history:
        np.testing.assert_allclose(history[key], expected[key], rtol=2e-4)


@pytest.mark.parametrize("form", FORMS)
def test_streams_and_mapped_files_give_the_same_bits(
    form: str, tmp_path: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    from gpubp.data import sources

    kind, X = FORMS[form]
    options = {"epochs": 2, "shuffle": False, "verbose": False}
    expected = records(made(kind).fit(X, LABELS, batch_size=16, **options))
    batches = [(rows_of(X, slice(i, i + 16)), LABELS[i : i + 16]) for i in range(0, 90, 16)]
    assert records(made(kind).fit(batches, **options)) == expected
    np.save(tmp_path / "a.npy", A)
    monkeypatch.setattr(sources, "BLOCK_BYTES", 16 * 3 * 4)
    mapped = np.load(tmp_path / "a.npy", mmap_mode="r")
    X = (
        {k: mapped if v is A else v for k, v in X.items()}
        if isinstance(X, dict)
        else (mapped, *X[1:])
    )
    assert sources.is_mapped(mapped)
    assert records(made(kind).fit(X, LABELS, batch_size=16, **options)) == expected
    np.testing.assert_array_equal(made(kind).predict(X), made(kind).predict(FORMS[form][1]))


def test_a_streams_whole_arrays_may_differ_from_batch_to_batch() -> None:
    tables = [TABLE, 2 * TABLE, TABLE]
    batches = [((A[:16], B[:16], gp.whole(t)), LABELS[:16]) for t in tables]
    trainer = made()
    trainer.fit(batches, verbose=False)
    step = made()
    step.step.run((A[:16], B[:16], gp.whole(TABLE)), LABELS[:16], batch_size=16, shuffle=False)
    step.step.run((A[:16], B[:16], gp.whole(2 * TABLE)), LABELS[:16], batch_size=16, shuffle=False)
    step.step.run((A[:16], B[:16], gp.whole(TABLE)), LABELS[:16], batch_size=16, shuffle=False)
    for name, value in step.model.state_dict().items():
        np.testing.assert_array_equal(trainer.model.state_dict()[name], value)


def both(outputs: Any, y: Any) -> Any:
    classes = nn.CrossEntropyLoss()(outputs["classes"], y["classes"])
    number = nn.MSELoss()(outputs["number"], y["number"])
    return classes + number, {"classes": classes, "number": number}


def right(y: Any, outputs: Any) -> float:
    return float((outputs["classes"].argmax(1) == y["classes"]).mean())


@pytest.mark.parametrize("backend", BACKENDS)
def test_several_outputs_targets_and_numbers(backend: str) -> None:
    trainer = made(loss=both, heads=True, backend=backend)
    X, y = (A, B), {"classes": LABELS, "number": NUMBERS}
    held_out = ((A[:20], B[:20]), {"classes": LABELS[:20], "number": NUMBERS[:20]})
    history = trainer.fit(
        X, y, epochs=3, batch_size=16, validation_data=held_out, metrics=[right], verbose=False
    )
    assert list(history) == [
        "epoch", "loss", "classes", "number", "right",
        "val_loss", "val_classes", "val_number", "val_right",
    ]  # fmt: skip
    parts = np.add(history["classes"], history["number"])
    np.testing.assert_allclose(history["loss"], parts, rtol=1e-6)
    outputs = trainer.predict(X)
    assert {k: v.shape for k, v in outputs.items()} == {"classes": (90, 3), "number": (90, 1)}
    found = trainer.evaluate(X, y, [right])
    assert found["number"] == pytest.approx(np.mean((outputs["number"] - NUMBERS) ** 2), rel=1e-5)
    assert found["right"] == right(y, outputs)
    assert list(found) == ["loss", "classes", "number", "right"]


def test_numbers_of_a_loss_count_what_it_counts() -> None:
    """As of one batch of all samples: ignored labels do not count, batches of any size do."""
    y = np.where(np.arange(90) % 3 == 0, 1, LABELS)
    inner = nn.CrossEntropyLoss(ignore_index=1)

    def loss(outputs: Any, y: Any) -> Any:
        value = inner(outputs, y)
        return value, {"again": value, "largest": ops.max(outputs)}

    trainer = made(loss=loss)
    for group in trainer.optimizer.param_groups:
        group["lr"] = 0.0
    history = trainer.fit((A, B), y, batch_size=16, verbose=False)
    assert history["again"] == pytest.approx(history["loss"], rel=1e-6)
    outputs = trainer.predict((A, B))
    means = [outputs[i : i + 16].max() * len(outputs[i : i + 16]) for i in range(0, 90, 16)]
    rows = trainer.fit((A, B), y, batch_size=16, shuffle=False, verbose=False)["largest"][-1]
    assert rows == pytest.approx(sum(means) / 90, rel=1e-5)


def test_numbers_can_be_watched() -> None:
    trainer = made(loss=both, heads=True)
    y = {"classes": LABELS, "number": NUMBERS}
    stopping = EarlyStopping("number", mode="min", patience=1)
    trainer.fit((A, B), y, epochs=2, verbose=False, callbacks=[stopping])
    with pytest.raises(GpubpError, match="val_number"):
        other = EarlyStopping("val_number", mode="min")
        made(loss=both, heads=True).fit((A, B), y, verbose=False, callbacks=[other])


@pytest.mark.parametrize("steps", [2, 4, 7])
def test_a_resumed_run_has_the_same_numbers(steps: int, tmp_path: Any) -> None:
    X, y = {"a": A, "b": B}, {"classes": LABELS, "number": NUMBERS}
    options = {"epochs": 2, "batch_size": 16, "verbose": False, "checkpoint": tmp_path / "run"}
    whole = made(loss=both, heads=True)
    whole.fit(X, y, **options)
    made(loss=both, heads=True).fit(X, y, max_steps=steps, **options)
    resumed = made(loss=both, heads=True)
    resumed.fit(X, y, resume=tmp_path / "run", **options)
    assert records(resumed.history) == records(whole.history)
    for name, value in whole.model.state_dict().items():
        np.testing.assert_array_equal(resumed.model.state_dict()[name], value)


def test_a_rate_is_found_for_several_inputs() -> None:
    trainer = made(loss=both, heads=True)
    rate = LRFinder(trainer).find((A, B), {"classes": LABELS, "number": NUMBERS}, batch_size=30)
    assert 1e-6 < rate < 10


def test_outputs_without_rows_are_for_losses_alone() -> None:
    class Penal(Two):
        def forward(self, a: Any, b: Any) -> Any:  # type: ignore[override]
            found = super().forward(a, b)
            return found, ops.mean(ops.square(found))

    def loss(outputs: Any, y: Any) -> Any:
        return nn.CrossEntropyLoss()(outputs[0], y) + 0.1 * outputs[1]

    trainer = made(Penal, loss)
    trainer.fit((A, B), LABELS, verbose=False, validation_split=0.1)
    with pytest.raises(GpubpError, match=r"returned \[\(90, 3\), \(\)\] for 90 samples"):
        trainer.predict((A, B))


def fits(X: Any, y: Any, loss: Any = None, **options: Any) -> Any:
    return lambda: made(loss=loss, heads=loss is both).fit(X, y, verbose=False, **options)


def gives(numbers: Any) -> Any:
    return lambda outputs, y: (nn.CrossEntropyLoss()(outputs, y), numbers(outputs))


Y = {"classes": LABELS, "number": NUMBERS}
WRONG: list[tuple[Any, type[GpubpError], str]] = [
    (fits((A, B[:8]), LABELS), DataError, r"X\[0\] has 90 samples and X\[1\] has 8"),
    (fits({"a": A, "b": B[:0]}, LABELS), DataError, r"X\['b'\] is empty"),
    (fits({"a": A, "b": B * np.nan}, LABELS), DataError, r"X\['b'\] holds nan"),
    (fits((A, B, gp.whole(TABLE * np.inf)), LABELS), DataError, r"X\[2\] holds -?inf"),
    (fits((A, B), np.where(LABELS == 2, 3, LABELS)), DataError, "y holds label 3"),
    (fits((A, B), {**Y, "number": NUMBERS[:3]}, both), DataError, r"y\['number'\] has 3"),
    (fits((A, B), Y, both, metrics=["mse"]), DataError, "mse needs one array of targets"),
    (fits((A, B), Y, both, class_weight="balanced"), DataError, "y is a dict of arrays"),
    (fits([A, B], LABELS), ArgumentError, "a list is one array.*tuple"),
    (fits([A, A], LABELS), DataError, "pass a tuple of them: a list is one array"),
    (fits((A, B), LABELS, gives(lambda z: z)), DataError, "numbers by name"),
    (fits((A, B), LABELS, gives(lambda z: {"z": z})), DataError, r"'z' of shape \(32, 3\)"),
    (fits((A, B), LABELS, gives(lambda z: {"loss": 1.0})), DataError, "called 'loss'"),
    (fits((A, B), LABELS, gives(lambda z: {"val_x": 1.0})), DataError, "called 'val_x'"),
    (fits((A, B), LABELS, gives(lambda z: {"lr": 1.0})), DataError, "called 'lr'"),
    (fits((A, B), LABELS, gives(lambda z: {1: 1.0})), DataError, "called 1"),
    (fits(gp.whole(A), gp.whole(LABELS)), DataError, "gp.whole"),
    (fits((A, B), "labels"), GpubpError, "y"),
]


@pytest.mark.parametrize(("work", "kind", "message"), WRONG)
def test_what_cannot_be_used_is_refused(work: Any, kind: type[GpubpError], message: str) -> None:
    with pytest.raises(kind, match=message):
        work()


@pytest.mark.parametrize(
    ("X", "message"),
    [
        (
            {"a": np.ones((4, 3), "f"), "z": np.ones((4, 2), "f")},
            r"a dict of 'a', 'z' \(2 arrays\)",
        ),
        ((np.ones((4, 3), "f"),) * 5, r"a tuple \(5 arrays\)"),
    ],
)
def test_inputs_that_fit_no_argument_are_refused_with_the_signature(X: Any, message: str) -> None:
    with pytest.raises(ArgumentError, match=message + r".*forward\(a: 'Any', b: 'Any'"):
        made().fit(X, np.zeros(4, np.int64), verbose=False)
