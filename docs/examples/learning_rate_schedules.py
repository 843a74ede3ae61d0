"""Learning-rate schedules: the same optimiser with a constant rate and with four schedules.

With noisy gradients a constant rate ends up dancing around the minimum; a schedule lets it settle.
"""

import numpy as np

import gpubp as gp
from gpubp import nn, optim
from gpubp.optim import lr_scheduler

EPOCHS, LR = 40, 0.03
SCHEDULES = {
    "constant": None,
    "StepLR": lambda o: lr_scheduler.StepLR(o, step_size=10, gamma=0.3),
    "ExponentialLR": lambda o: lr_scheduler.ExponentialLR(o, gamma=0.9),
    "CosineAnnealingLR": lambda o: lr_scheduler.CosineAnnealingLR(o, T_max=EPOCHS),
    "warm-up, then cosine": lambda o: lr_scheduler.SequentialLR(
        o,
        [
            lr_scheduler.LinearLR(o, start_factor=0.1, total_iters=5),
            lr_scheduler.CosineAnnealingLR(o, T_max=EPOCHS - 5),
        ],
        milestones=[5],
    ),
}

rng = np.random.default_rng(0)
X = rng.uniform(-3, 3, (1000, 1)).astype(np.float32)
y = (np.sin(2 * X) + 0.3 * rng.normal(size=X.shape)).astype(np.float32)
grid = np.linspace(-3, 3, 200, dtype=np.float32)[:, None]


def error_with(make_scheduler):
    """Train with a schedule; returns the mean squared distance from the true curve."""
    gp.manual_seed(0)
    model = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 1))
    loss_fn = nn.MSELoss()
    optimizer = optim.Adam(model.parameters(), lr=LR)
    scheduler = make_scheduler(optimizer) if make_scheduler else None
    step = gp.compile_step(lambda x, t: loss_fn(model(x), t), optimizer)
    for _ in range(EPOCHS):
        step.run(X, y, batch_size=10)  # the compiled step reads the rate at every update
        if scheduler:
            scheduler.step()  # once an epoch; compile_step(scheduler=...) does it at every update
    return float(np.mean((model(grid) - np.sin(2 * grid)) ** 2))


errors = {name: error_with(make) for name, make in SCHEDULES.items()}
for name, error in errors.items():
    print(f"{name:22} error {error:.5f}")
assert max(error for name, error in errors.items() if name != "constant") < errors["constant"]
