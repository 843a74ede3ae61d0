"""The `NeuralNetwork` class of the tutorials, with its `forward` and `backward`, on gpubp.

There, `backward` is a dozen lines of derivatives. Here it is one compiled step, and those lines
are at the end, to check it.
"""

import numpy as np

import gpubp as gp
from gpubp import nn, ops, optim


class NeuralNetwork(nn.Module):
    """One hidden layer, sigmoids, mean squared error."""

    def __init__(self, input_size, hidden_size, output_size):
        super().__init__()
        self.hidden = nn.Linear(input_size, hidden_size)
        self.output = nn.Linear(hidden_size, output_size)
        self.optimizer = optim.SGD(self.parameters(), lr=1.0)
        self.step = gp.compile_step(self.loss, self.optimizer, keep_grads=True)  # to look at them

    def forward(self, X):
        """Probabilities, shape (samples, output_size)."""
        return ops.sigmoid(self.output(ops.sigmoid(self.hidden(X))))

    def loss(self, X, y):
        return ops.mean(ops.square(self.forward(X) - y))

    def backward(self, X, y, learning_rate):
        """Forward, gradients and update in one go; returns the loss before the update."""
        self.optimizer.param_groups[0]["lr"] = learning_rate
        return self.step(X, y)


# Which points of the plane lie inside a ring?
gp.manual_seed(0)
rng = np.random.default_rng(0)
X = rng.uniform(-1, 1, (400, 2)).astype(np.float32)
radius = np.hypot(X[:, :1], X[:, 1:])
y = ((radius > 0.4) & (radius < 0.8)).astype(np.float32)

network = NeuralNetwork(input_size=2, hidden_size=24, output_size=1)
before = network.state_dict()
network.backward(X, y, learning_rate=1.0)

# The derivatives by hand, as the tutorials write them.
H = 1 / (1 + np.exp(-(X @ before["hidden.weight"].T + before["hidden.bias"])))
P = 1 / (1 + np.exp(-(H @ before["output.weight"].T + before["output.bias"])))
delta_out = 2 * (P - y) / len(X) * P * (1 - P)
delta_hidden = delta_out @ before["output.weight"] * H * (1 - H)
by_hand = [delta_hidden.T @ X, delta_hidden.sum(0), delta_out.T @ H, delta_out.sum(0)]
for found, expected in zip(network.step.grads, by_hand, strict=True):
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-7)

losses = [network.backward(X, y, learning_rate=5.0) for _ in range(6000)]
accuracy = np.mean((network.forward(X) > 0.5) == y)
print(f"loss {losses[-1]:.4f}, accuracy {accuracy:.3f}")
assert accuracy > 0.95
