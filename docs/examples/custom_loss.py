"""A loss of your own: any function of gp.ops. Here Huber's, which outliers cannot pull far.

Huber, "Robust estimation of a location parameter" (1964).
"""

import numpy as np

import gpubp as gp
from gpubp import nn, ops, optim


def huber(prediction, target, delta=0.5):
    """Quadratic near zero, linear beyond `delta`; mean over all elements."""
    error = ops.abs(prediction - target)
    near = 0.5 * error * error
    far = delta * (error - 0.5 * delta)
    return ops.mean(ops.where(error < delta, near, far))


def fitted_slope(loss_fn):
    """The slope of the line fitted with `loss_fn`."""
    gp.manual_seed(0)
    model = nn.Linear(1, 1)
    step = gp.compile_step(lambda x, t: loss_fn(model(x), t), optim.SGD(model.parameters(), lr=0.1))
    step.run(X, y, batch_size=50, epochs=60)
    return float(model.weight.value[0, 0])


rng = np.random.default_rng(0)
X = rng.uniform(-2, 2, (500, 1)).astype(np.float32)
y = (3 * X + 1 + 0.1 * rng.normal(size=X.shape)).astype(np.float32)
y[X > 1.6] -= 20  # a broken instrument

robust, plain = fitted_slope(huber), fitted_slope(nn.MSELoss())
print(f"true slope 3, with the Huber loss {robust:.2f}, with the squared error {plain:.2f}")
assert abs(robust - 3) < 0.5 < abs(plain - 3)
