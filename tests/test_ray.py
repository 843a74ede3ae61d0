"""Ranks, trials and data sets of Ray."""

from __future__ import annotations

import importlib.util
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from rank_work import X, Y

import gpubp.ray
from gpubp.errors import DataError, MissingExtraError

there = importlib.util.find_spec("ray") is not None
needs_ray = [
    pytest.mark.skipif(not there, reason="needs ray (the extra gpubp[ray])"),
    pytest.mark.full,
]


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


@pytest.fixture(scope="module")
def ray(tmp_path_factory):
    ray = pytest.importorskip("ray")
    tests = Path(__file__).parent
    paths = [str(tests), str(tests.parent), os.environ.get("PYTHONPATH", "")]
    environment = {"PYTHONPATH": os.pathsep.join(p for p in paths if p), "GPUBP_NUM_THREADS": "1"}
    folder = tmp_path_factory.mktemp("ray")
    ray.init(
        num_cpus=4, include_dashboard=False, log_to_driver=False, object_store_memory=100_000_000,
        runtime_env={"env_vars": environment},
    )  # fmt: skip
    yield ray
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)


def _fitted(loop, folder, workers, failures=0, **options):
    from ray.train import FailureConfig, RunConfig, ScalingConfig

    trainer = gpubp.ray.data_parallel_trainer(
        loop, timeout=60.0, scaling_config=ScalingConfig(num_workers=workers),
        run_config=RunConfig(
            name="run", storage_path=str(folder / "storage"),
            failure_config=FailureConfig(max_failures=failures),
        ), **options,
    )  # fmt: skip
    return trainer.fit()


class TestWithRay:
    pytestmark = needs_ray

    @pytest.mark.parametrize("kills", [0, 3])
    def test_ranks_give_what_one_gives_and_killed_workers_are_started_anew(
        self, ray, tmp_path, kills
    ):
        import ray_work

        found = {}
        for name, workers, count in (("one", 1, 0), ("two", 2, kills)):
            folder = tmp_path / name
            folder.mkdir()
            config = {"folder": str(folder), "kills": count}
            result = _fitted(ray_work.train, folder, workers, count, train_loop_config=config)
            assert len((folder / "starts-0").read_text()) == count + 1
            with np.load(folder / "found.npz") as arrays:
                found[name] = dict(arrays)
            assert result.metrics["epoch"] == 6
            assert result.checkpoint is not None
            assert result.metrics["val_loss"] == found[name]["val_loss"][-1]
        for name, value in found["one"].items():
            np.testing.assert_allclose(found["two"][name], value, rtol=1e-12, atol=1e-12)

    def test_each_worker_trains_on_its_share_of_a_data_set(self, ray, tmp_path):
        import ray.data
        import ray_work

        columns = {f"x{i}": X[:48, i].astype(np.float32) for i in range(6)}
        data = ray.data.from_items(
            [{**{k: v[i] for k, v in columns.items()}, "y": int(Y[i])} for i in range(48)]
        )
        result = _fitted(
            ray_work.train_on_shards, tmp_path, 2, datasets={"train": data},
            train_loop_config={"folder": str(tmp_path)},
        )  # fmt: skip
        assert result.metrics["epoch"] == 3 and result.metrics["loss"] < 1.2
        with np.load(tmp_path / "rank0.npz") as a, np.load(tmp_path / "rank1.npz") as b:
            for name in a:
                np.testing.assert_array_equal(a[name], b[name])
