"""Sequence to sequence, the first step: a small transformer reads numbers in words.

    python docs/examples/number_words.py            # a minute
    python docs/examples/number_words.py --short    # some seconds

"three hundred and five thousand and twelve" is 305012. Of the million numbers below 1,000,000 the
model sees 24,000 in words, and is asked for 2,000 others. An encoder reads the words; a decoder
writes digits, and at each looks at the words and at the digits before it (Vaswani et al., 2017). In
training it is given the right digits, all at once; afterwards a beam search writes them one by one.
Writes number_words.png: how the loss falls, and how many numbers of each length are right.
"""

import sys
import time

import matplotlib.pyplot as plt
import numpy as np

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.data import Vocabulary
from gpubp.data.vocabulary import END, PAD, START
from gpubp.optim import lr_scheduler
from gpubp.train import beam_search

SHORT = "--short" in sys.argv
NUMBERS, HELD_OUT, EPOCHS, STATED = (8_000, 300, 8, 0.6) if SHORT else (24_000, 2_000, 12, 0.99)
WIDTH, BATCH, WORDS, DIGITS = 64, 64, 11, 7  # of the longest number; with its end
BELOW = "zero one two three four five six seven eight nine ten eleven twelve thirteen fourteen"
ONES = f"{BELOW} fifteen sixteen seventeen eighteen nineteen".split()
TENS = ["-", "-", "twenty", "thirty", "forty", "fifty", "sixty", "seventy", "eighty", "ninety"]


def in_words(number):
    """English words of a number from 0 to 999,999."""
    if number < 20:
        return [ONES[number]]
    if number < 100:
        return [TENS[number // 10], *(in_words(number % 10) if number % 10 else [])]
    size, name = (100, "hundred") if number < 1000 else (1000, "thousand")
    front, rest = divmod(number, size)
    between = ["and"] if 0 < rest < 100 else []
    return [*in_words(front), name, *between, *(in_words(rest) if rest else [])]


# As many numbers of three digits as of six, or short ones would hardly be seen.
rng = np.random.default_rng(0)
drawn = (10 ** rng.uniform(0, 6, 10 * NUMBERS)).astype(int)
order = rng.permutation(np.unique(drawn))[: NUMBERS + HELD_OUT].tolist()
held_out, learnt = order[:HELD_OUT], order[HELD_OUT:]
words = Vocabulary.of(in_words(number) for number in learnt)
digits = Vocabulary(list("0123456789"))
x, lengths = words.encode(map(in_words, learnt), WORDS)
y, _ = digits.encode(map(str, learnt), DIGITS + 1, start=True, end=True)


class Reader(nn.Module):
    """Words to digits."""

    def __init__(self):
        super().__init__()
        self.words, self.digits = nn.Embedding(len(words), WIDTH), nn.Embedding(len(digits), WIDTH)
        self.places = nn.Embedding(WORDS, WIDTH)
        self.transformer = nn.Transformer(
            WIDTH, 4, 2, 2, 2 * WIDTH, 0.0, batch_first=True, norm_first=True
        )
        self.head = nn.Linear(WIDTH, len(digits))
        for table in (self.words, self.digits, self.places):
            nn.init.normal_(table.weight, std=0.3)

    @staticmethod
    def behind(lengths):
        """Where there are no words any more, (N, WORDS)."""
        return ops.greater_equal(np.arange(WORDS), ops.expand_dims(lengths, 1))

    def encode(self, x, lengths):
        """What the decoder looks at, (N, WORDS, WIDTH)."""
        seen = self.words(x) + self.places(np.arange(WORDS))
        return self.transformer.encoder(seen, src_key_padding_mask=self.behind(lengths))

    def decode(self, given, memory, lengths):
        """Logits of the digits behind each of those given, (N, DIGITS, digits)."""
        out = self.transformer.decoder(
            self.digits(given) + self.places(np.arange(DIGITS)),
            memory,
            tgt_mask=nn.Transformer.generate_square_subsequent_mask(DIGITS),
            memory_key_padding_mask=self.behind(lengths),
        )
        return self.head(out)


gp.manual_seed(0)
model, loss_fn = Reader(), nn.CrossEntropyLoss(ignore_index=PAD)


def loss(x, lengths, y):
    logits = model.decode(y[:, :-1], model.encode(x, lengths), lengths)
    return loss_fn(ops.reshape(logits, (-1, len(digits))), ops.reshape(y[:, 1:], (-1,)))


optimizer = optim.Adam(model.parameters(), lr=1e-3)
steps = EPOCHS * -(-len(x) // BATCH)
schedule = lr_scheduler.OneCycleLR(optimizer, max_lr=3e-3, total_steps=steps, pct_start=0.2)
step = gp.compile_step(loss, optimizer, scheduler=schedule, max_grad_norm=1.0)
begun = time.perf_counter()
losses = step.run(x, lengths, y, batch_size=BATCH, epochs=EPOCHS)
print(f"training took {time.perf_counter() - begun:.1f} s")


@gp.compile
def next_digit(last, state):
    """One round of the beam search: all digits so far go through the decoder again."""
    memory, lengths, written, place = state
    here = ops.equal(np.arange(DIGITS), ops.expand_dims(place, 1))
    written = ops.where(here, ops.expand_dims(last, 1), written)
    logits = ops.sum(model.decode(written, memory, lengths) * ops.expand_dims(here, 2), 1)
    return ops.log_softmax(logits, -1), (memory, lengths, written, place + 1)


model.eval()
x, lengths = words.encode(map(in_words, held_out), WORDS)
written, place = np.full((len(x), DIGITS), PAD), np.zeros(len(x), np.int64)
state = gp.compile(model.encode)(x, lengths), lengths, written, place
beams = beam_search(next_digit, state, START, END, width=3, max_length=DIGITS)
read = ["".join(digits.decode(row)) for row in beams.tokens[:, 0]]
right = np.array([found == str(number) for found, number in zip(read, held_out)])
for i in [*range(4), *np.flatnonzero(~right)[:4]]:
    print(f"  {' '.join(in_words(held_out[i]))}: {read[i]}{'' if right[i] else ' is wrong'}")

figure, (left, bars) = plt.subplots(1, 2, figsize=(10, 4), layout="constrained")
left.semilogy(np.convolve(losses, np.ones(20) / 20, "valid"))
left.set(xlabel="steps", ylabel="loss, mean of 20")
size = np.array([len(str(number)) for number in held_out])
bars.bar(range(1, 7), [right[size == n].mean() if (size == n).any() else 0 for n in range(1, 7)])
bars.set(xlabel="digits of the number", ylabel="share of held-out numbers that are right")
figure.savefig("number_words.png", dpi=110)

verdict = "passed" if right.mean() >= STATED else "FAILED"
print(f"share of held-out numbers that are right {right.mean():.4f}, stated {STATED}: {verdict}")
assert verdict == "passed"
