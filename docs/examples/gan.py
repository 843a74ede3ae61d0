"""A convolutional GAN draws hand-written digits: two networks, each of which is the other's task.

    python docs/examples/gan.py            # some minutes
    python docs/examples/gan.py --short    # some seconds

Goodfellow et al., "Generative Adversarial Nets" (2014); convolutions as in Radford, Metz and
Chintala, "Unsupervised Representation Learning with Deep Convolutional GANs" (2015), told the digit
as in Mirza and Osindero, "Conditional Generative Adversarial Nets" (2014). The loss is the hinge of
Lim and Ye, "Geometric GAN" (2017). (docs/examples/gan_2d.py is a smaller one, on points.)

Are the drawings any good? A classifier that learns from drawings alone must then read real digits
that neither has seen. Writes gan.png: drawings beside real digits.
"""

import sys
import time

import matplotlib.pyplot as plt
import numpy as np

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.data import load_digits

SHORT = "--short" in sys.argv
EPOCHS, STATED = (16, 0.5) if SHORT else (100, 0.9)
NOISE, BATCH = 32, 64


class Generator(nn.Module):
    """Noise (N, 32) and digits (N, 10) to images (N, 1, 8, 8) in [0, 1]."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(NOISE + 10, 64 * 4, bias=False),
            nn.Unflatten(1, (64, 2, 2)),
            nn.BatchNorm2d(64),
            nn.ReLU(),
            nn.ConvTranspose2d(64, 32, 4, stride=2, padding=1, bias=False),  # 4 x 4
            nn.BatchNorm2d(32),
            nn.ReLU(),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1, bias=False),  # 8 x 8
            nn.BatchNorm2d(16),
            nn.ReLU(),
            nn.Conv2d(16, 1, 3, padding=1),
            nn.Sigmoid(),
        )

    def forward(self, noise, digit):
        return self.layers(ops.concat([noise, digit], axis=1))


class Critic(nn.Module):
    """Images and digits to one number each: large for real ones. The digit is ten more channels."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1 + 10, 32, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(32, 64, 4, stride=2, padding=1),  # 4 x 4
            nn.LeakyReLU(0.2),
            nn.Conv2d(64, 64, 4, stride=2, padding=1),  # 2 x 2
            nn.LeakyReLU(0.2),
            nn.Flatten(),
            nn.Dropout(0.3),  # few images: it must not learn them by heart
            nn.Linear(256, 1),
        )

    def forward(self, image, digit):
        planes = ops.broadcast_to(digit[:, :, None, None], (*digit.shape, 8, 8))
        return self.layers(ops.concat([image, planes], axis=1))


def critic_loss(image, digit):
    """Real ones above 1, drawn ones below -1. Drawings are of the same digits."""
    drawn = generator(ops.normal((image.shape[0], NOISE)), digit)
    real, false = critic(image, digit), critic(drawn, digit)
    return ops.mean(ops.relu(1 - real)) + ops.mean(ops.relu(1 + false))


def generator_loss(image, digit):
    """The higher the critic rates the drawings the better."""
    return -ops.mean(critic(generator(ops.normal((image.shape[0], NOISE)), digit), digit))


def accuracy_of_learning_from(images, labels):
    """What a fresh classifier reads rightly of the held-out digits."""
    layers = nn.Conv2d(1, 32, 3, padding=1), nn.BatchNorm2d(32), nn.ReLU(), nn.MaxPool2d(2)
    reader = nn.Sequential(*layers, nn.Flatten(), nn.Linear(512, 10))
    trainer = gp.Trainer(reader, nn.CrossEntropyLoss(), optim.Adam(reader.parameters(), lr=2e-3))
    trainer.fit(images, labels, epochs=15, batch_size=BATCH, verbose=False)
    return trainer.evaluate(X_test.reshape(-1, 1, 8, 8), y_test)["accuracy"]


gp.manual_seed(0)
rng = np.random.default_rng(0)
X, X_test, y, y_test = load_digits(split=True)
images, one_hot = X.reshape(-1, 1, 8, 8), np.eye(10, dtype=np.float32)

generator, critic = Generator(), Critic()
average = optim.EMA(generator.parameters(), decay=0.99)  # the two circle; the average does not
betas = (0.5, 0.9)
train_critic = gp.compile_step(critic_loss, optim.Adam(critic.parameters(), lr=1e-3, betas=betas))
train_generator = gp.compile_step(
    generator_loss, optim.Adam(generator.parameters(), lr=1e-3, betas=betas), ema=average
)
begun = time.perf_counter()
for _ in range(EPOCHS):
    for rows in np.array_split(rng.permutation(len(images)), len(images) // BATCH):
        train_critic(images[rows], one_hot[y[rows]])
        train_generator(images[rows], one_hot[y[rows]])
print(f"training took {time.perf_counter() - begun:.1f} s")

labels = np.arange(len(images)) % 10
noise = rng.normal(size=(len(images), NOISE)).astype(np.float32)
with average.apply():  # BatchNorm stays in train mode: the batch is large, and has all digits
    drawn = gp.compile(generator)(noise, one_hot[labels])
accuracy = accuracy_of_learning_from(drawn, labels)

figure, panels = plt.subplots(1, 2, figsize=(9, 4.6), layout="constrained")
real = np.stack([images[y == digit][:10, 0] for digit in range(10)])
by_digit = drawn[:100].reshape(10, 10, 8, 8).swapaxes(0, 1)
for axes, rows, title in zip(panels, (by_digit, real), ("drawings", "real digits")):
    tiles = np.pad(rows, ((0, 0), (0, 0), (1, 1), (1, 1)))
    axes.imshow(tiles.swapaxes(1, 2).reshape(100, 100), cmap="gray_r")
    axes.set_title(title)
    axes.axis("off")
figure.savefig("gan.png", dpi=110)

verdict = "passed" if accuracy >= STATED else "FAILED"
print(f"accuracy from drawings alone {accuracy:.4f}, stated {STATED}: {verdict}")
assert verdict == "passed"
