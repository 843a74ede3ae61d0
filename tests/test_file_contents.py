"""Files of arrays: the same bytes for the same content, ties that stay, dtypes that are named."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from points import points, trainer
from safetensors.numpy import save_file

from gpubp import nn, ops, optim
from gpubp.errors import CheckpointError
from gpubp.train import Trainer, load_model, load_weights, save_model, tensorfile

X, Y = points()

WRITE = """
import sys
import numpy as np
from points import points, trainer
from gpubp.train import EarlyStopping, save_model
X, Y = points()
made = trainer(average=0.9)
stop = EarlyStopping("loss", 2, restore_best_weights=True)
made.fit(X, Y, epochs=2, verbose=False, checkpoint=sys.argv[1] + ".ckpt", callbacks=[stop])
save_model(sys.argv[1] + ".st", made.model, {"names": ["a", "b"], "share": 0.25})
"""


def test_the_same_content_is_the_same_bytes(tmp_path):
    record = {"b": 1, "a": {"z": float("inf"), "y": 'sha256":"0'}}
    arrays = {"ä": np.arange(3.0), "b": np.ones((2, 2), np.float32), "c": np.array(True)}
    written = set()
    for i in range(12):
        given = arrays if i % 2 else dict(reversed(arrays.items()))
        tensorfile.write(tmp_path / "a", given, record)
        written.add((tmp_path / "a").read_bytes())
    assert len(written) == 1
    found, read = tensorfile.read(tmp_path / "a")
    assert read == record
    for name, array in arrays.items():
        np.testing.assert_array_equal(found[name], array)


def test_equal_runs_leave_equal_files(tmp_path):
    for name in "ab":
        subprocess.run(
            [sys.executable, "-c", WRITE, str(tmp_path / name)],
            check=True,
            env={**os.environ, "PYTHONPATH": str(Path(__file__).parent)},
        )
    for kind in ("ckpt", "st"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


@pytest.mark.parametrize(
    "dtype", ["float64", "float32", "float16", "int64", "uint8", "bool", ">f8", "complex64"]
)
def test_dtypes_come_back(tmp_path, dtype):
    array = np.array([[0, 1], [1, 0]]).astype(dtype)
    tensorfile.write(tmp_path / "a", {"x": array}, {"e": 1})
    found = tensorfile.read(tmp_path / "a")[0]["x"]
    assert found.dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(found, array)


@pytest.mark.parametrize("dtype", [np.longdouble, "complex128", object, "U3", "M8[s]"])
def test_dtypes_that_files_do_not_have_are_named(tmp_path, dtype):
    array = np.array([0, 1]).astype(dtype)
    with pytest.raises(CheckpointError, match=re.escape(f"layer.x has dtype {array.dtype}, which")):
        tensorfile.write(tmp_path / "a", {"layer.x": array}, {})
    with pytest.raises(CheckpointError, match=r"extra\.x has dtype .*Convert it first"):
        save_model(tmp_path / "a", nn.Linear(2, 2), {"x": array})
    assert not list(tmp_path.iterdir())


def _foreign(path, dtype, size, metadata=None):
    """A file of another program with one array of an odd dtype."""
    header = {
        "ok": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]},
        "0.odd": {"dtype": dtype, "shape": [4], "data_offsets": [4, 4 + 4 * size]},
    }
    if metadata:
        header["__metadata__"] = metadata
    text = json.dumps(header).encode()
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(4 + 4 * size))


@pytest.mark.parametrize(("dtype", "size"), [("BF16", 2), ("F8_E4M3", 1), ("F8_E5M2", 1)])
def test_dtypes_that_numpy_does_not_have_are_named(tmp_path, dtype, size):
    path = tmp_path / "w.safetensors"
    _foreign(path, dtype, size)
    with pytest.raises(CheckpointError, match=rf"0.odd has dtype {dtype}, .*tensor.float\(\)"):
        load_weights(path, nn.Linear(2, 2))


def test_weights_are_real_numbers(tmp_path):
    path, model = tmp_path / "w.safetensors", nn.Linear(2, 2)
    state = {**model.state_dict(), "weight": np.ones((2, 2), np.complex64)}
    tensorfile.write(path, state, {})
    with pytest.raises(CheckpointError, match="weight has dtype complex64"):
        load_weights(path, model)


# Weights that are one.


class _Tied(nn.Module):
    def __init__(self, tie=True):
        super().__init__()
        self.first, self.last = nn.Linear(3, 3), nn.Linear(3, 3)
        if tie:
            self.last.weight = self.first.weight

    def forward(self, x):
        return self.last(nn.Tanh()(self.first(x)))


def _sequence():
    """A tied weight, a module that stands twice, and one inside another."""
    first, last, norm = nn.Linear(3, 3), nn.Linear(3, 3), nn.BatchNorm1d(3)
    last.weight = first.weight
    return nn.Sequential(first, norm, nn.Sequential(nn.Tanh(), last), norm, first)


def _trainer(model, momentum=0.0):
    optimizer = optim.SGD(model.parameters(), 0.1, momentum=momentum)
    return Trainer(model, nn.CrossEntropyLoss(), optimizer, backend="numpy")


@pytest.mark.parametrize("kind", ["model", "checkpoint"])
def test_weights_that_are_one_stay_one(tmp_path, kind):
    path, model = tmp_path / "m", _sequence()
    made = _trainer(model)
    inputs = np.concatenate([X, X[:, :1]], axis=1)
    made.fit(inputs, Y, epochs=2, verbose=False, checkpoint=path)
    if kind == "model":
        save_model(path, model)
    built = load_model(path).model
    assert built[2][1].weight is built[0].weight is built[4].weight
    assert built[1].running_mean is built[3].running_mean
    assert len(list(built.parameters())) == len(list(model.parameters()))
    np.testing.assert_array_equal(built(inputs), model.eval()(inputs))
    # Both go on alike.
    again = _trainer(built)
    for trained in (made, again):
        trained.model.train()
        trained.fit(inputs, Y, epochs=1, shuffle=False, verbose=False)
    for name, value in model.state_dict().items():
        np.testing.assert_array_equal(built.state_dict()[name], value, err_msg=name)


@pytest.mark.parametrize("kept", ["first.weight", "last.weight"])
@pytest.mark.parametrize("tie", [True, False])
def test_a_name_that_was_left_out_is_found_under_the_other(tmp_path, kept, tie):
    """As safetensors.torch.save_model writes shared tensors."""
    path, model = tmp_path / "w.safetensors", _Tied()
    dropped = "last.weight" if kept == "first.weight" else "first.weight"
    state = model.state_dict()
    arrays = {name: array for name, array in state.items() if name != dropped}
    save_file(arrays, path, metadata={dropped: kept, "format": "pt"})
    target = _Tied(tie)
    load_weights(path, target)
    for name, value in state.items():
        np.testing.assert_array_equal(target.state_dict()[name], value)
    # A tied model needs no note of it, another one does.
    save_file(arrays, path)
    if tie:
        load_weights(path, _Tied())
    else:
        with pytest.raises(CheckpointError, match=f"missing {dropped}"):
            load_weights(path, _Tied(False))


def test_different_values_for_one_weight_are_refused(tmp_path):
    path, target = tmp_path / "w.safetensors", _Tied()
    save_model(path, _Tied(tie=False))
    before = target.state_dict()
    with pytest.raises(CheckpointError, match=r"where first\.weight and last\.weight are one"):
        load_weights(path, target)
    for name, value in before.items():
        np.testing.assert_array_equal(target.state_dict()[name], value)


@pytest.mark.parametrize(
    "tied", [[["0.weight", "9.weight"]], [["0.weight", "0.bias"]], 3, [[]], [["0.weight", 7]]]
)
def test_ties_that_cannot_be(tmp_path, tied):
    path = tmp_path / "m"
    save_model(path, nn.Sequential(nn.Linear(3, 3)))
    tensors, record = tensorfile.read(path)
    record["model"]["tied"] = tied
    tensorfile.write(path, tensors, record)
    with pytest.raises(CheckpointError, match="cannot be tied as described"):
        load_model(path)


def test_checkpoints_of_tied_models_go_on(tmp_path):
    path = tmp_path / "run.ckpt"

    def run(**options):
        made = _trainer(_sequence_of(1), momentum=0.9)
        made.fit(X, Y, epochs=3, verbose=False, **options)
        return made

    whole = run()
    run(max_steps=4, checkpoint=path)
    resumed = run(resume=path)
    assert resumed.history.records == whole.history.records
    assert resumed.model[0].weight is resumed.model[2].weight


def _sequence_of(seed):
    ops.manual_seed(seed)
    first, last = nn.Linear(2, 2), nn.Linear(2, 2)
    last.weight = first.weight
    return nn.Sequential(first, nn.Tanh(), last, nn.Linear(2, 3))


def test_trainers_of_the_tests_describe_themselves(tmp_path):
    made = trainer()
    save_model(tmp_path / "m", made.model)
    assert "tied" not in tensorfile.read(tmp_path / "m")[1]["model"]


def test_where_chunks_end_is_not_in_the_file(tmp_path, monkeypatch):
    for name, batches in (("a", 16), ("b", 1)):
        monkeypatch.setattr("gpubp.train.fit.FIRST_CHUNK_BATCHES", batches)
        monkeypatch.setattr("gpubp.train.fit.SECONDS_BETWEEN_LOOKS", 1e-9 if batches == 1 else 1.0)
        made = trainer(
            schedule=("OneCycleLR", {"max_lr": 0.1, "total_steps": 30}), scheduler_every="step"
        )
        options = {"epochs": 2, "batch_size": 16, "max_steps": 10, "verbose": False}
        made.fit(X, Y, checkpoint=tmp_path / name, **options)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
