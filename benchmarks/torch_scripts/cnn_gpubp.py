"""A small convolutional network with BatchNorm on images of 1x16x16."""

import os
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import gpubp.torch

torch.manual_seed(0)
samples, epochs = int(os.environ.get("SAMPLES", "4096")), int(os.environ.get("EPOCHS", "6"))

X = torch.randn(samples, 1, 16, 16)
y = X.mean((2, 3)).squeeze(1).mul(40).long().clamp(-4, 5) + 4
loader = DataLoader(TensorDataset(X, y), batch_size=64, shuffle=True)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 16, 3, padding=1)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 32, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(32)
        self.fc = nn.Linear(32 * 4 * 4, 10)

    def forward(self, x):
        x = torch.max_pool2d(torch.relu(self.bn1(self.conv1(x))), 2)
        x = torch.max_pool2d(torch.relu(self.bn2(self.conv2(x))), 2)
        return self.fc(x.flatten(1))


model = Net()
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.SGD(model.parameters(), lr=0.05, momentum=0.9)
step = gpubp.torch.compile_step(model, loss_fn, optimizer)

for epoch in range(epochs):
    started = time.perf_counter()
    loss = step.run(loader)[-1]
    print(f"epoch {epoch}: loss {loss.item():.4f}, {time.perf_counter() - started:.4f} s")
