"""Image classification: a small convolutional network with BatchNorm reads hand-written digits.

    python docs/examples/image_classification.py            # a minute
    python docs/examples/image_classification.py --short    # some seconds

1,437 images of 8 x 8 pixels to learn from, 360 held out. Each image is turned, moved and scaled a
little at random whenever it is seen, inside the compiled step: what a network has learnt by heart
would not help it then. Writes image_classification.png: the digits it got wrong, and what it
confuses with what.
"""

import sys
import time

import matplotlib.pyplot as plt
import numpy as np

import gpubp as gp
from gpubp import nn, optim
from gpubp.data import load_digits
from gpubp.optim import lr_scheduler

SHORT = "--short" in sys.argv
EPOCHS, BATCH, STATED = (10, 64, 0.97) if SHORT else (60, 64, 0.985)

gp.manual_seed(0)
X, X_test, y, y_test = load_digits(split=True)
images, test_images = X.reshape(-1, 1, 8, 8), X_test.reshape(-1, 1, 8, 8)


def convolution(inputs, outputs):
    """3 x 3, normalised over the batch. BatchNorm adds a bias of its own."""
    return (
        nn.Conv2d(inputs, outputs, 3, padding="same", bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


model = nn.Sequential(
    nn.RandomAffine(12, translate=(0.1, 0.1), scale=(0.9, 1.1), interpolation="bilinear"),
    *convolution(1, 32),
    *convolution(32, 32),
    nn.MaxPool2d(2),  # 4 x 4
    *convolution(32, 64),
    nn.MaxPool2d(2),  # 2 x 2
    nn.Flatten(),
    nn.Dropout(0.3),
    nn.Linear(256, 10),
)
print(nn.summary(model, (BATCH, 1, 8, 8)))

# The rate rises and falls within the run, update by update, in the program.
optimizer = optim.AdamW(model.parameters(), lr=1e-3, weight_decay=1e-3)
steps = EPOCHS * -(-len(images) // BATCH)
schedule = lr_scheduler.OneCycleLR(optimizer, max_lr=5e-3, total_steps=steps)
trainer = gp.Trainer(
    model, nn.CrossEntropyLoss(), optimizer, scheduler=schedule, scheduler_every="step"
)
begun = time.perf_counter()
trainer.fit(images, y, epochs=EPOCHS, batch_size=BATCH, verbose=0)
print(f"training took {time.perf_counter() - begun:.1f} s")

logits = trainer.predict(test_images)
chosen = logits.argmax(axis=1)
accuracy = float(np.mean(chosen == y_test))

# The picture: every mistake with (right answer, given answer), and the table of confusions.
wrong = np.flatnonzero(chosen != y_test)[:8]
figure = plt.figure(figsize=(9, 4), layout="constrained")
left, right = figure.subfigures(1, 2)
left.suptitle(f"{np.sum(chosen != y_test)} of {len(y_test)} are wrong")
for axes in (panels := left.subplots(2, 4)).flat:
    axes.axis("off")
for axes, i in zip(panels.flat, wrong):
    axes.imshow(X_test[i].reshape(8, 8), cmap="gray_r")
    axes.set_title(f"{y_test[i]}, read as {chosen[i]}", fontsize=9)
table = np.zeros((10, 10), int)
np.add.at(table, (y_test, chosen), 1)
axes = right.subplots()
axes.imshow(np.sqrt(table), cmap="Blues")
for (row, column), count in np.ndenumerate(table):
    if count:
        axes.text(column, row, count, ha="center", va="center", color="w" if count > 9 else "k")
axes.set(xticks=range(10), yticks=range(10), xlabel="read as", ylabel="digit")
figure.savefig("image_classification.png", dpi=110)

verdict = "passed" if accuracy >= STATED else "FAILED"
print(f"held-out accuracy {accuracy:.4f}, stated {STATED}: {verdict}")
assert verdict == "passed"
