"""Model files and checkpoints: what goes out comes back, and what does not fit is refused."""

from __future__ import annotations

import json
from functools import cache

import numpy as np
import optimizers
import pytest
from points import assert_same, points, trainer
from registered import BACKENDS

from gpubp import nn, ops, optim
from gpubp.errors import CheckpointError, DataError
from gpubp.ops.random import Generator, default_generator
from gpubp.train import (
    EarlyStopping,
    LRMonitor,
    Trainer,
    architecture,
    load_model,
    load_weights,
    save_model,
    tensorfile,
)

X, Y = points()


class Halving:
    """A schedule of the user's: halves the rate each epoch."""

    def __init__(self, optimizer):
        self.optimizer = optimizer
        self.count = 0

    def step(self):
        self.count += 1
        self.optimizer.param_groups[0]["lr"] = 0.03 * 0.5**self.count

    def state_dict(self):
        return {"count": self.count}

    def load_state_dict(self, state):
        self.count = state["count"]


def _fit(made, **options):
    options = {
        "epochs": 4,
        "batch_size": 16,
        "verbose": False,
        "validation_data": (X, Y),
        **options,
    }
    made.fit(X, Y, **options)
    return made


@cache
def _never_stopped(backend):
    return _fit(trainer(backend))


@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("stop", [1, 5, 6, 7, 12, 23, 24])
def test_a_resumed_run_ends_as_one_never_stopped(tmp_path, backend, stop):
    """6 steps an epoch: within epochs, at their ends, in the last one, and after it."""
    path = tmp_path / "run.ckpt"
    _fit(trainer(backend), max_steps=stop, checkpoint=path)
    ops.manual_seed(99)
    resumed = _fit(trainer(backend, seed=7), resume=path)
    assert_same(resumed, _never_stopped(backend))


@pytest.mark.parametrize(("optimizer", "options"), optimizers.CASES)
def test_every_optimizer_resumes(tmp_path, optimizer, options):
    path = tmp_path / "run.ckpt"

    def make():
        return trainer(optimizer=optimizer, options=options)

    whole = _fit(make())
    _fit(make(), max_steps=9, checkpoint=path)
    assert_same(_fit(make(), resume=path), whole)


SCHEDULES = {
    "StepLR": {"step_size": 2},
    "CosineAnnealingWarmRestarts": {"T_0": 4},
    "ExponentialLR": {"gamma": 0.9},
    "OneCycleLR": {"max_lr": 0.1, "total_steps": 24},
    "LambdaLR": {"lr_lambda": lambda epoch: 0.95**epoch},
    "ReduceLROnPlateau": {"patience": 0, "threshold": 10.0, "threshold_mode": "abs"},
}


@pytest.mark.parametrize("every", ["epoch", "step"])
@pytest.mark.parametrize("name", SCHEDULES)
def test_every_schedule_resumes(tmp_path, name, every):
    path = tmp_path / "run.ckpt"
    if (name, every) == ("ReduceLROnPlateau", "step"):
        with pytest.raises(DataError, match="cannot run inside the program"):
            trainer(schedule=(name, SCHEDULES[name]), scheduler_every=every)
        return

    def make():
        return trainer(schedule=(name, SCHEDULES[name]), scheduler_every=every)

    whole = _fit(make(), callbacks=[LRMonitor()])
    assert len(set(whole.history["lr"])) > 1
    _fit(make(), max_steps=9, checkpoint=path, callbacks=[LRMonitor()])
    resumed = _fit(make(), resume=path, callbacks=[LRMonitor()])
    assert_same(resumed, whole)
    assert resumed.scheduler.state_dict() == whole.scheduler.state_dict()


