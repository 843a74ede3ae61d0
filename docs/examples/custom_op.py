"""An op of your own: NumPy code with a gradient, used inside a compiled step."""

import numpy as np

import gpubp as gp
from gpubp import nn, ops, optim

# The gradient is made of gp.ops, so that it can be traced, compiled and differentiated again.
softsign = gp.custom_op(
    "softsign",
    forward=lambda x: x / (1 + np.abs(x)),
    vjp=lambda g, y, x: (g / ops.square(1.0 + ops.abs(x)),),
)


class Softsign(nn.Module):
    """x / (1 + |x|), elementwise."""

    def forward(self, x):
        return softsign(x)


point, h = np.array([-1.5, 0.3, 2.0]), 1e-6
numeric = (softsign(point + h) - softsign(point - h)) / (2 * h)
exact = gp.grad(lambda x: ops.sum(softsign(x)))(point)
print("gradient", exact)
np.testing.assert_allclose(exact, numeric, rtol=1e-8)

gp.manual_seed(0)
X = np.linspace(-2, 2, 128, dtype=np.float32)[:, None]
y = np.sin(2 * X)
model = nn.Sequential(nn.Linear(1, 16), Softsign(), nn.Linear(16, 1))
loss_fn = nn.MSELoss()
optimizer = optim.Adam(model.parameters(), lr=0.02)
step = gp.compile_step(lambda x, t: loss_fn(model(x), t), optimizer)
losses = step.run(X, y, batch_size=32, epochs=200, seed=0)
print(f"loss {losses[0]:.3f} -> {losses[-1]:.5f}")
assert losses[-4:].mean() < 0.02
