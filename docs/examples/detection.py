"""Object detection: where in a scene are digits, and which ones?

    python docs/examples/detection.py            # some minutes
    python docs/examples/detection.py --short    # some seconds

Scenes of 32 x 32 pixels hold one to four real digits of 8 x 8 to 12 x 12 pixels, and noise. A
one-stage detector after Redmon et al., "You Only Look Once" (2016): each of 8 x 8 cells says
whether the middle of an object lies in it, where exactly, how large it is, and what it is. Of boxes
that overlap the best is kept. Held-out scenes are composed of digits that were never learnt from.
Writes detection.png: held-out scenes with what was found.
"""

import sys
import time

import matplotlib.pyplot as plt
import numpy as np
from matplotlib.patches import Rectangle

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.data import batched_nms, box_convert, load_digits
from gpubp.optim import lr_scheduler
from gpubp.train import mean_average_precision

SHORT = "--short" in sys.argv
SCENES, EPOCHS, STATED = (1500, 6, 0.4) if SHORT else (4000, 14, 0.85)
SIZE, CELLS, BATCH = 32, 8, 64
CELL = SIZE // CELLS


def compose(rng, digits, labels):
    """A scene (1, SIZE, SIZE), its boxes (left, top, right, bottom), and their digits."""
    scene = rng.uniform(0, 0.25, (SIZE, SIZE))
    boxes: list = []
    classes: list[int] = []
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
    there, count = grid[:, 0], ops.sum(grid[:, 0])
    object_logit = out[:, 0]
    objectness = ops.sum(ops.softplus(object_logit) - there * object_logit) / count
    middle = ops.sigmoid(out[:, 1:3])
    off = ops.concat([middle, out[:, 3:5]], axis=1) - grid[:, 1:]
    box = ops.sum(grid[:, :1] * off**2) / count
    scores = ops.transpose(out[:, 5:], (0, 2, 3, 1))  # (N, CELLS, CELLS, 10)
    wrong = ops.softmax_cross_entropy(ops.reshape(scores, (-1, 10)), ops.reshape(digit, (-1,)))
    label = ops.sum(ops.reshape(there, (-1,)) * wrong) / count
    return objectness + 5 * box + label


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


gp.manual_seed(0)
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
optimizer = optim.AdamW(model.parameters(), lr=3e-3, weight_decay=1e-3)
steps = EPOCHS * -(-SCENES // BATCH)
schedule = lr_scheduler.OneCycleLR(optimizer, max_lr=8e-3, total_steps=steps)
step = gp.compile_step(loss, optimizer, scheduler=schedule)
begun = time.perf_counter()
for epoch in range(EPOCHS):
    losses = step.run(scenes, grids, digits, batch_size=BATCH)
    print(f"epoch {epoch + 1}: loss {losses.mean():.3f}", flush=True)
print(f"training took {time.perf_counter() - begun:.1f} s")

model.eval()
outputs = gp.compile(model)(np.stack([scene for scene, _, _ in held_out]))
found = [detect(out) for out in np.asarray(outputs, np.float64)]
precision = mean_average_precision(found, [(boxes, classes) for _, boxes, classes in held_out])

figure, panels = plt.subplots(2, 5, figsize=(10, 4.3), layout="constrained")
for axes, (scene, _, _), (boxes, scores, classes) in zip(panels.flat, held_out, found):
    axes.imshow(scene[0], cmap="gray_r", extent=(0, SIZE, SIZE, 0))
    axes.axis("off")
    for (left, top, right, bottom), score, digit in zip(boxes, scores, classes):
        if score > 0.3:
            axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=0, ec="C1"))
            axes.text(left, top, f"{digit}: {score:.2f}", color="C3", fontsize=8, va="bottom")
figure.savefig("detection.png", dpi=110)

verdict = "passed" if precision >= STATED else "FAILED"
print(f"mAP@0.5 of held-out scenes {precision:.4f}, stated {STATED}: {verdict}")
assert verdict == "passed"
