"""Experiment trackers: TensorBoard, Weights & Biases, MLflow and trackio, each behind `Tracker`.

A run that is resumed goes on in the same run of the service. Epochs that the service has already,
because the run went on for a while after its last checkpoint, come again with the same numbers:
TensorBoard forgets the first ones, Weights & Biases the second ones, MLflow gets what differs, and
trackio keeps both. Whether anything leaves the machine is for the service's own settings to say.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import sys
import time
from collections.abc import Mapping
from typing import Any

from gpubp.arguments import checked
from gpubp.train.tensorfile import Path_
from gpubp.train.tracking import FAILED, FINISHED, INTERRUPTED, Plain, Tracker


class TensorBoard(Tracker):
    """Writes each number of an epoch's record as a scalar for TensorBoard, through tensorboardX.

    What the run was made with stands under "text". Of a resumed run, what lies after the checkpoint
    is purged.

    Args:
        log_dir: the folder.
        **options: for `tensorboardX.SummaryWriter`.

    Raises:
        MissingExtraError: tensorboardX is not installed.
    """

    package, extra = "tensorboardX", "tensorboard"

    @checked
    def __init__(self, log_dir: Path_ = "runs", **options: Any) -> None:
        super().__init__()
        self._arguments = {"logdir": os.fspath(log_dir), **options}

    def open(self, identity: str | None, epoch: int, parameters: Mapping[str, Plain]) -> str | None:
        """Open a file of events in the folder, its name after those that are there."""
        # tensorboardX names files by the second: one that is opened soon after would be in its
        # place, and TensorBoard reads them in the order of their names.
        own: dict[str, Any] = {"filename_suffix": f".{time.time_ns()}"}
        if identity is not None:
            own["purge_step"] = epoch + 1
        made = importlib.import_module("tensorboardX")
        self.session = made.SummaryWriter(**{**own, **self._arguments})
        lines = [f"| {name} | {value} |" for name, value in parameters.items()]
        if identity is None:
            self.session.add_text("parameters", "\n".join(["| | |", "|---|---|", *lines]), epoch)
        return str(self._arguments["logdir"])

    def write(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """One scalar for each number."""
        for name, value in numbers.items():
            self.session.add_scalar(name, value, epoch)
        self.session.flush()

    def close(self, outcome: str) -> None:
        """Close the file."""
        self.session.close()


class WandbLogger(Tracker):
    """Logs each epoch's record to Weights & Biases.

    Args:
        **options: for `wandb.init` (project, name, config, mode, ...); what the run was made with
            stands in its config beside yours.

    Raises:
        MissingExtraError: wandb is not installed.
    """

    package, extra = "wandb", "wandb"

    @checked
    def __init__(self, **options: Any) -> None:
        super().__init__()
        self._options = options

    def open(self, identity: str | None, epoch: int, parameters: Mapping[str, Plain]) -> str | None:
        """Start a run, or go on with one."""
        again = {"id": identity, "resume": "allow"} if identity else {}
        given = dict(self._options)
        config = {**parameters, **(given.pop("config", None) or {})}
        self.session = importlib.import_module("wandb").init(config=config, **{**given, **again})
        return str(self.session.id)

    def write(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """One row, whose step is the epoch."""
        self.session.log({"epoch": epoch, **numbers}, step=epoch)

    def close(self, outcome: str) -> None:
        """Finish the run; any but a finished one ends with an exit code."""
        self.session.finish(exit_code={FINISHED: 0, INTERRUPTED: 130}.get(outcome, 1))


class MLflowLogger(Tracker):
    """Logs parameters and each epoch's record to MLflow.

    Inside of `with mlflow.start_run():` it logs to that run and leaves its end to you; otherwise it
    makes a run, and ends it as finished, killed or failed.

    Args:
        experiment: its name; it is made if there is none.
        name: of the run; default is one that MLflow makes up.
        tracking_uri: where MLflow keeps runs; default is its own setting.
        tags: of the run.

    Raises:
        MissingExtraError: mlflow is not installed.
    """

    package, extra = "mlflow", "mlflow"

    @checked
    def __init__(
        self,
        experiment: str = "gpubp",
        name: str | None = None,
        tracking_uri: str | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._experiment, self._name, self._uri = experiment, name, tracking_uri
        self._tags = dict(tags or {})
        self._joined = False
        self._known: dict[str, dict[int, float]] = {}

    def open(self, identity: str | None, epoch: int, parameters: Mapping[str, Plain]) -> str | None:
        """Make a run, join the active one, or go on with one."""
        mlflow: Any = importlib.import_module("mlflow")
        active = mlflow.active_run()
        self._joined = active is not None
        uri = self._uri or mlflow.get_tracking_uri()
        self.session = client = mlflow.MlflowClient(tracking_uri=uri)
        self._known = {}
        if self._joined:
            made = str(active.info.run_id)
        elif identity is not None:
            client.update_run(identity, status="RUNNING")
            made = identity
        else:
            found = client.get_experiment_by_name(self._experiment)
            where = found.experiment_id if found else client.create_experiment(self._experiment)
            run = client.create_run(where, run_name=self._name, tags=self._tags)
            made = str(run.info.run_id)
        self.identity = made
        known = client.get_run(made).data
        entities = mlflow.entities
        new = [(k, str(v)) for k, v in parameters.items() if k not in known.params]
        client.log_batch(made, params=[entities.Param(k, v) for k, v in new])
        for name in known.metrics:
            history = client.get_metric_history(made, name)
            self._known[name] = {m.step: m.value for m in history}
        return made

    def write(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """One metric for each number; those that the run has already are left out."""
        metric = importlib.import_module("mlflow.entities").Metric
        now = int(time.time() * 1000)
        new = [
            metric(name, value, now, epoch)
            for name, value in numbers.items()
            if self._known.get(name, {}).get(epoch) != value
        ]
        self.session.log_batch(self.identity, metrics=new)

    def close(self, outcome: str) -> None:
        """End the run, unless it is the user's."""
        if not self._joined:
            status = {FINISHED: "FINISHED", INTERRUPTED: "KILLED", FAILED: "FAILED"}[outcome]
            self.session.set_terminated(self.identity, status)