@pytest.mark.parametrize("stop", [1, 6, 8, 9, 17])
def test_accumulated_gradients_and_averages_resume(tmp_path, stop):
    """Batches that wait for an update, and weights averaged in the program."""
    path = tmp_path / "run.ckpt"

    def make():
        made = trainer(accumulate=4, average=0.9, max_grad_norm=1.0)
        return made

    whole = _fit(make())
    _fit(make(), max_steps=stop, checkpoint=path)
    resumed = _fit(make(), resume=path)
    assert_same(resumed, whole)
    assert resumed.step.pending == whole.step.pending == 0


def test_accumulation_updates_at_the_end_of_each_epoch(monkeypatch):
    """Wherever the chunks end: 6 batches an epoch in groups of 4 and 2."""
    expected = trainer(accumulate=4, dropout=0.0)
    for _ in range(2):
        order = expected.rng.permutation(len(X))
        expected.step.run(X, Y, batch_size=16, order=order)
    monkeypatch.setattr("gpubp.train.fit.FIRST_CHUNK_BATCHES", 1)
    monkeypatch.setattr("gpubp.train.fit.SECONDS_BETWEEN_LOOKS", 0.0)
    made = _fit(trainer(accumulate=4, dropout=0.0), epochs=2)
    stream = trainer(accumulate=4, dropout=0.0)
    orders = np.random.Generator(np.random.PCG64(0))

    def batches():
        order = orders.permutation(len(X))
        return [(X[order[i : i + 16]], Y[order[i : i + 16]]) for i in range(0, 90, 16)]

    stream.fit(batches, epochs=2, verbose=False)
    for name, value in expected.model.state_dict().items():
        np.testing.assert_array_equal(made.model.state_dict()[name], value)
        np.testing.assert_array_equal(stream.model.state_dict()[name], value)


