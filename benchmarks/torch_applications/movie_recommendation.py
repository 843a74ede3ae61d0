"""The twin of docs/examples/movie_recommendation.py in PyTorch: its factorisation of ratings."""

import time

import torch
from example_data import of_example
from torch import nn
from torch.nn import functional

data = of_example("movie_recommendation")
user, film, stars = (torch.from_numpy(array) for array in (data.user, data.film, data.stars))
train, test = torch.from_numpy(data.train), torch.from_numpy(data.test)


def embedding(count, width, size=0.05):
    """A table of small random numbers."""
    table = nn.Embedding(count, width)
    nn.init.normal_(table.weight, std=size)
    return table


class Factorisation(nn.Module):
    """Stars: a mean, how kind somebody is, how good a film is, and how well the two fit."""

    def __init__(self):
        super().__init__()
        people, films = len(data.users), len(data.films)
        self.user, self.film = embedding(people, data.WIDTH), embedding(films, data.WIDTH)
        self.kind, self.good = embedding(people, 1, 0.0), embedding(films, 1, 0.0)

    def forward(self, user, film):
        fit = (self.user(user) * self.film(film)).sum(-1)
        return float(data.mean) + self.kind(user)[:, 0] + self.good(film)[:, 0] + fit


torch.manual_seed(0)
model = Factorisation()
optimizer = torch.optim.AdamW(model.parameters(), lr=2e-3, weight_decay=0.3)
begun = time.perf_counter()
for _ in range(data.EPOCHS):
    for chosen in torch.randperm(len(train)).split(256):
        rows = train[chosen]
        loss = functional.mse_loss(model(user[rows], film[rows]), stars[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
print(f"training took {time.perf_counter() - begun:.1f} s")

with torch.no_grad():
    error = float(functional.mse_loss(model(user[test], film[test]), stars[test]).sqrt())
verdict = "passed" if error <= data.STATED else "FAILED"
print(f"root mean squared error {error:.4f}, stated {data.STATED}: {verdict}")
assert verdict == "passed"
