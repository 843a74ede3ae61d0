"""A thousand damaged files, a thousand clear errors, and nothing changed by any of them."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from points import points, trainer

from gpubp.errors import CheckpointError
from gpubp.train import load_model, load_weights, save_model, tensorfile

X, Y = points(60)
COUNT = 1000


def _state(made):
    slots = b"".join(slot.value.tobytes() for slot in made.step.written_slots())
    weights = b"".join(value.tobytes() for value in made.model.state_dict().values())
    return hashlib.sha256(slots + weights + repr(made.history.records).encode()).hexdigest()


def _fit(made, **options):
    made.fit(X, Y, epochs=2, batch_size=16, verbose=False, **options)
    return made


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    """A checkpoint within an epoch, and a model file."""
    folder = tmp_path_factory.mktemp("good")
    made = _fit(trainer(), max_steps=6, checkpoint=folder / "run.ckpt")
    save_model(folder / "m.safetensors", made.model)
    return folder


def _truncated(raw, rng):
    return raw[: rng.integers(0, len(raw))]


def _flipped(raw, rng):
    changed = bytearray(raw)
    changed[rng.integers(0, len(raw))] ^= 1 << int(rng.integers(0, 8))
    return bytes(changed)


def _flipped_header(raw, rng):
    changed = bytearray(raw)
    end = 8 + int.from_bytes(raw[:8], "little")
    changed[rng.integers(0, end)] ^= 1 << int(rng.integers(0, 8))
    return bytes(changed)


def _longer(raw, rng):
    return raw + rng.bytes(int(rng.integers(1, 64)))


def _overwritten(raw, rng):
    at, size = rng.integers(0, len(raw)), int(rng.integers(1, 200))
    changed = raw[:at] + rng.bytes(size) + raw[at + size :]
    return changed if changed != raw else raw[:-1]


def _noise(raw, rng):
    return rng.bytes(int(rng.integers(0, 2000)))


BYTES = (_truncated, _flipped, _flipped_header, _longer, _overwritten, _noise)


@pytest.mark.parametrize("name", ["run.ckpt", "m.safetensors"])
def test_damaged_checkpoints_are_refused_and_change_nothing(good, tmp_path, name):
    """Truncated, bits flipped, longer, overwritten, noise: found by the digest, or before it."""
    raw = (good / name).read_bytes()
    rng = np.random.default_rng(1)
    made = _fit(trainer())
    before = _state(made)
    path = tmp_path / "damaged.file"
    for i in range(COUNT // 2):
        path.write_bytes(BYTES[i % len(BYTES)](raw, rng))
        calls = [lambda: made.load(path), lambda: load_model(path)]
        if name == "m.safetensors":
            calls = [lambda: load_weights(path, made.model), lambda: load_model(path)]
        for call in calls:
            with pytest.raises(CheckpointError) as error:
                call()
            assert str(path) in str(error.value)
    assert _state(made) == before


@pytest.mark.parametrize("kind", ["reshaped", "removed", "renamed", "another dtype"])
def test_well_formed_files_with_wrong_arrays(good, tmp_path, kind):
    """Sealed again after an array was changed: what is inside does not fit."""
    tensors, record = tensorfile.read(good / "run.ckpt")
    made = _fit(trainer())
    before = _state(made)
    path = tmp_path / "wrong.ckpt"
    refused = 0
    for name, array in tensors.items():
        wrong = dict(tensors)
        if kind == "reshaped":
            wrong[name] = np.concatenate([array.reshape(-1), np.ones(1, array.dtype)])
            if array.ndim == 1 and name == "losses":
                wrong[name] = array[:, None]
        elif kind == "removed":
            del wrong[name]
        elif kind == "renamed":
            wrong["x" + name] = wrong.pop(name)
        elif name.startswith("model."):
            continue  # weights of another dtype are converted, as PyTorch does
        else:
            wrong[name] = array.astype(np.complex64 if array.dtype.kind == "f" else np.uint8)
        try:
            tensorfile.write(path, wrong, record)
        except Exception:
            assert kind == "another dtype"
            continue
        with pytest.raises(CheckpointError, match=r"fit|incomplete") as error:
            made.fit(X, Y, epochs=2, batch_size=16, verbose=False, resume=path)
        assert str(path) in str(error.value)
        refused += 1
    assert refused > 0
    assert _state(made) == before


def test_records_without_their_parts(good, tmp_path):
    """Sealed again after a part of the record was removed."""
    tensors, record = tensorfile.read(good / "run.ckpt")
    path = tmp_path / "wrong.ckpt"
    made = _fit(trainer())
    before = _state(made)
    for part in set(record["trainer"]) - {
        "classes",
        "slot_names",
        "ranks",
    }:  # not in files of before
        wrong = {**record, "trainer": {k: v for k, v in record["trainer"].items() if k != part}}
        tensorfile.write(path, tensors, wrong)
        with pytest.raises(CheckpointError, match="incomplete"):
            made.load(path)
    for change in ({"kind": "novel"}, {"version": 2}, {"kind": None}):
        tensorfile.write(path, tensors, {**record, **change})
        with pytest.raises(CheckpointError, match=r"holds a|version 2"):
            made.load(path)
    assert _state(made) == before
