"""Train and eval mode are the user's: what `fit`, `evaluate` and `predict` leave as it was."""

from __future__ import annotations

import numpy as np
import pytest
from registered import BACKENDS

from gpubp import nn, ops, optim
from gpubp.train import Callback, LRFinder, Trainer

RNG = np.random.default_rng(0)
X = RNG.normal(3.0, 2.0, size=(96, 5)).astype(np.float32)
Y = RNG.integers(0, 3, 96)


class _Frozen(nn.BatchNorm1d):
    """Stays in eval mode, whatever its parents do."""

    def train(self, mode=True):
        return super().train(False)


class _Block(nn.Module):
    """Layers below the first level."""

    def __init__(self, norm):
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(5, 8), norm, nn.Dropout(0.5)])

    def forward(self, x):
        for layer in self.layers:
            x = layer(x)
        return x


def _trainer(norm, backend="numpy", **options):
    ops.manual_seed(0)
    model = nn.Sequential(_Block(norm), nn.Linear(8, 3))
    norm.requires_grad_(False)
    params = [p for p in model.parameters() if p.requires_grad]
    optimizer = optim.SGD(params, lr=0.05)
    return Trainer(model, nn.CrossEntropyLoss(), optimizer, backend=backend, **options)


def _moved(norm):
    return bool((norm.running_mean.numpy() != 0).any())


def _modes(model):
    return [module.training for module in model.modules()]


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("validation", [False, True])
def test_a_frozen_batch_norm_stays_frozen_in_fit(backend, validation):
    norm = nn.BatchNorm1d(8)
    made = _trainer(norm, backend)
    norm.eval()
    before = _modes(made.model)
    data = (X, Y) if validation else None
    made.fit(X, Y, epochs=2, verbose=False, validation_data=data)
    assert not _moved(norm)
    assert _modes(made.model) == before
    norm.train()
    made.fit(X, Y, verbose=False)
    assert _moved(norm)


@pytest.mark.parametrize("backend", BACKENDS)
def test_a_dropout_that_is_switched_off_stays_off_in_fit(backend):
    """With it, an epoch of one batch is that of a model without dropout."""

    def loss(dropout):
        ops.manual_seed(1)
        layers = [nn.Linear(5, 8), nn.Dropout(dropout), nn.Linear(8, 3)]
        model = nn.Sequential(*layers)
        if dropout:
            layers[1].eval()
        optimizer = optim.SGD(model.parameters(), lr=0.1)
        made = Trainer(model, nn.CrossEntropyLoss(), optimizer, backend=backend)
        return made.fit(X, Y, epochs=3, shuffle=False, verbose=False)["loss"]

    np.testing.assert_array_equal(loss(0.5), loss(0.0))


def test_fit_evaluate_predict_and_the_finder_give_back_every_mode():
    made = _trainer(nn.BatchNorm1d(8))
    made.model[0].eval()
    made.model[0].layers[1].train()
    before = _modes(made.model)
    assert True in before and False in before
    for work in (
        lambda: made.fit(X, Y, verbose=False, validation_split=0.25),
        lambda: made.evaluate(X, Y),
        lambda: made.predict(X),
        lambda: LRFinder(made).find(X, Y, steps=20),
    ):
        work()
        assert _modes(made.model) == before


def test_a_model_that_is_in_eval_mode_as_a_whole_is_trained_in_train_mode():
    """As after `load_model`; it is in eval mode again afterwards."""
    norm = nn.BatchNorm1d(8)
    made = _trainer(norm)
    made.model.eval()
    made.fit(X, Y, verbose=False)
    assert _moved(norm)
    assert not any(_modes(made.model))


def test_a_callback_may_freeze_modules_on_the_way():
    norm = nn.BatchNorm1d(8)
    seen = []

    class Freeze(Callback):
        def on_epoch_begin(self, trainer, epoch):
            if epoch == 3:
                norm.eval()

        def on_epoch_end(self, trainer, epoch, record):
            seen.append(norm.running_mean.numpy())

    made = _trainer(norm)
    made.fit(X, Y, epochs=4, verbose=False, callbacks=[Freeze()])
    assert (seen[0] != seen[1]).any()
    np.testing.assert_array_equal(seen[2], seen[1])
    np.testing.assert_array_equal(seen[3], seen[1])
    assert not norm.training


def test_train_and_eval_call_the_overrides_of_sub_modules():
    norm, calls = _Frozen(8), []

    class Counting(nn.Linear):
        def train(self, mode=True):
            calls.append(mode)
            return super().train(mode)

    model = nn.Sequential(_Block(norm), nn.ModuleDict({"a": Counting(8, 3)}))
    assert model.train() is model
    assert not norm.training and calls == [True]
    assert model.eval() is model
    assert calls == [True, False] and not any(_modes(model))
    model.train()
    assert _modes(model).count(False) == 1
    made = _trainer(norm)
    made.model.eval()
    made.fit(X, Y, verbose=False)  # puts the model into train mode
    assert not _moved(norm)
