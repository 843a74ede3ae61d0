"""A small diffusion model turns noise into hand-written digits, a hundred steps at a time.

    python docs/examples/diffusion.py            # some minutes
    python docs/examples/diffusion.py --short    # some seconds

Ho, Jain and Abbeel, "Denoising Diffusion Probabilistic Models" (2020), with the cosine schedule of
Nichol and Dhariwal, "Improved Denoising Diffusion Probabilistic Models" (2021). A network learns to
tell the noise in a noisy digit. To draw, it begins with noise alone and takes some of it away, a
little at a time: that loop is gp.scan, so that drawing is one program, too.

Are the drawings any good? A classifier that learns from drawings alone must then read real digits
that neither has seen. Writes diffusion.png: drawings of each digit, and how they come about.
"""

import sys
import time

import matplotlib.pyplot as plt
import numpy as np

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.data import load_digits

SHORT = "--short" in sys.argv
EPOCHS, DRAWN, STATED = (8, 300, 0.5) if SHORT else (80, 1437, 0.93)
STEPS, WIDTH, BATCH = 100, 32, 64

# How much of the digit's variance is left after each step; the rest is noise.
turn = np.cos((np.arange(STEPS + 1) / STEPS + 0.008) / 1.008 * np.pi / 2) ** 2
keep = np.clip(turn[1:] / turn[:-1], 1e-3, 1).astype(np.float32)  # of each step (1 - beta)
left = np.cumprod(keep)


class Block(nn.Module):
    """Two convolutions beside a shortcut; what is told (step and digit) is added in between."""

    def __init__(self, width):
        super().__init__()
        self.first = nn.Sequential(
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)
        )
        self.tell = nn.Linear(64, width)
        self.second = nn.Sequential(
            nn.GroupNorm(8, width), nn.SiLU(), nn.Conv2d(width, width, 3, padding=1)
        )

    def forward(self, x, told):
        return x + self.second(self.first(x) + self.tell(told)[:, :, None, None])


class Denoiser(nn.Module):
    """From noisy images (N, 1, 8, 8), steps (N,) and digits (N,) to the noise; a little U-net."""

    def __init__(self):
        super().__init__()
        self.of_step, self.of_digit = nn.Embedding(STEPS, 64), nn.Embedding(10, 64)
        self.told = nn.Sequential(nn.Linear(64, 64), nn.SiLU())
        self.enter = nn.Conv2d(1, WIDTH, 3, padding=1)
        self.fine, self.last = Block(WIDTH), Block(WIDTH)
        self.down = nn.Conv2d(WIDTH, 2 * WIDTH, 4, stride=2, padding=1)  # 4 x 4
        self.coarse = Block(2 * WIDTH)
        self.up = nn.ConvTranspose2d(2 * WIDTH, WIDTH, 4, stride=2, padding=1)
        self.leave = nn.Sequential(
            nn.GroupNorm(8, WIDTH), nn.SiLU(), nn.Conv2d(WIDTH, 1, 3, padding=1)
        )

    def forward(self, image, step, digit):
        told = self.told(self.of_step(step) + self.of_digit(digit))
        fine = self.fine(self.enter(image), told)
        coarse = self.coarse(self.down(fine), told)
        return self.leave(self.last(fine + self.up(coarse), told))


def loss(image, digit):
    """The squared error of the noise that the network sees, at a step drawn for each image."""
    count = image.shape[0]
    step = ops.astype(ops.uniform((count,)) * STEPS, "int64")
    share = ops.reshape(ops.gather(left, step), (count, 1, 1, 1))
    noise = ops.normal(image.shape)
    noisy = ops.sqrt(share) * image + ops.sqrt(1 - share) * noise
    return ops.mean((model(noisy, step, digit) - noise) ** 2)


def draw(noise, digit):
    """From noise (N, 1, 8, 8) to images of these digits (N,), and all images on the way."""

    def body(image, t):
        step, kept, rest = t
        told = model(image, ops.zeros_like(digit) + step, digit)
        clean = ops.clip((image - ops.sqrt(1 - rest) * told) / ops.sqrt(rest), -1, 1)
        before = rest / kept  # what was left one step earlier
        mean = ops.sqrt(before) * (1 - kept) * clean + ops.sqrt(kept) * (1 - before) * image
        spread = ops.sqrt((1 - kept) * (1 - before) / (1 - rest))
        image = mean / (1 - rest) + spread * ops.normal(image.shape)
        return image, image

    return gp.scan(body, noise, (np.arange(STEPS), keep, left), reverse=True)


def accuracy_of_learning_from(images, labels):
    """What a fresh classifier reads rightly of the held-out digits."""
    layers = nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)
    reader = nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))
    trainer = gp.Trainer(reader, nn.CrossEntropyLoss(), optim.Adam(reader.parameters(), lr=2e-3))
    trainer.fit(images, labels, epochs=15, batch_size=BATCH, verbose=False)
    return trainer.evaluate(2 * X_test.reshape(-1, 1, 8, 8) - 1, y_test)["accuracy"]


gp.manual_seed(0)
X, X_test, y, y_test = load_digits(split=True)
images = 2 * X.reshape(-1, 1, 8, 8) - 1  # from -1 to 1, as noise is on both sides of 0

model = Denoiser()
average = optim.EMA(model.parameters(), decay=0.99)  # draws better than the last weights
step = gp.compile_step(loss, optim.Adam(model.parameters(), lr=1e-3), ema=average)
begun = time.perf_counter()
losses = step.run(images, y, batch_size=BATCH, epochs=EPOCHS)
print(f"training took {time.perf_counter() - begun:.1f} s")
print(f"squared error of the noise: {losses[:20].mean():.3f} at first, {losses[-20:].mean():.3f}")

labels = np.arange(DRAWN) % 10
noise = np.random.default_rng(0).normal(size=(DRAWN, 1, 8, 8)).astype(np.float32)
with average.apply():
    drawn, way = gp.compile(draw)(noise, labels)
accuracy = accuracy_of_learning_from(np.clip(drawn, -1, 1), labels)

figure, panels = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
by_digit = drawn[:100].reshape(10, 10, 8, 8).swapaxes(0, 1)
on_the_way = np.stack([way[STEPS - 1 - 11 * i, :10, 0] for i in range(10)], axis=1)
for axes, rows, title in zip(panels, (by_digit, on_the_way), ("drawings", "from noise to digits")):
    tiles = np.pad(rows, ((0, 0), (0, 0), (1, 1), (1, 1)), constant_values=-1)
    axes.imshow(tiles.swapaxes(1, 2).reshape(100, 100), cmap="gray_r", vmin=-1, vmax=1)
    axes.set_title(title)
    axes.axis("off")
figure.savefig("diffusion.png", dpi=110)

verdict = "passed" if accuracy >= STATED else "FAILED"
print(f"accuracy from drawings alone {accuracy:.4f}, stated {STATED}: {verdict}")
assert verdict == "passed"
