"""Learn XOR: a compiled training step, called once per epoch on the whole data."""

import numpy as np

import gpubp as gp
from gpubp import nn, optim

gp.manual_seed(0)
X = np.array([[0, 0], [0, 1], [1, 0], [1, 1]], np.float32)
y = np.array([[0], [1], [1], [0]], np.float32)

model = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1), nn.Sigmoid())
loss_fn = nn.MSELoss()
optimizer = optim.Adam(model.parameters(), lr=0.05)
step = gp.compile_step(lambda x, t: loss_fn(model(x), t), optimizer)

losses = [step(X, y) for _ in range(500)]

outputs = model(X)
print(f"loss {losses[-1]:.5f}")
for inputs, output in zip(X, outputs, strict=True):
    print(inputs, "->", f"{output[0]:.3f}")
np.testing.assert_array_equal(outputs > 0.5, y > 0.5)
