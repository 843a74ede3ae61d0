"""The twin of docs/examples/tables.py in PyTorch."""

import time

import numpy as np
import torch
from example_data import of_example
from sklearn.metrics import r2_score, roc_auc_score
from sklearn.model_selection import train_test_split
from torch import nn
from torch.nn import functional

data = of_example("tables")
WIDTH, EPOCHS = data.WIDTH, data.EPOCHS


class Table(nn.Module):
    """Embeddings beside numbers, then blocks that add to what they are given."""

    def __init__(self, numbers, columns, names):
        super().__init__()
        self.names = nn.Embedding(names, data.EMBEDDED)
        self.first = nn.Linear(numbers + columns * data.EMBEDDED, WIDTH)
        self.blocks = nn.ModuleList([self.block(), self.block()])
        self.head = nn.Sequential(nn.LayerNorm(WIDTH), nn.ReLU(), nn.Linear(WIDTH, 1))
        nn.init.normal_(self.names.weight, std=0.3)

    @staticmethod
    def block():
        """Normalised, wider, narrow again."""
        wide = nn.Linear(WIDTH, 2 * WIDTH), nn.ReLU(), nn.Dropout(0.25)
        return nn.Sequential(nn.LayerNorm(WIDTH), *wide, nn.Linear(2 * WIDTH, WIDTH))

    def forward(self, x, codes):
        h = self.first(torch.cat([x, self.names(codes).flatten(1)], 1))
        for block in self.blocks:
            h = h + block(h)
        return self.head(h)[:, 0]


def network(x, codes, count, y, train, test, classes):
    """The mean of some networks' outputs for the rows of the test."""
    mean, scale = (0.0, 1.0) if classes else (y[train].mean(), y[train].std())
    x, codes = torch.from_numpy(x), torch.from_numpy(codes)
    targets = torch.from_numpy(((y - mean) / scale).astype(np.float32))
    loss_fn = functional.binary_cross_entropy_with_logits if classes else functional.mse_loss
    outputs = []
    for _ in range(data.MEMBERS):
        model = Table(x.shape[1], codes.shape[1], count)
        optimizer = torch.optim.AdamW(model.parameters(), lr=1e-3, weight_decay=0.05)
        steps = EPOCHS * -(-len(train) // 64)
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
        for _ in range(EPOCHS):
            for chosen in torch.randperm(len(train)).split(64):
                rows = train[chosen]
                loss = loss_fn(model(x[rows], codes[rows]), targets[rows])
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                schedule.step()
        with torch.no_grad():
            outputs.append(model.eval()(x[test], codes[test]).numpy())
    return np.mean(outputs, 0) * scale + mean


torch.manual_seed(0)
behind, seconds = [], 0.0
for name, place in data.TABLES.items():
    frame, y, names = data.loaded(*place)
    classes = name != "houses"
    score = roc_auc_score if classes else r2_score
    found = []
    for split in range(data.SPLITS):
        train, test = train_test_split(np.arange(len(y)), test_size=0.25, random_state=split)
        x, codes, count = data.encoded(frame, names, train)
        begun = time.perf_counter()
        ours = score(y[test], network(x, codes, count, y, train, test, classes))
        seconds += time.perf_counter() - begun
        found.append((ours, score(y[test], data.boosted(frame, y, train, test, classes))))
    ours, trees = np.mean(found, 0)
    print(f"{name}: {ours:.4f}, boosting {trees:.4f}")
    behind.append(float(trees - ours))
print(f"training took {seconds:.1f} s")
verdict = "passed" if max(behind) <= data.MARGIN else "FAILED"
print(f"behind boosting by at most {max(behind):.4f}, stated {data.MARGIN}: {verdict}")
assert verdict == "passed"