def test_running_statistics_resume(tmp_path):
    path = tmp_path / "run.ckpt"

    def make():
        ops.manual_seed(0)
        model = nn.Sequential(nn.Linear(2, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
        optimizer = optim.AdamW(model.parameters(), lr=0.03)
        return Trainer(model, nn.CrossEntropyLoss(), optimizer, backend="numba")

    whole = _fit(make())
    _fit(make(), max_steps=9, checkpoint=path)
    resumed = _fit(make(), resume=path)
    assert_same(resumed, whole)
    assert resumed.model[1].num_batches_tracked.value == 24


def test_many_resumptions_and_saves_within_epochs(tmp_path):
    path = tmp_path / "run.ckpt"
    whole = _fit(trainer())
    for stop in range(1, 24, 3):
        resume = path if path.exists() else None
        part = _fit(trainer(), max_steps=stop, checkpoint=path, save_every_steps=2, resume=resume)
        assert part.stop_reason == "max_steps"
    assert_same(_fit(trainer(), resume=path), whole)


def test_a_schedule_and_callbacks_resume(tmp_path):
    path = tmp_path / "run.ckpt"

    def make():
        made = trainer()
        made.scheduler = Halving(made.optimizer)
        return made

    def callbacks():
        return [LRMonitor(), EarlyStopping(patience=2, min_delta=10.0, restore_best_weights=True)]

    whole = _fit(make(), epochs=9, callbacks=callbacks())
    assert whole.epoch == 3  # the first epoch was better than infinity, then 2 were not
    _fit(make(), epochs=9, callbacks=callbacks(), max_steps=9, checkpoint=path)
    resumed = _fit(make(), epochs=9, callbacks=callbacks(), resume=path, checkpoint=path)
    assert_same(resumed, whole)
    assert resumed.history["lr"] == [0.03, 0.015, 0.0075]
    # What a callback ended stays ended, and its end is the same again.
    again = _fit(make(), epochs=9, callbacks=callbacks(), resume=path)
    assert_same(again, whole)


def test_a_generator_of_the_users_resumes(tmp_path):
    path = tmp_path / "run.ckpt"

    def make():
        made = trainer()
        made.model[2].generator = Generator(5)
        return made

    whole = _fit(make())
    _fit(make(), max_steps=8, checkpoint=path)
    assert_same(_fit(make(), resume=path), whole)


def test_resuming_with_more_epochs_goes_on(tmp_path):
    path = tmp_path / "run.ckpt"
    whole = _fit(trainer(), epochs=6)
    _fit(trainer(), epochs=2, checkpoint=path)
    assert_same(_fit(trainer(), epochs=6, resume=path), whole)


def test_save_and_load_of_a_trainer_go_on_in_a_second_fit(tmp_path):
    path = tmp_path / "run.ckpt"
    whole = _fit(_fit(trainer(), epochs=2), epochs=2)
    first = _fit(trainer(), epochs=2)
    first.save(path, extra={"note": [1, "two"]})
    second = trainer()
    assert second.load(path) == {"note": [1, "two"]}
    for name, value in first.model.state_dict().items():
        np.testing.assert_array_equal(second.model.state_dict()[name], value)
    assert second.predict(X).tobytes() == first.predict(X).tobytes()
    second.save(path)  # before anything was compiled
    third = trainer()
    third.load(path)
    assert_same(_fit(third, epochs=2), whole)


def test_a_batch_of_another_size_does_not_fit_within_an_epoch(tmp_path):
    path = tmp_path / "run.ckpt"
    _fit(trainer(), max_steps=8, checkpoint=path)
    other = trainer()
    before = other.model.state_dict()
    for options in ({"batch_size": 8}, {"shuffle": False}, {"validation_split": 0.5}):
        if "validation_split" in options:
            options["validation_data"] = None
        with pytest.raises(CheckpointError, match="stands within an epoch"):
            _fit(other, resume=path, **options)
    for name, value in other.model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])
    assert other.history.records == []
    other.load(path)
    with pytest.raises(CheckpointError, match="the state that was loaded stands within an epoch"):
        _fit(other, batch_size=8)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: trainer(hidden=9), "does not fit the model"),
        (lambda: trainer(optimizer="SGD", options={"momentum": 0.9}), "does not fit"),
        (lambda: trainer(dropout=0.0), "wrote 14 arrays, this one writes 13"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(tmp_path, make, message):
    path = tmp_path / "run.ckpt"
    _fit(trainer(), epochs=1, checkpoint=path)
    other = make()
    before = other.model.state_dict()
    with pytest.raises(CheckpointError, match=message) as error:
        _fit(other, resume=path)
    assert str(path) in str(error.value)
    for name, value in other.model.state_dict().items():
        np.testing.assert_array_equal(value, before[name])


def test_other_callbacks_or_schedules_are_refused(tmp_path):
    path = tmp_path / "run.ckpt"
    _fit(trainer(), epochs=1, checkpoint=path, callbacks=[LRMonitor()])
    with pytest.raises(CheckpointError, match=r"callbacks \['LRMonitor'\]; this call has \[\]"):
        _fit(trainer(), resume=path)
    scheduled = trainer()
    scheduled.scheduler = Halving(scheduled.optimizer)
    with pytest.raises(CheckpointError, match="no scheduler; this trainer has one"):
        _fit(scheduled, resume=path, callbacks=[LRMonitor()])


def test_a_model_file_comes_back(tmp_path):
    path = tmp_path / "m.safetensors"
    made = _fit(trainer())
    save_model(path, made.model, {"labels": ["a", "b"]})
    counter = default_generator.state.value.copy()
    found = load_model(path)
    np.testing.assert_array_equal(default_generator.state.value, counter)
    assert found.extra == {"labels": ["a", "b"]}
    assert not found.model.training
    np.testing.assert_array_equal(found.model(X), made.predict(X))
    assert repr(found.model) == repr(made.model)
    other = trainer().model
    assert load_weights(path, other) == ([], [])
    np.testing.assert_array_equal(other[0].weight.value, made.model[0].weight.value)


def test_a_checkpoint_gives_its_model(tmp_path):
    path = tmp_path / "run.ckpt"
    made = _fit(trainer(), checkpoint=path)
    np.testing.assert_array_equal(load_model(path).model(X), made.predict(X))
    other = trainer().model
    load_weights(path, other)
    np.testing.assert_array_equal(other[3].bias.value, made.model[3].bias.value)
    save_model(path, made.model)
    with pytest.raises(CheckpointError, match="holds a model; expected a checkpoint"):
        _fit(trainer(), resume=path)


EXAMPLES = {
    **{f"Conv{n}d": (4, 6, 3) for n in (1, 2, 3)},
    **{f"ConvTranspose{n}d": (4, 6, 3) for n in (1, 2, 3)},
    **{f"{kind}Norm{n}d": (3,) for n in (1, 2, 3) for kind in ("Batch", "Instance")},
    "GroupNorm": (2, 4),
    "Bilinear": (3, 2, 4),
    "Embedding": (5, 3, 1, 2.0, 1.0, True, True),
    "EmbeddingBag": (5, 3, 1.5, 1.0, True, "sum", True, True, 1),
    "LayerNorm": ([3, 2],),
    "Linear": (3, 2),
    "RMSNorm": (3,),
    "LogSoftmax": (-1,),
    "Softmax": (1,),
    "Softmin": (-1,),
    "Threshold": (0.1, -2.0),
    "Unflatten": (1, (2, 3)),
    **{f"{n}Pad1d": ((1, -1),) for n in ("Zero", "Reflection", "Replication", "Circular")},
    **{f"{n}Pad2d": (2,) for n in ("Zero", "Reflection", "Replication", "Circular")},
    **{f"{n}Pad3d": (1,) for n in ("Zero", "Reflection", "Replication", "Circular")},
    **{f"ConstantPad{n}d": (1, 0.5) for n in (1, 2, 3)},
    "ChannelShuffle": (2,),
    "CrossMapLRN2d": (3, 0.1),
    "Fold": ((4, 5), (2, 3)),
    "LocalResponseNorm": (2,),
    "PixelShuffle": (2,),
    "PixelUnshuffle": (3,),
    "RandomAffine": (20.0, (0.2, 0.1), (0.5, 1.5), 3.0),
    "RandomCrop": ((3, 4), 1, True, 0.5, "edge"),
    "RandomRotation": ((-5.0, 10.0), "bilinear"),
    "RandomShift": ((1, 2),),
    "KeyValueCache": (2, 3, 5, 4),
    "MultiheadAttention": (6, 2, 0.1, True, True, True, 5, 4, True),
    "RotaryEmbedding": (4, 16, 100.0, True),
    "RNN": (3, 4, 2, "relu", False, True, 0.1, True),
    "LSTM": (3, 4, 2, True, True, 0.1, True, 2),
    "GRU": (3, 4, 2, False),
    "RNNCell": (3, 4, True, "relu"),
    "LSTMCell": (3, 4, False),
    "GRUCell": (3, 4),
    "Transformer": (4, 2, 1, 2, 8, 0.1, "gelu"),
    "TransformerDecoder": (nn.TransformerDecoderLayer(4, 2, 8), 2),
    "TransformerDecoderLayer": (4, 2, 8, 0.2, "gelu", 1e-4, True, True, False),
    "TransformerEncoder": (nn.TransformerEncoderLayer(4, 2, 8), 2, nn.LayerNorm(4)),
    "TransformerEncoderLayer": (4, 2, 8, 0.2, nn.SiLU(), 1e-4, True, True, False),
    "Unfold": ((2, 1), 1, (0, 1)),
    "Upsample": (None, (2.0, 1.5), "bilinear", False),
    "UpsamplingBilinear2d": ((3, 4),),
    "UpsamplingNearest2d": (None, 2),
    **{f"{kind}Pool{n}d": (3, 2, 1) for kind in ("Max", "Avg") for n in (1, 2, 3)},
    **{f"LPPool{n}d": (2, (3,) * n) for n in (1, 2, 3)},
    **{f"Adaptive{kind}Pool{n}d": (5,) for kind in ("Max", "Avg") for n in (1, 2, 3)},
    **{f"FractionalMaxPool{n}d": (2, None, 0.5) for n in (2, 3)},
    **{f"MaxUnpool{n}d": (2, 1) for n in (1, 2, 3)},
}
LAZY = {
    "LazyLinear": (3,),
    **{f"LazyConv{n}d": (6, 3) for n in (1, 2, 3)},
    **{f"LazyConvTranspose{n}d": (6, 3) for n in (1, 2, 3)},
}
OTHERS = ("Module", "Sequential", "ModuleDict", "ModuleList", "ParameterDict", "ParameterList")


def _modules():
    found = {name: getattr(nn, name) for name in nn.__all__ if not name.endswith("Loss")}
    kinds = {name: cls for name, cls in found.items() if isinstance(cls, type)}
    return [n for n, cls in kinds.items() if issubclass(cls, nn.Module) and n not in OTHERS]


def _assert_described(made):
    again = architecture.build(json.loads(json.dumps(architecture.describe(made))))
    assert type(again) is type(made)
    assert repr(again) == repr(made)
    mine, theirs = (list(m.state_dict().items()) for m in (made, again))
    for (name, a), (twin, b) in zip(mine, theirs, strict=True):
        assert (name, a.shape, a.dtype) == (twin, b.shape, b.dtype)


@pytest.mark.parametrize("name", [n for n in _modules() if not n.startswith("Lazy")])
def test_every_module_is_described_and_built(name):
    _assert_described(getattr(nn, name)(*EXAMPLES.get(name, ())))


@pytest.mark.parametrize("name", [n for n in _modules() if n.startswith("Lazy")])
def test_lazy_modules_are_described_before_their_first_call_and_after(name):
    made = getattr(nn, name)(*LAZY.get(name, ()))
    again = architecture.build(json.loads(json.dumps(architecture.describe(made))))
    assert (type(again), repr(again)) == (type(made), repr(made))
    made(np.ones((2, 4, *[5] * int(name[-2])) if name[-1] == "d" else (2, 4), np.float32))
    _assert_described(made)


@pytest.mark.parametrize(
    "make",
    [
        lambda: nn.Linear(3, 2, bias=False, dtype="float64"),
        lambda: nn.Dropout(0.25),
        lambda: nn.GELU("tanh"),
        lambda: nn.Sequential(nn.Sequential(nn.Linear(2, 2)), nn.Sequential()),
        lambda: nn.BatchNorm1d(4, eps=1e-3, momentum=None, dtype="float64"),
        lambda: nn.BatchNorm1d(4, affine=False, track_running_stats=False),
        lambda: nn.LayerNorm(4, elementwise_affine=False),
        lambda: nn.LayerNorm((4, 2), bias=False),
        lambda: nn.RMSNorm(4, elementwise_affine=False),
        lambda: nn.LeakyReLU(0.3),
        lambda: nn.ELU(0.7),
        lambda: nn.PReLU(5),
        lambda: nn.Hardtanh(-2.0, 3.0),
        lambda: nn.Softplus(2.0, 10.0),
        lambda: nn.Flatten(0, -1),
        lambda: nn.Embedding(5, 3, padding_idx=1),
        lambda: nn.GroupNorm(2, 4, affine=False),
        lambda: nn.Conv2d(4, 6, (2, 3), 1, "same", 2, 2, False, "circular", "float64"),
        lambda: nn.ConvTranspose2d(4, 6, 3, 2, (0, 1), 1, 2, False, 3),
        lambda: nn.InstanceNorm2d(4, 1e-3, None, True, True, bias=False),
        lambda: nn.AlphaDropout(0.25),
    ],
)
def test_arguments_of_modules_are_described(make):
    _assert_described(make())


def _changed_layer():
    layer = nn.TransformerEncoderLayer(4, 2, 8)
    layer.linear2 = nn.Linear(8, 4, bias=False)
    return layer


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: nn.ModuleList([nn.Linear(2, 2)]), "in a Sequential alone"),
        (_changed_layer, "was changed after it was made"),
        (lambda: nn.TransformerEncoderLayer(4, 2, 8, activation=lambda x: x), "a file cannot"),
    ],
)
def test_modules_of_modules_that_a_file_cannot_describe(make, message):
    with pytest.raises(CheckpointError, match=message):
        architecture.describe(make())


