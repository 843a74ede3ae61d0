"""The twin of docs/examples/detection.py in PyTorch. Scenes, boxes and figures are gpubp's."""

import sys
import time

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from gpubp.data import batched_nms, box_convert, load_digits
from gpubp.train import mean_average_precision

SHORT = "--short" in sys.argv
SCENES, EPOCHS, STATED = (1500, 6, 0.4) if SHORT else (4000, 14, 0.85)
SIZE, CELLS, BATCH = 32, 8, 64
CELL = SIZE // CELLS


def compose(rng, digits, labels):
    """A scene (1, SIZE, SIZE), its boxes (left, top, right, bottom), and their digits."""
    scene, boxes, classes = rng.uniform(0, 0.25, (SIZE, SIZE)), [], []
    for _ in range(rng.integers(1, 5)):
        side = int(rng.integers(8, 13))
        left, top = rng.integers(0, SIZE - side + 1, 2)
        box = np.array([left, top, left + side, top + side])
        if any(np.all(box[:2] < b[2:]) and np.all(b[:2] < box[2:]) for b in boxes):
            continue  # it would cover another one
        which = rng.integers(len(digits))
        nearest = np.arange(side) * 8 // side
        drawn = digits[which].reshape(8, 8)[nearest][:, nearest]
        part = scene[top : top + side, left : left + side]
        np.maximum(part, drawn, out=part)
        boxes.append(box)
        classes.append(labels[which])
    return scene[None].astype(np.float32), np.array(boxes, np.float32), np.array(classes)


def as_grid(boxes, classes):
    """What each cell shall say: (object or not, middle x and y in the cell, log size, digit)."""
    grid, digit = np.zeros((5, CELLS, CELLS), np.float32), np.zeros((CELLS, CELLS), np.int64)
    middles = np.asarray(box_convert(boxes, "xyxy", "cxcywh")) / CELL
    for (x, y, w, h), label in zip(middles, classes):
        column, row = int(x), int(y)
        grid[:, row, column] = 1, x - column, y - row, np.log(w), np.log(h)
        digit[row, column] = label
    return grid, digit


def convolution(inputs, outputs, stride=1):
    layer = nn.Conv2d(inputs, outputs, 3, stride, padding=1, bias=False)
    return layer, nn.BatchNorm2d(outputs), nn.SiLU()


def loss(scene, grid, digit):
    """Objectness everywhere; box and class where there is an object. Means over the objects."""
    out = model(scene)
    there, count = grid[:, 0], grid[:, 0].sum()
    objectness = (functional.softplus(out[:, 0]) - there * out[:, 0]).sum() / count
    off = torch.cat([torch.sigmoid(out[:, 1:3]), out[:, 3:5]], dim=1) - grid[:, 1:]
    box = (grid[:, :1] * off**2).sum() / count
    wrong = functional.cross_entropy(out[:, 5:], digit, reduction="none")
    return objectness + 5 * box + (there * wrong).sum() / count


def detect(out, least=0.02):
    """From one scene's output (15, CELLS, CELLS) to boxes, scores and digits, the best first."""
    with np.errstate(over="ignore"):
        sure, x, y = 1 / (1 + np.exp(-out[:3]))
    row, column = np.mgrid[:CELLS, :CELLS]
    w, h = np.exp(np.clip(out[3:5], -2, 2))
    boxes = np.stack([x + column, y + row, w, h], axis=-1).reshape(-1, 4) * CELL
    odds = np.exp(out[5:] - out[5:].max(axis=0)).reshape(10, -1)
    scores = sure.ravel() * odds.max(axis=0) / odds.sum(axis=0)
    boxes, digits = np.asarray(box_convert(boxes, "cxcywh", "xyxy")), odds.argmax(axis=0)
    likely = np.flatnonzero(scores > least)
    kept = likely[batched_nms(boxes[likely], scores[likely], None, 0.4)]
    return boxes[kept], scores[kept], digits[kept]


torch.manual_seed(0)
rng = np.random.default_rng(0)
X, X_test, y, y_test = load_digits(split=True)
learnt = [compose(rng, X, y) for _ in range(SCENES)]
held_out = [compose(rng, X_test, y_test) for _ in range(300)]
scenes = np.stack([scene for scene, _, _ in learnt])
grids, digits = map(np.stack, zip(*(as_grid(boxes, classes) for _, boxes, classes in learnt)))

model = nn.Sequential(
    *convolution(1, 16),
    *convolution(16, 32, stride=2),  # 16 x 16
    *convolution(32, 32),
    *convolution(32, 64, stride=2),  # 8 x 8, a cell each
    *convolution(64, 64),
    *convolution(64, 64),
    nn.Conv2d(64, 5 + 10, 1),
)
optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-3)
steps = EPOCHS * -(-SCENES // BATCH)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, max_lr=8e-3, total_steps=steps)
arrays = [torch.from_numpy(array) for array in (scenes, grids, digits)]
begun = time.perf_counter()
for epoch in range(EPOCHS):
    losses = []
    for rows in torch.randperm(SCENES).split(BATCH):
        optimizer.zero_grad()
        cost = loss(*(array[rows] for array in arrays))
        cost.backward()
        optimizer.step()
        schedule.step()
        losses.append(float(cost.detach()))
    print(f"epoch {epoch + 1}: loss {np.mean(losses):.3f}", flush=True)
print(f"training took {time.perf_counter() - begun:.1f} s")

model.eval()
with torch.no_grad():
    outputs = model(torch.from_numpy(np.stack([scene for scene, _, _ in held_out])))
found = [detect(out) for out in np.asarray(outputs, np.float64)]
precision = mean_average_precision(found, [(boxes, classes) for _, boxes, classes in held_out])

verdict = "passed" if precision >= STATED else "FAILED"
print(f"mAP@0.5 of held-out scenes {precision:.4f}, stated {STATED}: {verdict}")
assert verdict == "passed"
