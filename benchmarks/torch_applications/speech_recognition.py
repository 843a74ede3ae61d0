"""The twin of docs/examples/speech_recognition.py in PyTorch, with greedy decoding."""

import time

import numpy as np
import torch
from example_data import of_example
from torch import nn
from torch.nn import functional

from gpubp.train import ctc_greedy, error_rate

data = of_example("speech_recognition")
WIDTH, BATCH, EPOCHS, LETTERS = data.WIDTH, data.BATCH, data.EPOCHS, data.LETTERS


class Listener(nn.Module):
    """Features to logarithms of the letters' probabilities, 40 times a second."""

    def __init__(self):
        super().__init__()
        self.near = nn.Sequential(
            nn.Conv1d(data.BANDS, WIDTH, 5, stride=2, padding=2),
            nn.ReLU(),
            nn.Conv1d(WIDTH, WIDTH, 3, padding=1),
            nn.ReLU(),
            nn.Dropout(0.1),
        )
        self.far = nn.GRU(WIDTH, WIDTH, bidirectional=True)
        self.head = nn.Linear(2 * WIDTH, len(LETTERS) + 1)

    def forward(self, x, times):
        near = self.near(x).permute(2, 0, 1)
        packed = nn.utils.rnn.pack_padded_sequence(near, times, enforce_sorted=False)
        out, _ = nn.utils.rnn.pad_packed_sequence(self.far(packed)[0], total_length=len(near))
        return self.head(out).log_softmax(-1)


torch.manual_seed(0)
x, frames, _, labels, counts = data.recordings(data.SPOKEN, data.HEARD, 1)
x, times, labels, counts = map(torch.from_numpy, (x, (frames + 1) // 2, labels, counts))
model = Listener()
optimizer = torch.optim.Adam(model.parameters(), lr=1e-3)
steps = EPOCHS * -(-len(x) // BATCH)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=6e-3, total_steps=steps)
begun = time.perf_counter()
for _ in range(EPOCHS):
    for rows in torch.randperm(len(x)).split(BATCH):
        scores = model(x[rows], times[rows])
        loss = functional.ctc_loss(
            scores, labels[rows], times[rows], counts[rows], zero_infinity=True
        )
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        optimizer.step()
        schedule.step()
print(f"training took {time.perf_counter() - begun:.1f} s")

x, frames, texts, _, _ = data.recordings(data.HELD_OUT, data.UNHEARD, 2)
times = (frames + 1) // 2
model.eval()
with torch.no_grad():
    scores = model(torch.from_numpy(x), torch.from_numpy(times)).numpy()
read = ["".join(LETTERS[i - 1] for i in row) for row in ctc_greedy(scores, np.asarray(times))]
wrong = error_rate(read, texts)
verdict = "passed" if wrong <= data.STATED else "FAILED"
print(f"character error rate of unheard voices {wrong:.4f}, stated {data.STATED}: {verdict}")
assert verdict == "passed"
