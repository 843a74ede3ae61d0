"""The twin of docs/examples/image_classification.py in PyTorch."""

import time

import numpy as np
import torch
from example_data import of_example
from torch import nn
from torch.nn import functional

data = of_example("image_classification", "network")
BATCH, SETS = data.BATCH, data.SETS


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


def network(layers, side):
    """Convolutions of 3 x 3, each normalised over the batch."""
    found, inputs = [], 1
    for width in layers:
        if width == "pool":
            found.append(nn.MaxPool2d(2))
            side //= 2
        else:
            found.append(nn.Conv2d(inputs, width, 3, padding="same", bias=False))
            found += nn.BatchNorm2d(width), nn.ReLU()
            inputs = width
    found += nn.Flatten(), nn.Dropout(0.3), nn.Linear(inputs * side**2, 10)
    return nn.Sequential(RandomAffine(), *found)


def trained(name, images, y):
    """A model after training, in eval mode."""
    epochs, _ = SETS[name]
    model = network(data.LAYERS[name], images.shape[-1])
    optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-3)
    steps = epochs * -(-len(images) // BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    for _ in range(epochs):
        for rows in torch.randperm(len(images)).split(BATCH):
            loss = functional.cross_entropy(model(images[rows]), y[rows])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
    return model.eval()


torch.manual_seed(0)
reached, seconds = {}, 0.0
for name in SETS:
    images, test_images, y, y_test = map(torch.from_numpy, data.loaded(name))
    begun = time.perf_counter()
    model = trained(name, images, y)
    seconds += time.perf_counter() - begun
    with torch.no_grad():
        reached[name] = float((model(test_images).argmax(1) == y_test).float().mean())
print(f"training took {seconds:.1f} s")

verdict = "passed" if all(reached[name] >= SETS[name][1] for name in SETS) else "FAILED"
figures = ", ".join(f"{name} {reached[name]:.4f}, stated {SETS[name][1]}" for name in SETS)
print(f"held-out accuracy of {figures}: {verdict}")
assert verdict == "passed"