class Own(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(2, 3)

    def forward(self, x):
        return self.layer(x)


def test_a_model_of_the_users_keeps_its_weights_only(tmp_path):
    path = tmp_path / "m.safetensors"
    model = Own()
    save_model(path, model)
    with pytest.raises(CheckpointError, match="Build the model yourself and use load_weights"):
        load_model(path)
    other = Own()
    load_weights(path, other)
    np.testing.assert_array_equal(other.layer.weight.value, model.layer.weight.value)
    with pytest.raises(CheckpointError, match=r"Own is not a module of gpubp\.nn"):
        architecture.describe(model)


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"type": "os.system", "args": {}}, "does not have"),
        ({"type": "init", "args": {}}, "does not have"),
        ({"type": "Parameter", "args": {}}, "does not have"),
        ({"type": "Linear", "args": {"in_features": 0, "out_features": 1}}, "at least 1"),
        ({"type": "Linear", "args": {"shell": "ls"}}, "unexpected keyword"),
        ({"type": "Linear"}, "cannot be built"),
        ({}, "cannot be built"),
        ({"type": "Sequential", "modules": [3]}, "cannot be built"),
    ],
)
def test_descriptions_that_cannot_be_built(description, message):
    with pytest.raises(CheckpointError, match=message):
        architecture.build(description)


