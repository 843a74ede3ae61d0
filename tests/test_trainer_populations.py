"""`Trainer(population=...)`: many members, and the best one's weights in the model."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import populations as pop
import pytest

import gpubp as gp
from gpubp import nn, optim
from gpubp.errors import ArgumentError, DataError, UnknownNameError
from gpubp.optim import lr_scheduler
from gpubp.train import EarlyStopping, TerminateOnNaN

X, Y = pop.data()
HELD_OUT = (X[:40], Y[:40])


def _trainer(population: Any, **options: Any) -> gp.Trainer:
    gp.manual_seed(0)
    model = pop.make()
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    return gp.Trainer(model, pop.loss_fn, optimizer, population=population, **options)


def test_the_best_members_weights_end_in_the_model() -> None:
    trainer = _trainer({"n": 3, "lr": [1e-6, 0.1, 1e20]})
    history = trainer.fit(X, Y, epochs=3, batch_size=40, validation_data=HELD_OUT, verbose=False)
    assert trainer.best == 1 and history is trainer.histories[1]
    assert [len(h["val_loss"]) for h in trainer.histories] == [3, 3, 3]
    found = trainer.evaluate(*HELD_OUT)
    assert found["loss"] == history["val_loss"][-1]
    assert found["accuracy"] == history["val_accuracy"][-1]
    assert pop.same(trainer.model.state_dict(), trainer.population.state_dict(1))


def test_members_are_the_models_that_the_architecture_makes_again() -> None:
    trainer = _trainer(2, seed=5)
    trainer.fit(X, Y, epochs=1, batch_size=50, verbose=False)
    for i in range(2):
        alone = pop.Alone(5 + i, lambda p: optim.SGD(p, lr=0.1))
        alone.run(X, Y, batch_size=50)
        assert pop.same(trainer.population.state_dict(i), alone.state())


def test_each_member_stops_for_itself_and_all_resume(tmp_path: Path) -> None:
    path = tmp_path / "run.ckpt"
    options: dict[str, Any] = {"batch_size": 50, "validation_data": HELD_OUT, "verbose": False}

    def callbacks() -> list[Any]:
        return [EarlyStopping("val_loss", 2)]

    rates = {"n": 3, "lr": [0.05, 1e20, 0.1]}
    whole = _trainer(rates)
    whole.fit(X, Y, epochs=5, callbacks=callbacks(), **options)
    assert len(whole.histories[1]["loss"]) == 2  # never better than nothing
    first = _trainer(rates)
    first.fit(X, Y, epochs=3, callbacks=callbacks(), checkpoint=path, **options)
    again = _trainer(rates)
    again.fit(X, Y, epochs=5, callbacks=callbacks(), resume=path, **options)
    mine, theirs = (
        [[sorted(r.items()) for r in h.records] for h in t.histories] for t in (again, whole)
    )
    assert str(mine) == str(theirs)  # NaN is NaN
    assert pop.same(again.model.state_dict(), whole.model.state_dict())


def test_the_number_that_stopping_watches_chooses_the_best() -> None:
    trainer = _trainer({"n": 3, "lr": [1e-9, 0.5, 1e-9]})
    watch = EarlyStopping("val_accuracy", 1, min_delta=0.0, mode="max")
    trainer.fit(
        X, Y, epochs=6, batch_size=50, validation_data=HELD_OUT, verbose=False, callbacks=[watch]
    )
    last = [h["val_accuracy"][-1] for h in trainer.histories]
    assert trainer.best == int(np.argmax(last))
    for history in trainer.histories:
        scores = history["val_accuracy"]
        gains = [b > a for a, b in zip(np.maximum.accumulate(scores), scores[1:])]
        assert len(scores) == (gains.index(False) + 2 if False in gains else 6)
    short = _trainer(2)
    never = EarlyStopping("val_loss", 1, min_delta=1e9)
    short.fit(
        X, Y, epochs=4, batch_size=50, validation_data=HELD_OUT, verbose=False, callbacks=[never]
    )
    assert [len(h.records) for h in short.histories] == [2, 2]


def test_what_populations_do_not_take_is_refused() -> None:
    with pytest.raises(DataError, match="restore_best_weights"):
        _trainer(2).fit(X, Y, callbacks=[EarlyStopping("loss", 2, restore_best_weights=True)])
    with pytest.raises(UnknownNameError, match="nonsense"):
        _trainer(2).fit(X, Y, verbose=False, callbacks=[EarlyStopping("nonsense", 2, mode="min")])
    for asked in ("many", True, {"lr": 0.1}):
        with pytest.raises(ArgumentError, match="expected how many"):
            _trainer(asked)
    trainer = _trainer(2)
    with pytest.raises(DataError, match="sample_weight is not for populations"):
        trainer.fit(X, Y, sample_weight=np.ones(len(X)))
    with pytest.raises(DataError, match="a callback is not for populations"):
        trainer.fit(X, Y, callbacks=[TerminateOnNaN()])
    model = nn.Linear(2, 2)
    optimizer = optim.SGD(model.parameters())
    with pytest.raises(DataError, match="schedules of their own"):
        gp.Trainer(
            model,
            pop.loss_fn,
            optimizer,
            population=2,
            scheduler=lr_scheduler.StepLR(optimizer, 3),
        )
    with pytest.raises(DataError, match="no member has a finite loss"):
        _trainer({"n": 2, "lr": 1e30}).fit(X, Y, epochs=3, verbose=False)


class _Pair(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(pop.FEATURES, pop.CLASSES)
        self.second = nn.Linear(2, pop.CLASSES)

    def forward(self, a: Any, b: Any) -> Any:
        return {"scores": self.first(a) + self.second(b)}


def _of_scores(outputs: Any, y: Any) -> Any:
    loss = pop.loss_fn(outputs["scores"], y)
    return loss, {"twice": loss * 2.0}


def _pair(**population: Any) -> gp.Trainer:
    model = _Pair()
    rule = optim.SGD(model.parameters(), lr=0.1)
    return gp.Trainer(model, _of_scores, rule, population={"n": 2, **population})


@pytest.mark.parametrize("given", [{"a": X, "b": X[:, :2]}, (X, X[:, :2])], ids=["dict", "tuple"])
def test_members_take_several_inputs_and_losses_that_give_other_numbers(given: Any) -> None:
    trainer = _pair(initial=_Pair)
    history = trainer.fit(
        given, Y, epochs=2, batch_size=50, validation_data=(given, Y), verbose=False
    )
    assert [h.records[-1]["loss"] > 0 for h in trainer.histories] == [True, True]
    assert history["val_twice"] == pytest.approx([2 * v for v in history["val_loss"]])
    alone = trainer.evaluate(given, Y)
    assert alone["loss"] == history["val_loss"][-1]


def test_a_model_that_cannot_be_made_again_needs_a_function_that_makes_it() -> None:
    with pytest.raises(DataError, match=r'population=\{"n": \.\.\., "initial": make_model\}'):
        _pair()


def test_members_are_validated_with_weights() -> None:
    weights = np.random.default_rng(0).random(40)
    trainer = _trainer(2)
    history = trainer.fit(
        X, Y, epochs=1, batch_size=50, validation_data=(*HELD_OUT, weights), verbose=False
    )
    assert history["val_loss"][-1] == trainer.evaluate(*HELD_OUT, (), weights)["loss"]


def test_what_cannot_be_validated_is_refused_before_the_first_step() -> None:
    options: dict[str, Any] = {"epochs": 1, "batch_size": 50, "verbose": False}
    trainer = _trainer(2)
    for held_out, message in (
        ((X[:40], Y[:40] + 9), "validation y holds label"),
        ((X[:40] * np.nan, Y[:40]), "validation X holds nan"),
        ((X[:40], Y[:39]), "validation"),
    ):
        with pytest.raises(DataError, match=message):
            trainer.fit(X, Y, validation_data=held_out, **options)
    with pytest.raises(UnknownNameError, match="acuracy"):
        trainer.fit(X, Y, validation_data=HELD_OUT, metrics=["acuracy"], **options)
    with pytest.raises(DataError, match="measured on validation_data"):
        trainer.fit(X, Y, metrics=["f1_macro"], **options)
    assert trainer.population.steps == [0, 0]
