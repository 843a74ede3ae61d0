"""Optuna proposes sixteen settings at a time, and one population tries them: `pip install optuna`.

A setting is a learning rate, a weight decay and a label smoothing. The population is compiled once;
each round begins where the first one did, with other numbers.
"""

from __future__ import annotations

import numpy as np
import optuna

import gpubp as gp
from gpubp import nn, optim
from gpubp.data import load_digits

ROUNDS, MEMBERS = 4, 16


def make() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def main() -> float:
    X, X_test, y, y_test = load_digits(split=True)
    model, smoothing = make(), nn.Buffer(np.float64(0.0))
    loss_fn = nn.CrossEntropyLoss(label_smoothing=smoothing)
    population = gp.compile_population(
        lambda x, t: loss_fn(model(x), t),
        optim.AdamW(model.parameters()),
        n=MEMBERS,
        model=model,
        initial=make,
        lr=1e-3,
        weight_decay=0.0,
        slots={smoothing: 0.0},
    )
    start = population.full_state()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=0))
    for i in range(ROUNDS):
        trials = [study.ask() for _ in range(MEMBERS)]
        population.load_full_state(start)
        population.set_hyper("lr", [t.suggest_float("lr", 1e-5, 1.0, log=True) for t in trials])
        population.set_hyper("weight_decay", [t.suggest_float("decay", 0.0, 0.1) for t in trials])
        population.set_hyper(smoothing, [t.suggest_float("smoothing", 0.0, 0.3) for t in trials])
        population.run(X, y, batch_size=64, epochs=3, checked=i > 0)
        scores = (population.predict(X_test).argmax(axis=2) == y_test).mean(axis=1)
        for trial, score in zip(trials, scores):
            study.tell(trial, float(score))
    best = ", ".join(f"{name} {value:.3g}" for name, value in study.best_params.items())
    print(f"accuracy {study.best_value:.3f} with {best}; programs compiled: {population.programs}")
    return float(study.best_value)


assert main() > 0.9