def test_values_of_all_kinds_come_back(tmp_path):
    path = tmp_path / "f"
    value = {
        "a": [1, 2.5, None, True, "x", float("inf")],
        "b": {0: np.arange(3), 1: (np.float32(0.1), np.zeros((0, 2)))},
        "c": {"$tensor": 5},
        "d": np.array(3, np.int64),
        "big": 2**100,
    }
    tensors = {}
    packed = tensorfile.pack(value, tensors, "v")
    tensorfile.write(path, tensors, {"v": packed})
    arrays, record = tensorfile.read(path)
    found = tensorfile.unpack(record["v"], arrays)
    assert found["a"] == value["a"]
    np.testing.assert_array_equal(found["b"][0], np.arange(3))
    assert found["b"][1][0] == pytest.approx(0.1)
    assert found["b"][1][1].shape == (0, 2)
    assert (found["c"], found["d"], found["big"]) == ({"$tensor": 5}, 3, 2**100)
    with pytest.raises(CheckpointError, match=r"v\.x holds a set"):
        tensorfile.pack({"x": {1}}, {}, "v")


def test_a_write_that_fails_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "m.safetensors"
    model = nn.Linear(2, 2)
    save_model(path, model)
    old = path.read_bytes()
    model.weight.value = np.ones((2, 2), np.float32)

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(CheckpointError, match="No space left"):
        save_model(path, model)
    assert path.read_bytes() == old
    assert [p.name for p in tmp_path.iterdir()] == ["m.safetensors"]


@pytest.mark.parametrize("name", ["missing/m.safetensors", "nothing.safetensors"])
def test_files_that_are_not_there(tmp_path, name):
    with pytest.raises(CheckpointError, match="No such file"):
        load_model(tmp_path / name)
    if "/" in name:
        with pytest.raises(CheckpointError, match="cannot be written: No such file"):
            save_model(tmp_path / name, nn.Linear(1, 1))
