"""Population-based training of digits: the worst copy the best and change their rates.

Jaderberg et al., "Population based training of neural networks" (2017, arXiv:1711.09846).
"""

from __future__ import annotations

import numpy as np

import gpubp as gp
from gpubp import nn, optim
from gpubp.data import load_digits

MEMBERS, ROUNDS, QUARTER = 16, 6, 4


def make() -> nn.Sequential:
    return nn.Sequential(nn.Linear(64, 32), nn.ReLU(), nn.Linear(32, 10))


def main() -> float:
    X, X_test, y, y_test = load_digits(split=True)
    model, loss_fn = make(), nn.CrossEntropyLoss()
    population = gp.compile_population(
        lambda x, t: loss_fn(model(x), t),
        optim.Adam(model.parameters()),
        n=MEMBERS,
        model=model,
        initial=make,
        lr=np.geomspace(1e-5, 1e-1, MEMBERS),
    )
    rng = np.random.default_rng(0)
    scores = np.zeros(MEMBERS)
    for _ in range(ROUNDS):
        population.run(X, y, batch_size=64, epochs=2)
        scores = (population.predict(X_test).argmax(axis=2) == y_test).mean(axis=1)
        order = np.argsort(scores)
        for worst, best in zip(order[:QUARTER], order[::-1]):
            population.copy(int(best), int(worst))
            rate = population.hyper("lr")[worst] * rng.choice([0.8, 1.25])
            population.set_hyper("lr", rate, int(worst))
    print(f"best accuracy {scores.max():.3f}, rates {np.sort(population.hyper('lr')).round(4)}")
    return float(scores.max())


best = main()
assert best > 0.9
