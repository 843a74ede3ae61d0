"""Optuna proposes sixteen rates at a time, and one population tries them: `pip install optuna`."""

from __future__ import annotations

import numpy as np

import gpubp as gp
from gpubp import nn, optim
from gpubp.data import load_digits

ROUNDS, MEMBERS = 4, 16


def make() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def main() -> float | None:
    try:
        import optuna
    except ImportError:
        print("optuna is not installed: pip install optuna")
        return None
    X, X_test, y, y_test = load_digits(split=True)
    loss_fn = nn.CrossEntropyLoss()
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    for _ in range(ROUNDS):
        trials = [study.ask() for _ in range(MEMBERS)]
        rates = [trial.suggest_float("lr", 1e-5, 1.0, log=True) for trial in trials]
        model = make()
        population = gp.compile_population(
            lambda x, t, model=model: loss_fn(model(x), t),
            optim.Adam(model.parameters()),
            n=MEMBERS,
            model=model,
            initial=make,
            lr=rates,
        )
        population.run(X, y, batch_size=64, epochs=3)
        scores = (population.predict(X_test).argmax(axis=2) == y_test).mean(axis=1)
        for trial, score in zip(trials, scores):
            study.tell(trial, float(np.nan_to_num(score)))
    print(f"best rate {study.best_params['lr']:.4g}: accuracy {study.best_value:.3f}")
    return float(study.best_value)


best = main()
assert best is None or best > 0.9
