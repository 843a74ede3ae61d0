"""An LSTM that classifies sequences."""

import os
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gpubp.torch

torch.manual_seed(0)
samples, epochs = int(os.environ.get("SAMPLES", "2048")), int(os.environ.get("EPOCHS", "6"))

X = torch.randn(samples, 28, 28)
y = X.sum((1, 2)).div(8).long().clamp(-5, 4) + 5
loader = DataLoader(TensorDataset(X, y), batch_size=32, shuffle=True)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(28, 64, batch_first=True)
        self.fc = nn.Linear(64, 10)

    def forward(self, x):
        out, _ = self.lstm(x)
        return self.fc(out[:, -1])


model = Net()
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)
step = gpubp.torch.compile_step(model, loss_fn, optimizer)

for epoch in range(epochs):
    started = time.perf_counter()
    loss = step.run(loader)[-1]
    print(f"epoch {epoch}: loss {loss.item():.4f}, {time.perf_counter() - started:.4f} s")
