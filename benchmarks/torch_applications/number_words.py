"""The twin of docs/examples/number_words.py in PyTorch, with greedy decoding."""

import time

import numpy as np
import torch
from example_data import of_example
from torch import nn
from torch.nn import functional

from gpubp.data.vocabulary import END, PAD, START

data = of_example("number_words")
WIDTH, BATCH, EPOCHS = data.WIDTH, data.BATCH, data.EPOCHS
x, lengths, y = (torch.from_numpy(array) for array in (data.x, data.lengths, data.y))


class Reader(nn.Module):
    """Words to digits."""

    def __init__(self):
        super().__init__()
        self.words = nn.Embedding(len(data.words), WIDTH)
        self.digits = nn.Embedding(len(data.digits), WIDTH)
        self.places = nn.Embedding(data.WORDS, WIDTH)
        self.transformer = nn.Transformer(
            WIDTH, 4, 2, 2, 2 * WIDTH, 0.0, batch_first=True, norm_first=True
        )
        self.head = nn.Linear(WIDTH, len(data.digits))
        for table in (self.words, self.digits, self.places):
            nn.init.normal_(table.weight, std=0.3)

    def encode(self, x, lengths):
        """What the decoder looks at, and where there are no words any more."""
        behind = torch.arange(data.WORDS) >= lengths[:, None]
        seen = self.words(x) + self.places.weight
        return self.transformer.encoder(seen, src_key_padding_mask=behind), behind

    def decode(self, given, memory, behind):
        """Logits of the digits behind each of those given."""
        count = given.shape[1]
        mask = nn.Transformer.generate_square_subsequent_mask(count)
        seen = self.digits(given) + self.places.weight[:count]
        out = self.transformer.decoder(
            seen, memory, tgt_mask=mask, memory_key_padding_mask=behind, tgt_is_causal=True
        )
        return self.head(out)


torch.manual_seed(0)
model = Reader()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
steps = EPOCHS * -(-len(x) // BATCH)
schedule = torch.optim.lr_scheduler.OneCycleLR(
    optimizer, max_lr=3e-3, total_steps=steps, pct_start=0.2
)
begun = time.perf_counter()
for _ in range(EPOCHS):
    for rows in torch.randperm(len(x)).split(BATCH):
        logits = model.decode(y[rows, :-1], *model.encode(x[rows], lengths[rows]))
        loss = functional.cross_entropy(logits.mT, y[rows, 1:], ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
print(f"training took {time.perf_counter() - begun:.1f} s")

model.eval()
codes, lengths = data.words.encode(map(data.in_words, data.held_out), data.WORDS)
with torch.no_grad():
    seen = model.encode(torch.from_numpy(codes), torch.from_numpy(lengths))
    written = torch.full((len(codes), 1), START)
    for _ in range(data.DIGITS):
        last = model.decode(written, *seen)[:, -1].argmax(-1, keepdim=True)
        written = torch.cat([written, last], 1)
read = ["".join(data.digits.decode([*row, END])) for row in written.tolist()]
right = float(np.mean([found == str(n) for found, n in zip(read, data.held_out)]))
verdict = "passed" if right >= data.STATED else "FAILED"
print(f"share of held-out numbers that are right {right:.4f}, stated {data.STATED}: {verdict}")
assert verdict == "passed"
