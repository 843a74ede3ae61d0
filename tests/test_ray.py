"""Ranks and data sets of Ray.

CI starts Ray once, where gpubp[ray] is installed: `pytest -m full tests/test_ray.py -k one_start`.
The rest is run by hand: `pytest -m full tests/test_ray.py`.
"""

from __future__ import annotations

import importlib.util
import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from rank_work import X, Y, classifier

import gpubp.ray
from gpubp import nn
from gpubp.errors import DataError, MissingExtraError
from gpubp.train import Trainer

there = importlib.util.find_spec("ray") is not None
needs_ray = pytest.mark.skipif(not there, reason="needs ray (the extra gpubp[ray])")
SECONDS = 900  # of a start of Ray with all that runs in it


class Rows:
    """What looks like a data set of Ray Data."""

    def iter_batches(self, batch_size, batch_format):
        assert batch_format == "numpy"
        for low in range(0, len(X), batch_size):
            part = slice(low, low + batch_size)
            yield {"a": X[part, 0], "b": X[part, 1], "both": X[part, :2], "y": Y[part]}


def test_batches_are_columns_side_by_side_each_time_anew():
    wanted = [len(X[low : low + 20]) for low in range(0, len(X), 20)]
    for names in (["a", "b"], "both"):
        source = gpubp.ray.batches(Rows(), names, "y", batch_size=20)
        for _ in range(2):
            found = list(source())
            assert [len(y) for _, y in found] == wanted
            np.testing.assert_array_equal(np.concatenate([x for x, _ in found]), X[:, :2])
            np.testing.assert_array_equal(np.concatenate([y for _, y in found]), Y)
    with pytest.raises(DataError, match="no column 'c'; it has a, b, both, y"):
        next(gpubp.ray.batches(Rows(), "c", "y")())
    with pytest.raises(DataError, match="data is a list, expected a data set of Ray Data"):
        gpubp.ray.batches([], "a", "y")


@pytest.mark.skipif(there, reason="ray is installed")
def test_without_ray_it_is_said_what_to_install():
    with pytest.raises(MissingExtraError, match=r"gpubp\[ray\]"):
        gpubp.ray.Report()
    with pytest.raises(MissingExtraError, match=r"gpubp\[ray\]"):
        gpubp.ray.data_parallel_trainer(lambda: None)


def fitted(what, folder, workers, failures=0):
    """What came out, in a process of its own that ends in any case."""
    folder.mkdir()
    tests = Path(__file__).parent
    paths = [str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")]
    started = subprocess.Popen(
        [sys.executable, str(tests / "ray_work.py"), what, str(folder), str(workers),
         str(failures)],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(p for p in paths if p)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
    )  # fmt: skip
    try:
        output, errors = started.communicate(timeout=SECONDS)
    except subprocess.TimeoutExpired:
        os.killpg(started.pid, signal.SIGKILL)  # Ray's own processes end with it
        output, errors = started.communicate()
        pytest.fail(f"not done after {SECONDS} s: {errors[-2000:]}")
    assert started.returncode == 0, errors[-4000:]
    return json.loads(output.splitlines()[-1])


@needs_ray
@pytest.mark.full
def test_in_one_start_a_killed_worker_comes_back_and_populations_are_searched(tmp_path):
    """What two workers of Ray find, one of them killed, is what this process finds by itself."""
    result = fitted("both", tmp_path / "both", 2, 1)
    assert len((tmp_path / "both" / "starts-0").read_text()) == 2
    assert result["metrics"]["epoch"] == 6 and result["checkpoint"] is not None
    model, optimizer = classifier()
    trainer = Trainer(model, nn.CrossEntropyLoss(), optimizer, backend="numba")
    history = trainer.fit(X, Y, epochs=6, batch_size=8, verbose=False, validation_split=0.2)
    with np.load(tmp_path / "both" / "found.npz") as found:
        for name, value in {**history, **model.state_dict()}.items():
            np.testing.assert_allclose(found[name], value, rtol=1e-12, atol=1e-12, err_msg=name)
    losses = {trial["width"]: trial["loss"] for trial in result["trials"]}
    assert set(losses) == {2, 16}
    assert all(0 < loss < np.log(3) + 0.1 for loss in losses.values())


@needs_ray
@pytest.mark.full
@pytest.mark.parametrize("kills", [0, 3])
def test_ranks_give_what_one_gives_and_killed_workers_are_started_anew(tmp_path, kills):
    found = {}
    for name, workers, count in (("one", 1, 0), ("two", 2, kills)):
        folder = tmp_path / name
        result = fitted("train", folder, workers, count)
        assert len((folder / "starts-0").read_text()) == count + 1
        with np.load(folder / "found.npz") as arrays:
            found[name] = dict(arrays)
        assert result["metrics"]["epoch"] == 6
        assert result["checkpoint"] is not None
        assert result["metrics"]["val_loss"] == found[name]["val_loss"][-1]
    for name, value in found["one"].items():
        np.testing.assert_allclose(found["two"][name], value, rtol=1e-12, atol=1e-12)


@needs_ray
@pytest.mark.full
def test_each_worker_trains_on_its_share_of_a_data_set(tmp_path):
    folder = tmp_path / "shards"
    metrics = fitted("shards", folder, 2)["metrics"]
    assert metrics["epoch"] == 3 and metrics["loss"] < 1.2
    with np.load(folder / "rank0.npz") as a, np.load(folder / "rank1.npz") as b:
        for name in a:
            np.testing.assert_array_equal(a[name], b[name])
