"""The twin of docs/examples/vae.py in PyTorch."""

import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from gpubp.data import load_digits

SHORT = "--short" in sys.argv
EPOCHS, STATED = (25, 0.85) if SHORT else (200, 0.93)
LATENT, BATCH = 8, 64


class VAE(nn.Module):
    """Encoder and decoder, both told the digit as ten numbers of which one is 1."""

    def __init__(self):
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding="same"),
            nn.SiLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),
            nn.SiLU(),
            nn.Flatten(),
        )
        self.encode = nn.Sequential(nn.Linear(512 + 10, 128), nn.SiLU(), nn.Linear(128, 2 * LATENT))
        self.decode = nn.Sequential(
            nn.Linear(LATENT + 10, 128),
            nn.SiLU(),
            nn.Linear(128, 512),
            nn.SiLU(),
            nn.Unflatten(1, (32, 4, 4)),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),
            nn.SiLU(),
            nn.Conv2d(16, 1, 3, padding="same"),
        )

    def forward(self, image, digit):
        found = self.encode(torch.cat([self.look(image), digit], dim=1))
        mean, log_variance = found[:, :LATENT], found[:, LATENT:]
        style = mean + torch.exp(0.5 * log_variance) * torch.randn_like(mean)
        return self.draw(style, digit), mean, log_variance

    def draw(self, style, digit):
        return self.decode(torch.cat([style, digit], dim=1))


def loss(image, digit):
    """-ELBO in nats an image."""
    logits, mean, log_variance = model(image, digit)
    pixels = functional.softplus(logits) - image * logits
    told = 0.5 * (mean**2 + torch.exp(log_variance) - 1 - log_variance)
    return pixels.sum(dim=(1, 2, 3)).mean() + told.sum(dim=1).mean()


def fit(parameters, objective, inputs, targets, epochs):
    """Adam over shuffled batches."""
    optimizer = torch.optim.Adam(parameters, lr=2e-3)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).split(BATCH):
            optimizer.zero_grad()
            objective(inputs[rows], targets[rows]).backward()
            optimizer.step()


def accuracy_of_learning_from(images, labels):
    """What a fresh classifier reads rightly of the held-out digits."""
    layers = nn.Conv2d(1, 32, 3, padding="same"), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)
    reader = nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))
    learn = nn.CrossEntropyLoss()
    fit(reader.parameters(), lambda x, t: learn(reader(x), t), images, labels, 15)
    reader.eval()
    with torch.no_grad():
        return float((reader(X_test.reshape(-1, 1, 8, 8)).argmax(1) == y_test).float().mean())


torch.manual_seed(0)
rng = np.random.default_rng(0)
X, X_test, y, y_test = map(torch.from_numpy, load_digits(split=True))
images, one_hot = X.reshape(-1, 1, 8, 8), torch.eye(10)

model = VAE()
begun = time.perf_counter()
fit(model.parameters(), loss, images, one_hot[y], EPOCHS)
print(f"training took {time.perf_counter() - begun:.1f} s")

labels = torch.arange(len(images)) % 10
with torch.no_grad():
    drawn = torch.sigmoid(model.draw(torch.randn(len(images), LATENT), one_hot[labels]))
accuracy = accuracy_of_learning_from(drawn, labels)
verdict = "passed" if accuracy >= STATED else "FAILED"
print(f"accuracy from drawings alone {accuracy:.4f}, stated {STATED}: {verdict}")
assert verdict == "passed"
