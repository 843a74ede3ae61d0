"""Regression with the Trainer: predict a number, on data where a straight line does not do.

Friedman's first problem ("Multivariate adaptive regression splines", 1991): ten features, of which
five matter.
"""

import numpy as np

import gpubp as gp
from gpubp import nn, optim
from gpubp.data import train_test_split


def r2(targets, predictions):
    """The share of the targets' variance that is explained; 1 is perfect."""
    return 1 - np.mean((targets - predictions) ** 2) / np.var(targets)


rng = np.random.default_rng(0)
features = rng.uniform(size=(2000, 10))
a, b, c, d, e = features.T[:5]
target = 10 * np.sin(np.pi * a * b) + 20 * (c - 0.5) ** 2 + 10 * d + 5 * e
target += rng.normal(size=len(target))
X, X_test, y, y_test = train_test_split(features, target[:, None], seed=0)

# Networks learn best from inputs and targets of mean 0 and spread 1, measured on the training part.
mean, std = X.mean(axis=0), X.std(axis=0)
level, spread = y.mean(), y.std()

gp.manual_seed(0)
model = nn.Sequential(nn.Linear(10, 64), nn.Tanh(), nn.Linear(64, 1))
optimizer = optim.Adam(model.parameters(), lr=3e-3)
trainer = gp.Trainer(model, nn.MSELoss(), optimizer)
history = trainer.fit(
    (X - mean) / std,
    (y - level) / spread,
    epochs=60,
    batch_size=32,
    validation_data=((X_test - mean) / std, (y_test - level) / spread),
)

network = trainer.predict((X_test - mean) / std) * spread + level
with_one = [np.hstack([part, np.ones((len(part), 1))]) for part in (X, X_test)]
line = with_one[1] @ np.linalg.lstsq(with_one[0], y)[0]
print(f"held-out R2: network {r2(y_test, network):.3f}, straight line {r2(y_test, line):.3f}")
assert history["val_loss"][-1] < history["val_loss"][0]
assert r2(y_test, network) > 0.9 > r2(y_test, line)
