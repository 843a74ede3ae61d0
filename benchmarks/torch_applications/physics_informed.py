"""The twin of docs/examples/physics_informed.py in PyTorch."""

import sys
import time

import numpy as np
import torch
from torch import nn

SHORT = "--short" in sys.argv
STEPS, STATED = (1500, 0.05) if SHORT else (10_000, 0.005)
NU, RATE = 0.03, 5e-3
POINTS, BATCHES = 500, 20


def closed_form(t, x, nodes=200):
    """u by the Cole-Hopf transform, for arrays t > 0 and x of one shape."""
    z, weight = np.polynomial.hermite.hermgauss(nodes)
    y = x[..., None] - np.sqrt(4 * NU * t[..., None]) * z
    kernel = weight * np.exp(-np.cos(np.pi * y) / (2 * np.pi * NU))
    return -np.sum(np.sin(np.pi * y) * kernel, axis=-1) / np.sum(kernel, axis=-1)


def u(t, x):
    """u of times and places (N,)."""
    free = model(torch.stack([t, x], dim=1))[:, 0]
    return -torch.sin(torch.pi * x) + t * (1 - x**2) * free


def loss(t, x):
    """How far from the equation, squared, in the mean over points (N,)."""
    t, x = t.clone().requires_grad_(), x.clone().requires_grad_()
    found = u(t, x)
    u_t, u_x = torch.autograd.grad(found.sum(), (t, x), create_graph=True)
    (u_xx,) = torch.autograd.grad(u_x.sum(), x, create_graph=True)
    return ((u_t + found * u_x - NU * u_xx) ** 2).mean()


torch.manual_seed(0)
model = nn.Sequential(
    nn.Linear(2, 24),
    nn.Tanh(),
    nn.Linear(24, 24),
    nn.Tanh(),
    nn.Linear(24, 24),
    nn.Tanh(),
    nn.Linear(24, 1),
)
t, x = torch.rand(BATCHES * POINTS), 2 * torch.rand(BATCHES * POINTS) - 1
optimizer = torch.optim.Adam(model.parameters(), lr=RATE)
schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)
begun = time.perf_counter()
for _ in range(STEPS // BATCHES):
    for rows in torch.randperm(len(t)).split(POINTS):
        optimizer.zero_grad()
        loss(t[rows], x[rows]).backward()
        optimizer.step()
        schedule.step()
print(f"training took {time.perf_counter() - begun:.1f} s")

grid = np.meshgrid(np.linspace(0.01, 1, 100), np.linspace(-1, 1, 201), indexing="ij")
right = closed_form(*grid)
with torch.no_grad():
    found = u(*(torch.from_numpy(part.ravel()).float() for part in grid)).numpy()
error = float(np.linalg.norm(found.reshape(right.shape) - right) / np.linalg.norm(right))
verdict = "passed" if error <= STATED else "FAILED"
print(f"relative error {error:.4f}, stated {STATED}: {verdict}")
assert verdict == "passed"
