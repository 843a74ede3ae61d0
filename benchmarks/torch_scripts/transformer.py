"""A small causal transformer over letters."""

import os
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

torch.manual_seed(0)
samples, epochs = int(os.environ.get("SAMPLES", "1024")), int(os.environ.get("EPOCHS", "6"))

X = torch.randint(0, 64, (samples, 64)).cumsum(1) % 64
y = X.roll(-1, 1)
loader = DataLoader(TensorDataset(X, y), batch_size=32, shuffle=True)


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.letters = nn.Embedding(64, 64)
        self.places = nn.Embedding(64, 64)
        layer = nn.TransformerEncoderLayer(64, 4, 128, 0.0, batch_first=True, norm_first=True)
        self.body = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
        self.head = nn.Linear(64, 64)

    def forward(self, x):
        h = self.letters(x) + self.places(torch.arange(x.size(1)))
        mask = nn.Transformer.generate_square_subsequent_mask(x.size(1))
        return self.head(self.body(h, mask=mask, is_causal=True)).transpose(1, 2)


model = Net()
loss_fn = nn.CrossEntropyLoss()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3)

for epoch in range(epochs):
    started = time.perf_counter()
    for xb, yb in loader:
        optimizer.zero_grad()
        loss = loss_fn(model(xb), yb)
        loss.backward()
        optimizer.step()
    print(f"epoch {epoch}: loss {loss.item():.4f}, {time.perf_counter() - started:.4f} s")
