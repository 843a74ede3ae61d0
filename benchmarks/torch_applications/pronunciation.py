"""The twin of docs/examples/pronunciation.py in PyTorch, with a beam of one."""

import time

import torch
from example_data import of_example
from torch import nn
from torch.nn import functional

from gpubp.data.vocabulary import END, PAD, START
from gpubp.train import error_rate

data = of_example("pronunciation")
HIDDEN, BATCH, EPOCHS = data.HIDDEN, data.BATCH, data.EPOCHS
x, lengths, y = (torch.from_numpy(array) for array in (data.x, data.lengths, data.y))


class Speller(nn.Module):
    """Letters to phonemes."""

    def __init__(self):
        super().__init__()
        self.letters = nn.Embedding(len(data.letters), 64)
        self.encoder = nn.LSTM(64, HIDDEN // 2, batch_first=True, bidirectional=True)
        self.phonemes = nn.Embedding(len(data.phonemes), 64)
        self.decoder = nn.LSTM(64, HIDDEN, batch_first=True)
        self.looked_for = nn.Linear(HIDDEN, HIDDEN)
        self.joined = nn.Linear(2 * HIDDEN, HIDDEN)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(HIDDEN, len(data.phonemes))

    def encode(self, x, lengths):
        """Memory of each letter, and the decoder's first states."""
        packed = nn.utils.rnn.pack_padded_sequence(
            self.letters(x), lengths, batch_first=True, enforce_sorted=False
        )
        out, states = self.encoder(packed)
        memory, _ = nn.utils.rnn.pad_packed_sequence(out, True, total_length=x.shape[1])
        return memory, tuple(torch.cat([s[0], s[1]], -1)[None] for s in states)

    def decode(self, given, memory, lengths, states):
        """Logits of the phonemes behind those given, and the next states."""
        out, states = self.decoder(self.phonemes(given), states)
        scores = self.looked_for(out) @ memory.transpose(1, 2)
        there = torch.arange(memory.shape[1]) < lengths[:, None, None]
        attention = torch.softmax(scores.masked_fill(~there, -1e9), -1)
        both = torch.cat([out, attention @ memory], -1)
        return self.head(self.dropout(torch.tanh(self.joined(both)))), states


torch.manual_seed(0)
model = Speller()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
steps = EPOCHS * -(-len(x) // BATCH)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
begun = time.perf_counter()
for _ in range(EPOCHS):
    for rows in torch.randperm(len(x)).split(BATCH):
        memory, states = model.encode(x[rows], lengths[rows])
        logits, _ = model.decode(y[rows, :-1], memory, lengths[rows], states)
        loss = functional.cross_entropy(logits.mT, y[rows, 1:], ignore_index=PAD)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
print(f"training took {time.perf_counter() - begun:.1f} s")

model.eval()
codes, lengths = map(torch.from_numpy, data.letters.encode(data.held_out, data.LETTERS))
with torch.no_grad():
    memory, states = model.encode(codes, lengths)
    last, written = torch.full((len(codes), 1), START), []
    for _ in range(data.PHONEMES):
        logits, states = model.decode(last, memory, lengths, states)
        last = logits.argmax(-1)
        written.append(last)
rows = [[*row.tolist(), END] for row in torch.cat(written, 1)]
right = [data.found[word] for word in data.held_out]
rate = error_rate([data.phonemes.decode(row) for row in rows], right)
verdict = "passed" if rate <= data.STATED else "FAILED"
print(f"phoneme error rate of held-out words {rate:.4f}, stated {data.STATED}: {verdict}")
assert verdict == "passed"
