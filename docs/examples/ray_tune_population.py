"""Ray Tune searches what needs another program, a population in each trial what does not.

`pip install "ray[tune]"`. A trial is a width; it trains twelve networks of that width side by side,
with learning rates and weight decays of their own, and tells Tune of the best one of them. So three
trials try 36 settings, and compile three times.
"""

from __future__ import annotations

import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import ray
from ray import tune

import gpubp as gp
from gpubp import nn, optim
from gpubp.data import load_digits

MEMBERS, EPOCHS = 12, 6
RATES, DECAYS = np.geomspace(1e-4, 3e-2, 6), (0.0, 0.01)


def trial(config: dict[str, int]) -> None:
    """Train a population, and report its best member."""
    X, X_test, y, y_test = load_digits(split=True)

    def make() -> nn.Sequential:
        return nn.Sequential(
            nn.Linear(64, config["width"]), nn.ReLU(), nn.Linear(config["width"], 10)
        )

    lr, decay = np.repeat(RATES, len(DECAYS)), np.tile(DECAYS, len(RATES))
    model, loss_fn = make(), nn.CrossEntropyLoss()
    population = gp.compile_population(
        lambda x, t: loss_fn(model(x), t),
        optim.AdamW(model.parameters()),
        n=MEMBERS,
        model=model,
        initial=make,
        lr=lr,
        weight_decay=decay,
    )
    population.run(X, y, batch_size=64, epochs=EPOCHS)
    scores = (population.predict(X_test).argmax(axis=2) == y_test).mean(axis=1)
    best = int(np.argmax(scores))
    numbers = {"accuracy": scores[best], "lr": lr[best], "weight_decay": decay[best]}
    tune.report({name: float(number) for name, number in numbers.items()})


def main() -> float:
    # A core for each trial; workers import what this process imports.
    paths = os.pathsep.join([str(Path(gp.__file__).parents[1]), os.environ.get("PYTHONPATH", "")])
    environment = {"GPUBP_NUM_THREADS": "1", "PYTHONPATH": paths}
    ray.init(include_dashboard=False, runtime_env={"env_vars": environment})
    with TemporaryDirectory() as folder:
        tuner = tune.Tuner(
            trial,
            param_space={"width": tune.grid_search([8, 32, 128])},
            tune_config=tune.TuneConfig(metric="accuracy", mode="max"),
            run_config=tune.RunConfig(storage_path=folder, name="widths", verbose=0),
        )
        found = tuner.fit()
    ray.shutdown()
    assert not found.errors, found.errors
    best = found.get_best_result()
    numbers = ", ".join(f"{k} {best.metrics[k]:.3g}" for k in ("accuracy", "lr", "weight_decay"))
    print(f"width {best.config['width']}: {numbers}; {len(found)} trials of {MEMBERS} members")
    return float(best.metrics["accuracy"])


assert main() > 0.9
