"""The twin of docs/examples/review_sentiment.py in PyTorch."""

import time

import numpy as np
import torch
from example_data import of_example
from sklearn.metrics import roc_auc_score
from torch import nn
from torch.nn import functional

from gpubp.data import Vocabulary

data = of_example("review_sentiment")
EPOCHS, LENGTH, MEMBERS = data.EPOCHS, data.LENGTH, data.MEMBERS
y = torch.from_numpy(data.y)


class Bag(nn.Module):
    """The mean of what each token says."""

    def __init__(self, tokens):
        super().__init__()
        self.tokens, self.head = nn.Embedding(tokens, 24), nn.Linear(24, 1)
        self.dropout = nn.Dropout(0.3)
        nn.init.normal_(self.tokens.weight, std=0.05)

    def forward(self, x, lengths):
        there = (torch.arange(x.shape[1]) < lengths[:, None])[..., None]
        found = self.dropout(self.tokens(x)) * there
        return self.head(found.sum(1) / lengths.clamp(min=1).sqrt()[:, None])[:, 0]


class Reader(nn.Module):
    """A GRU in both directions; the head sees a mean of its outputs that attention weighs."""

    def __init__(self, tokens):
        super().__init__()
        self.tokens, self.dropout = nn.Embedding(tokens, 32), nn.Dropout(0.4)
        self.gru = nn.GRU(32, 32, batch_first=True, bidirectional=True)
        self.weigh, self.head = nn.Linear(64, 1), nn.Linear(64, 1)
        nn.init.normal_(self.tokens.weight, std=0.1)

    def forward(self, x, lengths):
        packed = nn.utils.rnn.pack_padded_sequence(
            self.dropout(self.tokens(x)), lengths, batch_first=True, enforce_sorted=False
        )
        out, _ = nn.utils.rnn.pad_packed_sequence(self.gru(packed)[0], True, 0.0, x.shape[1])
        there = torch.arange(x.shape[1]) < lengths[:, None]
        weights = self.weigh(out)[..., 0].masked_fill(~there, -1e9).softmax(-1)
        return self.head(self.dropout((out * weights[..., None]).sum(1)))[:, 0]


def trained(model, x, lengths, lr, decay, epochs):
    """A model after training, in eval mode."""
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr, weight_decay=decay)
    for _ in range(epochs):
        for rows in torch.randperm(len(x)).split(data.BATCH):
            outputs = model(x[rows], lengths[rows])
            loss = functional.binary_cross_entropy_with_logits(outputs, y[rows])
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
    return model.eval()


def encoded(known, sequences, length):
    """Tensors of indices and lengths, at least 1, as packing wants them."""
    codes, lengths = known.encode(sequences, length)
    return torch.from_numpy(codes), torch.from_numpy(np.maximum(lengths, 1))


torch.manual_seed(0)
begun = time.perf_counter()
both = [[data.pairs(tokens) for tokens in part] for part in data.texts]
known = Vocabulary.of(both[0], least=3)
parts, test = (encoded(known, part, 2 * LENGTH) for part in both)
bags = [trained(Bag(len(known)), *parts, 2e-3, 0.02, 2 * EPOCHS) for _ in range(MEMBERS)]
with torch.no_grad():
    bag = sum(bag(*test) for bag in bags).numpy()
known = Vocabulary.of(data.texts[0], least=3)
parts, test = (encoded(known, part, LENGTH) for part in data.texts)
reader = trained(Reader(len(known)), *parts, 2e-3, 0.02, EPOCHS)
with torch.no_grad():
    read = reader(*test).numpy()
print(f"training took {time.perf_counter() - begun:.1f} s")

linear = data.LogisticRegression(max_iter=1000)
counts = data.CountVectorizer(min_df=2)
linear.fit(counts.fit_transform(data.reviews["review"]), data.y)
yardstick = linear.decision_function(counts.transform(data.held_out["review"]))
areas = [roc_auc_score(data.y_test, scores) for scores in (yardstick, bag, read)]
print(f"area under the curve, GRU with attention: {areas[2]:.4f}")
verdict = "passed" if areas[1] > areas[0] and areas[2] > 0.8 else "FAILED"
print(f"area under the curve {areas[1]:.4f}, stated more than {areas[0]:.4f}: {verdict}")
assert verdict == "passed"
