"""The twin of docs/examples/movie_recommendation.py in PyTorch."""

import time

import torch
from example_data import of_example
from torch import nn
from torch.nn import functional

data = of_example("movie_recommendation")
WIDTH, PEOPLE, FILMS = data.WIDTH, len(data.users), len(data.films)
user, film, stars = (torch.from_numpy(array) for array in (data.user, data.film, data.stars))
train, test = torch.from_numpy(data.train), torch.from_numpy(data.test)


class Vectors(nn.Module):
    """A vector for each person and film; how kind somebody is, and how good a film is."""

    def __init__(self):
        super().__init__()
        self.user, self.kind = nn.Embedding(PEOPLE, WIDTH), nn.Embedding(PEOPLE, 1)
        self.film, self.good = nn.Embedding(FILMS, WIDTH), nn.Embedding(FILMS, 1)
        for table, size in zip(self.children(), (0.05, 0.0, 0.05, 0.0)):
            nn.init.normal_(table.weight, std=size)

    def bias(self, user, film):
        """What does not depend on how they fit."""
        return self.kind(user)[:, 0] + self.good(film)[:, 0]


class Factorisation(Vectors):
    """Stars: a mean, the biases, and how well the two vectors fit."""

    def forward(self, user, film):
        fit = (self.user(user) * self.film(film)).sum(-1)
        return float(data.mean) + self.bias(user, film) + fit


def mlp(inputs, outputs):
    """One hidden layer of 64."""
    return nn.Sequential(nn.Linear(inputs, 64), nn.ReLU(), nn.Linear(64, outputs))


class TwoTowers(Vectors):
    """How well two vectors fit, each made on its own."""

    def __init__(self):
        super().__init__()
        self.towers = nn.ModuleList([mlp(WIDTH, WIDTH), mlp(WIDTH, WIDTH)])

    def forward(self, user, film):
        left, right = self.user(user), self.film(film)
        left, right = left + self.towers[0](left), right + self.towers[1](right)
        return self.bias(user, film) + (left * right).sum(-1)


class Neural(Vectors):
    """A network looks at both vectors, beside their product."""

    def __init__(self):
        super().__init__()
        self.both, self.head = mlp(2 * WIDTH, 16), nn.Linear(16 + WIDTH, 1)

    def forward(self, user, film):
        left, right = self.user(user), self.film(film)
        seen = torch.cat([self.both(torch.cat([left, right], -1)), left * right], -1)
        return self.bias(user, film) + self.head(seen)[:, 0]


def epoch(model, optimizer, loss_fn, arrays, batch):
    """Every row once, in another order each time."""
    for rows in torch.randperm(len(arrays[0])).split(batch):
        loss = loss_fn(model(arrays[0][rows], arrays[1][rows]), arrays[2][rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


torch.manual_seed(0)
begun = time.perf_counter()
factors = Factorisation()
optimizer = torch.optim.AdamW(factors.parameters(), lr=2e-3, weight_decay=0.3)
known = user[train], film[train], stars[train]
for _ in range(data.EPOCHS):
    epoch(factors, optimizer, functional.mse_loss, known, 256)
rankers, yes_or_no = [TwoTowers(), Neural()], functional.binary_cross_entropy_with_logits
for model in rankers:
    optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=data.DECAY)
    for _ in range(data.RANKING):
        arrays = [torch.from_numpy(array) for array in data.with_negatives()]
        epoch(model, optimizer, yes_or_no, arrays, 512)
print(f"training took {time.perf_counter() - begun:.1f} s")

with torch.no_grad():
    error = float(functional.mse_loss(factors(user[test], film[test]), stars[test]).sqrt())
    recalls = [data.recall(lambda *pair, m=m: m(*map(torch.from_numpy, pair))) for m in rankers]
print(f"recall@20: TwoTowers {recalls[0]:.3f}, Neural {recalls[1]:.3f}")

good = error <= data.STATED and min(recalls) > data.popular
verdict = "passed" if good else "FAILED"
best = f"recall@20 {max(recalls):.3f}, stated more than {data.popular:.3f}"
print(f"root mean squared error {error:.4f}, stated {data.STATED}; {best}: {verdict}")
assert verdict == "passed"
