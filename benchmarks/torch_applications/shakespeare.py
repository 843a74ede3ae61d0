"""The twin of docs/examples/shakespeare.py in PyTorch, without the writing."""

import time

import numpy as np
import torch
from example_data import of_example
from torch import nn
from torch.nn import functional

data = of_example("shakespeare")
WIDTH, LAYERS, LENGTH, BATCH, STEPS = data.WIDTH, data.LAYERS, data.LENGTH, data.BATCH, data.STEPS
LETTERS = len(data.LETTERS)
text, test = torch.from_numpy(data.text), torch.from_numpy(data.test)


class Writer(nn.Module):
    """A causal transformer over letters and their places."""

    def __init__(self):
        super().__init__()
        dropout = 0.0 if data.SHORT else 0.1
        layer = nn.TransformerEncoderLayer(
            WIDTH, 4, 4 * WIDTH, dropout, "gelu", batch_first=True, norm_first=True
        )
        self.letters, self.places = nn.Embedding(LETTERS, WIDTH), nn.Embedding(LENGTH, WIDTH)
        norm = nn.LayerNorm(WIDTH)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, norm, enable_nested_tensor=False)
        self.head = nn.Linear(WIDTH, LETTERS)
        for table in (self.letters, self.places):
            nn.init.normal_(table.weight, std=0.1)
        self.mask = nn.Transformer.generate_square_subsequent_mask(LENGTH)

    def forward(self, x):
        seen = self.letters(x) + self.places.weight
        return self.head(self.encoder(seen, mask=self.mask, is_causal=True))


torch.manual_seed(0)
model = Writer()
optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
schedule = torch.optim.lr_scheduler.OneCycleLR(
    optimizer, max_lr=4e-3, total_steps=STEPS, pct_start=0.1
)
rng, begun = np.random.default_rng(0), time.perf_counter()
for _ in range(STEPS):
    starts = torch.from_numpy(rng.integers(0, len(text) - LENGTH - 1, BATCH))
    pieces = text[starts[:, None] + torch.arange(LENGTH + 1)]
    loss = functional.cross_entropy(model(pieces[:, :-1]).mT, pieces[:, 1:])
    optimizer.zero_grad()
    loss.backward()
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    optimizer.step()
    schedule.step()
print(f"training took {time.perf_counter() - begun:.1f} s")

model.eval()
starts = torch.arange(0, len(test) - LENGTH - 1, LENGTH // 2)
if data.SHORT:
    starts = starts[:: max(1, len(starts) // 400)]
losses = []
with torch.no_grad():
    for some in starts.split(32):
        pieces = test[some[:, None] + torch.arange(LENGTH + 1)]
        each = functional.cross_entropy(model(pieces[:, :-1]).mT, pieces[:, 1:], reduction="none")
        losses.append(each[:, LENGTH // 2 :])
reached = float(torch.cat(losses).mean()) / np.log(2)
stated = data.counted(data.BEFORE)
verdict = "passed" if reached < stated else "FAILED"
print(f"bits a letter {reached:.3f}, stated less than {stated:.3f}: {verdict}")
assert verdict == "passed"
