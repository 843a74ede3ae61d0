"""A physics-informed network solves Burgers' equation from nothing but the equation.

    python docs/examples/physics_informed.py            # some minutes
    python docs/examples/physics_informed.py --short    # some seconds

Raissi, Perdikaris and Karniadakis, "Physics-informed neural networks" (2019). A network u(t, x) is
to satisfy u_t + u u_x = NU u_xx for t in [0, 1] and x in [-1, 1], with u(0, x) = -sin(pi x) and
u = 0 at both ends: a wave that steepens until it is almost a shock. The derivatives are gp.grad's,
the second one a gradient of a gradient, and the update is a gradient of all of it.

The solution in closed form (Cole, 1951; Hopf, 1950) is a quotient of two integrals, which
Gauss-Hermite quadrature gives to many digits. Writes physics_informed.png.
"""

import sys
import time

import matplotlib.pyplot as plt
import numpy as np

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.optim import lr_scheduler

SHORT = "--short" in sys.argv
STEPS, STATED = (1500, 0.05) if SHORT else (10_000, 0.005)
NU, RATE = 0.03, 5e-3
POINTS, BATCHES = 500, 20  # 20 batches of 500 points each, again and again


def closed_form(t, x, nodes=200):
    """u by the Cole-Hopf transform, for arrays t > 0 and x of one shape."""
    z, weight = np.polynomial.hermite.hermgauss(nodes)
    y = x[..., None] - np.sqrt(4 * NU * t[..., None]) * z
    kernel = weight * np.exp(-np.cos(np.pi * y) / (2 * np.pi * NU))
    return -np.sum(np.sin(np.pi * y) * kernel, axis=-1) / np.sum(kernel, axis=-1)


model = nn.Sequential(
    nn.Linear(2, 24),
    nn.Tanh(),
    nn.Linear(24, 24),
    nn.Tanh(),
    nn.Linear(24, 24),
    nn.Tanh(),
    nn.Linear(24, 1),
)


def u(t, x):
    """u of times and places (N,). What holds at t = 0 and at both ends is built in."""
    free = model(ops.stack([t, x], axis=1))[:, 0]
    return -ops.sin(np.pi * x) + t * (1 - x**2) * free


# Each value of u depends on its own t and x alone: the gradient of their sum has all derivatives.
u_t = gp.grad(lambda t, x: ops.sum(u(t, x)), argnums=0)
u_x = gp.grad(lambda t, x: ops.sum(u(t, x)), argnums=1)
u_xx = gp.grad(lambda t, x: ops.sum(u_x(t, x)), argnums=1)


def loss(t, x):
    """How far from the equation, squared, in the mean over points (N,)."""
    return ops.mean((u_t(t, x) + u(t, x) * u_x(t, x) - NU * u_xx(t, x)) ** 2)


gp.manual_seed(0)
rng = np.random.default_rng(0)
t = rng.uniform(0, 1, BATCHES * POINTS).astype(np.float32)
x = rng.uniform(-1, 1, BATCHES * POINTS).astype(np.float32)
optimizer = optim.Adam(model.parameters(), lr=RATE)
schedule = lr_scheduler.CosineAnnealingLR(optimizer, T_max=STEPS)
step = gp.compile_step(loss, optimizer, scheduler=schedule)
begun = time.perf_counter()
losses = step.run(t, x, batch_size=POINTS, epochs=STEPS // BATCHES)
print(f"training took {time.perf_counter() - begun:.1f} s")
print(
    f"mean squared residual: {losses[:20].mean():.3f} at first, {losses[-20:].mean():.6f} at last"
)

times, places = np.linspace(0.01, 1, 100), np.linspace(-1, 1, 201)
grid = np.meshgrid(times, places, indexing="ij")
right = closed_form(*grid)
solve = gp.compile(u)
found = solve(*(part.ravel().astype(np.float32) for part in grid)).reshape(right.shape)
error = float(np.linalg.norm(found - right) / np.linalg.norm(right))

figure, (left, axes) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
mesh = left.pcolormesh(times, places, found.T, cmap="RdBu_r")
figure.colorbar(mesh, ax=left, label="u")
left.set(xlabel="t", ylabel="x", title="what the network found")
for i, colour in ((24, "C0"), (49, "C1"), (99, "C2")):
    axes.plot(places, found[i], colour, label=f"t = {times[i]:.2f}")
    axes.plot(places[::8], right[i, ::8], "o", color=colour, ms=4, mfc="none")
axes.set(xlabel="x", ylabel="u", title="beside the closed form (circles)")
axes.legend()
figure.savefig("physics_informed.png", dpi=110)

verdict = "passed" if error <= STATED else "FAILED"
print(f"relative error {error:.4f}, stated {STATED}: {verdict}")
assert verdict == "passed"
