"""Step times for regression tracking: `pytest benchmarks/ --benchmark-autosave`, later with
`--benchmark-compare`. Not part of the unit tests.

One round is a whole timed call of `train_step.py`, on as many threads as gpubp takes by itself.
"""

from __future__ import annotations

import pytest
from common.rows import OPTIMIZERS, TABLE, Task

pytest.importorskip("pytest_benchmark", reason="pip install pytest-benchmark")

ROWS = [name for name in TABLE if name != "wide"]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
@pytest.mark.parametrize("row", ROWS)
def test_training_steps(benchmark, row, optimizer):
    from common.peers_gpubp import build

    case = build("gpubp", Task(TABLE[row], optimizer))
    benchmark.extra_info["steps"] = case.units
    losses = benchmark.pedantic(case.run, setup=case.reset, rounds=5, warmup_rounds=1)
    # The same samples in the first epoch and in the last.
    epochs = losses.reshape(TABLE[row].epochs, -1).mean(1)
    assert epochs[-1] < epochs[0]


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_compiling_a_step(benchmark, optimizer):
    """Trace, gradient, fusion, plan and encoding of a new model; kernels come from the cache."""
    from common.peers_gpubp import build

    case = benchmark.pedantic(
        build, ("gpubp", Task(TABLE["digits"], optimizer)), rounds=10, warmup_rounds=1
    )
    case.reset()
    losses = case.run()
    assert losses[-1] < losses[0]
