"""The twin of docs/examples/gan.py in PyTorch."""

import sys
import time

import numpy as np
import torch
from torch import nn
from torch.optim import swa_utils

from gpubp.data import load_digits

SHORT = "--short" in sys.argv
EPOCHS, STATED = (16, 0.5) if SHORT else (100, 0.9)
NOISE, BATCH = 32, 64


class Generator(nn.Module):
    """Noise (N, 32) and digits (N, 10) to images (N, 1, 8, 8) in [0, 1]."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(NOISE + 10, 64 * 4, bias=False),
            nn.Unflatten(1, (64, 2, 2)),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1, bias=False),  # 4 x 4
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1, bias=False),  # 8 x 8
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 1, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, noise, digit):
        return self.layers(torch.cat([noise, digit], dim=1))


class Critic(nn.Module):
    """Images and digits to one number each: large for real ones. The digit is ten more channels."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1 + 10, 32, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32, 64, 4, stride=2, padding=1),  # 4 x 4
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 64, 4, stride=2, padding=1),  # 2 x 2
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Dropout(0.3),  # few images: it must not learn them by heart
            nn.Linear(256, 1),
        )

    def forward(self, image, digit):
        planes = digit[:, :, None, None].expand(-1, -1, 8, 8)
        return self.layers(torch.cat([image, planes], dim=1))


def critic_loss(image, digit):
    """Real ones above 1, drawn ones below -1."""
    drawn = generator(torch.randn(len(image), NOISE), digit).detach()
    real, false = critic(image, digit), critic(drawn, digit)
    return torch.relu(1 - real).mean() + torch.relu(1 + false).mean()


def generator_loss(digit):
    """The higher the critic rates the drawings the better."""
    return -critic(generator(torch.randn(len(digit), NOISE), digit), digit).mean()


def fit(parameters, objective, inputs, targets, epochs, rate, after=lambda: None):
    """Adam over shuffled batches."""
    optimizer = torch.optim.Adam(parameters, lr=rate)
    for _ in range(epochs):
        for rows in torch.randperm(len(inputs)).split(BATCH):
            optimizer.zero_grad()
            objective(inputs[rows], targets[rows]).backward()
            optimizer.step()
            after()


def accuracy_of_learning_from(images, labels):
    """What a fresh classifier reads rightly of the held-out digits."""
    layers = nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)
    reader = nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))
    learn = nn.CrossEntropyLoss()
    fit(reader.parameters(), lambda x, t: learn(reader(x), t), images, labels, 15, 2e-3)
    reader.eval()
    with torch.no_grad():
        chosen = reader(X_test.reshape(-1, 1, 8, 8)).argmax(1)
    return float((chosen == y_test).float().mean())


torch.manual_seed(0)
X, X_test, y, y_test = map(torch.from_numpy, load_digits(split=True))
images, one_hot = X.reshape(-1, 1, 8, 8), torch.eye(10)

generator, critic = Generator(), Critic()
average = swa_utils.AveragedModel(generator, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.99))
betas = (0.5, 0.9)
of_critic = torch.optim.Adam(critic.parameters(), lr=1e-3, betas=betas)
of_generator = torch.optim.Adam(generator.parameters(), lr=1e-3, betas=betas)
begun = time.perf_counter()
for _ in range(EPOCHS):
    for rows in np.array_split(torch.randperm(len(images)).numpy(), len(images) // BATCH):
        image, digit = images[rows], one_hot[y[rows]]
        of_critic.zero_grad()
        critic_loss(image, digit).backward()
        of_critic.step()
        of_generator.zero_grad()
        generator_loss(digit).backward()
        of_generator.step()
        average.update_parameters(generator)
print(f"training took {time.perf_counter() - begun:.1f} s")

labels = torch.arange(len(images)) % 10
with torch.no_grad():
    drawn = average(torch.randn(len(images), NOISE), one_hot[labels])
accuracy = accuracy_of_learning_from(drawn, labels)
verdict = "passed" if accuracy >= STATED else "FAILED"
print(f"accuracy from drawings alone {accuracy:.4f}, stated {STATED}: {verdict}")
assert verdict == "passed"