class TrackioLogger(Tracker):
    """Logs each epoch's record to trackio, which keeps runs on this machine unless told otherwise.

    Args:
        project: its name.
        name: of the run; default is one that trackio makes up.
        **options: for `trackio.init` (group, config, space_id, ...); what the run was made with
            stands in its config beside yours.

    Raises:
        MissingExtraError: trackio is not installed.
    """

    package, extra = "trackio", "trackio"

    @checked
    def __init__(self, project: str = "gpubp", name: str | None = None, **options: Any) -> None:
        super().__init__()
        self._options = {"project": project, "name": name, **options}

    def open(self, identity: str | None, epoch: int, parameters: Mapping[str, Plain]) -> str | None:
        """Start a run, or go on with the one of that name."""
        again = {"name": identity, "resume": "allow"} if identity else {}
        given = dict(self._options)
        config = {**parameters, **(given.pop("config", None) or {})}
        with contextlib.redirect_stdout(sys.stderr):  # where progress goes
            trackio: Any = importlib.import_module("trackio")
            self.session = trackio.init(config=config, **{**given, **again})
        return str(self.session.name)

    def write(self, epoch: int, numbers: Mapping[str, float]) -> None:
        """One row, whose step is the epoch."""
        self.session.log({"epoch": epoch, **numbers}, step=epoch)

    def close(self, outcome: str) -> None:
        """Write what waits; trackio does not tell how a run ended."""
        with contextlib.redirect_stdout(sys.stderr):
            # Not the run's own finish(): trackio would finish it once more when the process ends.
            importlib.import_module("trackio").finish()
