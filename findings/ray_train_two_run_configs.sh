#!/usr/bin/env bash
# ray 2.60.0 (2026-11-30): the trainer of ray.train.data_parallel_trainer refuses a ray.train.RunConfig, in words that ask for one.
#
# `ray.train` exports the configurations of its second version, while `DataParallelTrainer`, where the
# reference has it, is still the first version's. One expects that a ray.train.RunConfig is what it
# takes; the error says that an instance of `ray.train.RunConfig` is needed, and that it found one.
# `ray.train.v2.api.data_parallel_trainer.DataParallelTrainer` takes it.
#
# What gpubp does about it: `gpubp.ray.data_parallel_trainer` makes the second version's trainer.
# Exit status: 0 while this is so, 1 when it has changed.
set -euo pipefail
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
python3 -m venv "$work/venv"
"$work/venv/bin/pip" install --quiet --disable-pip-version-check "ray[train]==2.60.0"
HOME=$work RAY_USAGE_STATS_ENABLED=0 "$work/venv/bin/python" - <<'PY'
import sys

import ray
import ray.train
from ray.train.data_parallel_trainer import DataParallelTrainer as First
from ray.train.v2.api.data_parallel_trainer import DataParallelTrainer as Second


def refusal(trainer):
    try:
        trainer(
            lambda: None,
            run_config=ray.train.RunConfig(),
            scaling_config=ray.train.ScalingConfig(num_workers=1),
        )
    except ValueError as error:
        return str(error)
    return ""


first, second = refusal(First), refusal(Second)
print("ray", ray.__version__, "first:", first[:110] or "taken", "second:", second[:110] or "taken")
asks = "should be an instance of `ray.train.RunConfig`" in first
found = "found <class 'ray.train.RunConfig'>" in first
sys.exit(0 if asks and found and not second else 1)
PY
