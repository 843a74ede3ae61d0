"""An autoencoder, its learning rate on a schedule by epochs."""

import os
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
samples, epochs = int(os.environ.get("SAMPLES", "8192")), int(os.environ.get("EPOCHS", "6"))

X = torch.rand(samples, 8) @ torch.rand(8, 256)
loader = DataLoader(TensorDataset(X, X), batch_size=128, shuffle=True)

model = nn.Sequential(
    nn.Linear(256, 128), nn.ReLU(), nn.Linear(128, 16), nn.ReLU(),
    nn.Linear(16, 128), nn.ReLU(), nn.Linear(128, 256),
)  # fmt: skip
loss_fn = nn.MSELoss()
optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3)
scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

for epoch in range(epochs):
    started = time.perf_counter()
    for xb, yb in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(xb), yb)
        loss.backward()
        optimizer.step()
    scheduler.step()
    print(f"epoch {epoch}: loss {loss.item():.4f}, {time.perf_counter() - started:.4f} s")
