"""The twin of docs/examples/diffusion.py in PyTorch."""

import sys
import time

import numpy as np
import torch
from torch import nn
from torch.optim import swa_utils

from gpubp.data import load_digits

SHORT = "--short" in sys.argv
EPOCHS, DRAWN, STATED = (8, 300, 0.5) if SHORT else (80, 1437, 0.93)
STEPS, WIDTH, BATCH = 100, 32, 64

turn = np.cos((np.arange(STEPS + 1) / STEPS + 0.008) / 1.008 * np.pi / 2) ** 2
keep = torch.from_numpy(np.clip(turn[1:] / turn[:-1], 1e-3, 1).astype(np.float32))
left = torch.cumprod(keep, 0)


class Block(nn.Module):
    """Two convolutions beside a shortcut; what is told (step and digit) is added in between."""

    def __init__(self, width):
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)
        )
        self.tell = nn.Linear(64, width)
        self.second = nn.Sequential(
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x, told):
        return x + self.second(self.first(x) + self.tell(told)[:, :, None, None])


class Denoiser(nn.Module):
    """From noisy images (N, 1, 8, 8), steps (N,) and digits (N,) to the noise; a little U-net."""

    def __init__(self):
        super().__init__()
        self.of_step, self.of_digit = nn.Embedding(STEPS, 64), nn.Embedding(10, 64)
        self.told = nn.Sequential(nn.Linear(64, 64), nn.SiLU())
        self.enter = nn.Conv2d(1, WIDTH, 3, padding=1)
        self.fine, self.last = Block(WIDTH), Block(WIDTH)
        self.down = nn.Conv2d(WIDTH, 2 * WIDTH, 4, stride=2, padding=1)  # 4 x 4
        self.coarse = Block(2 * WIDTH)
        self.up = nn.ConvTranspose2d(2 * WIDTH, WIDTH, 4, stride=2, padding=1)
        self.leave = nn.Sequential(
            nn.GroupNorm(8, WIDTH), nn.SiLU(), nn.Conv2d(WIDTH, 1, 3, padding=1)
        )

    def forward(self, image, step, digit):
        told = self.told(self.of_step(step) + self.of_digit(digit))
        fine = self.fine(self.enter(image), told)
        coarse = self.coarse(self.down(fine), told)
        return self.leave(self.last(fine + self.up(coarse), told))


def loss(image, digit):
    """The squared error of the noise that the network sees, at a step drawn for each image."""
    step = torch.randint(STEPS, (len(image),))
    share = left[step][:, None, None, None]
    noise = torch.randn_like(image)
    noisy = torch.sqrt(share) * image + torch.sqrt(1 - share) * noise
    return ((model(noisy, step, digit) - noise) ** 2).mean()


@torch.no_grad()
def draw(image, digit):
    """From noise (N, 1, 8, 8) to images of these digits (N,)."""
    for step in reversed(range(STEPS)):
        kept, rest = keep[step], left[step]
        told = average(image, torch.full_like(digit, step), digit)
        clean = ((image - torch.sqrt(1 - rest) * told) / torch.sqrt(rest)).clamp(-1, 1)
        before = rest / kept
        mean = torch.sqrt(before) * (1 - kept) * clean + torch.sqrt(kept) * (1 - before) * image
        spread = torch.sqrt((1 - kept) * (1 - before).clamp(min=0) / (1 - rest))
        image = mean / (1 - rest) + spread * torch.randn_like(image)
    return image


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
        chosen = reader(2 * X_test.reshape(-1, 1, 8, 8) - 1).argmax(1)
    return float((chosen == y_test).float().mean())


torch.manual_seed(0)
X, X_test, y, y_test = map(torch.from_numpy, load_digits(split=True))
images = 2 * X.reshape(-1, 1, 8, 8) - 1

model = Denoiser()
average = swa_utils.AveragedModel(model, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.99))
begun = time.perf_counter()
fit(model.parameters(), loss, images, y, EPOCHS, 1e-3, lambda: average.update_parameters(model))
print(f"training took {time.perf_counter() - begun:.1f} s")

labels = torch.arange(DRAWN) % 10
drawn = draw(torch.randn(DRAWN, 1, 8, 8), labels)
accuracy = accuracy_of_learning_from(drawn.clamp(-1, 1), labels)
verdict = "passed" if accuracy >= STATED else "FAILED"
print(f"accuracy from drawings alone {accuracy:.4f}, stated {STATED}: {verdict}")
assert verdict == "passed"
