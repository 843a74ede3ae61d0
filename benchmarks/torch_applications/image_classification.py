"""The twin of docs/examples/image_classification.py in PyTorch."""

import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from gpubp.data import load_digits

SHORT = "--short" in sys.argv
EPOCHS, BATCH, STATED = (10, 64, 0.97) if SHORT else (60, 64, 0.985)

torch.manual_seed(0)
X, X_test, y, y_test = map(torch.from_numpy, load_digits(split=True))
images, test_images = X.reshape(-1, 1, 8, 8), X_test.reshape(-1, 1, 8, 8)


class RandomAffine(nn.Module):
    """Each image by draws of its own: within 12 degrees, 0.1 of its sides, scales 0.9 to 1.1."""

    def forward(self, x):
        if not self.training:
            return x
        drawn = torch.rand(4, len(x)) * 2 - 1
        angle = drawn[0] * (12 * np.pi / 180)
        scale = 1 + 0.1 * drawn[1]
        pixels = torch.round(drawn[2:] * 0.1 * x.shape[-1]) * (2 / x.shape[-1])
        cos, sin = torch.cos(angle) / scale, torch.sin(angle) / scale
        rows = [torch.stack([cos, sin, -pixels[0]], 1), torch.stack([-sin, cos, -pixels[1]], 1)]
        grid = functional.affine_grid(torch.stack(rows, 1), list(x.shape), align_corners=False)
        return functional.grid_sample(x, grid, align_corners=False)


def convolution(inputs, outputs):
    """3 x 3, normalised over the batch."""
    layer = nn.Conv2d(inputs, outputs, 3, padding="same", bias=False)
    return layer, nn.BatchNorm2d(outputs), nn.ReLU()


model = nn.Sequential(
    RandomAffine(),
    *convolution(1, 32),
    *convolution(32, 32),
    nn.MaxPool2d(2),
    *convolution(32, 64),
    nn.MaxPool2d(2),
    nn.Flatten(),
    nn.Dropout(0.3),
    nn.Linear(256, 10),
)
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-3)
steps = EPOCHS * -(-len(images) // BATCH)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
begun = time.perf_counter()
for _ in range(EPOCHS):
    for rows in torch.randperm(len(images)).split(BATCH):
        loss = functional.cross_entropy(model(images[rows]), y[rows])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
print(f"training took {time.perf_counter() - begun:.1f} s")

model.eval()
with torch.no_grad():
    accuracy = float((model(test_images).argmax(1) == y_test).float().mean())
verdict = "passed" if accuracy >= STATED else "FAILED"
print(f"held-out accuracy {accuracy:.4f}, stated {STATED}: {verdict}")
assert verdict == "passed"
