"""A variational autoencoder draws hand-written digits.

    python docs/examples/vae.py            # a minute or two
    python docs/examples/vae.py --short    # some seconds

Kingma and Welling, "Auto-Encoding Variational Bayes" (2013), conditioned on the digit to draw as in
Sohn et al., "Learning Structured Output Representation using Deep Conditional Generative Models"
(2015). The encoder turns an image into a normal distribution over 8 numbers, the decoder turns a
draw of it, and the digit that it is to be, back into an image.

Are the drawings any good? A classifier that learns from drawings alone must then read real digits
that neither has seen. Writes vae.png: drawings of each digit, and walks from one style to another.
"""

import sys
import time

import matplotlib.pyplot as plt
import numpy as np

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.data import load_digits

SHORT = "--short" in sys.argv
EPOCHS, STATED = (25, 0.85) if SHORT else (200, 0.93)
LATENT, BATCH = 8, 64


class VAE(nn.Module):
    """Encoder and decoder, both told the digit as ten numbers of which one is 1."""

    def __init__(self):
        super().__init__()
        self.look = nn.Sequential(
            nn.Conv2d(1, 16, 3, padding="same"),
            nn.SiLU(),
            nn.Conv2d(16, 32, 3, stride=2, padding=1),  # 4 x 4
            nn.SiLU(),
            nn.Flatten(),
        )
        self.encode = nn.Sequential(nn.Linear(512 + 10, 128), nn.SiLU(), nn.Linear(128, 2 * LATENT))
        self.decode = nn.Sequential(
            nn.Linear(LATENT + 10, 128),
            nn.SiLU(),
            nn.Linear(128, 512),
            nn.SiLU(),
            nn.Unflatten(1, (32, 4, 4)),
            nn.ConvTranspose2d(32, 16, 4, stride=2, padding=1),  # 8 x 8
            nn.SiLU(),
            nn.Conv2d(16, 1, 3, padding="same"),
        )

    def forward(self, image, digit):
        """Images (N, 1, 8, 8), digits (N, 10) to logits of pixels, mean and log variance."""
        found = self.encode(ops.concat([self.look(image), digit], axis=1))
        mean, log_variance = found[:, :LATENT], found[:, LATENT:]
        style = mean + ops.exp(0.5 * log_variance) * ops.normal(mean.shape)
        return self.draw(style, digit), mean, log_variance

    def draw(self, style, digit):
        return self.decode(ops.concat([style, digit], axis=1))


def loss(image, digit):
    """-ELBO in nats an image: what is lost of the pixels, and what the style tells of the image."""
    logits, mean, log_variance = model(image, digit)
    pixels = ops.softplus(logits) - image * logits  # binary cross-entropy of logits
    told = 0.5 * (mean**2 + ops.exp(log_variance) - 1 - log_variance)  # KL from N(0, 1)
    lost, told = ops.mean(ops.sum(pixels, axis=(1, 2, 3))), ops.mean(ops.sum(told, axis=1))
    return lost + told, lost, told


def accuracy_of_learning_from(images, labels):
    """What a fresh classifier reads rightly of the held-out digits."""
    reader = nn.Sequential(
        nn.Conv2d(1, 32, 3, padding="same"),
        nn.BatchNorm2d(32),
        nn.ReLU(),
        nn.MaxPool2d(2),
        nn.Flatten(),
        nn.Linear(512, 10),
    )
    trainer = gp.Trainer(reader, nn.CrossEntropyLoss(), optim.Adam(reader.parameters(), lr=2e-3))
    trainer.fit(images, labels, epochs=15, batch_size=BATCH, verbose=False)
    return trainer.evaluate(X_test.reshape(-1, 1, 8, 8), y_test)["accuracy"]


gp.manual_seed(0)
rng = np.random.default_rng(0)
X, X_test, y, y_test = load_digits(split=True)
images, one_hot = X.reshape(-1, 1, 8, 8), np.eye(10, dtype=np.float32)

model = VAE()
step = gp.compile_step(loss, optim.Adam(model.parameters(), lr=2e-3))
begun = time.perf_counter()
step.run(images, one_hot[y], batch_size=BATCH, epochs=EPOCHS)
print(f"training took {time.perf_counter() - begun:.1f} s")
_, lost, told = step(images[:BATCH], one_hot[y[:BATCH]])
print(f"nats an image: {lost:.1f} of the pixels, {told:.1f} in the style")

draw = gp.compile(lambda style, digit: ops.sigmoid(model.draw(style, digit)))
labels = np.arange(len(images)) % 10  # as many drawings as there are images
drawn = draw(rng.normal(size=(len(images), LATENT)).astype(np.float32), one_hot[labels])
accuracy = accuracy_of_learning_from(drawn, labels)
real = accuracy_of_learning_from(images, y)
print(f"a classifier that learns from the real images instead reads {real:.4f} of them")

# The picture: ten draws of each digit; and one style turning into another, digit by digit.
begin, end = rng.normal(size=(2, 1, LATENT))
way = np.linspace(0, 1, 12)[:, None]
walk = np.tile((1 - way) * begin + way * end, (10, 1)).astype(np.float32)
walked = draw(walk, one_hot[np.repeat(np.arange(10), 12)])
figure, (left, right) = plt.subplots(1, 2, figsize=(9, 4.4), layout="constrained")
for axes, pictures, columns, title in (
    (left, drawn[:100].reshape(10, 10, 1, 8, 8).swapaxes(0, 1), 10, "drawings"),
    (right, walked, 12, "from one style to another"),
):
    tiles = np.pad(pictures.reshape(10, columns, 8, 8), ((0, 0), (0, 0), (1, 1), (1, 1)))
    tiles = tiles.swapaxes(1, 2).reshape(100, 10 * columns)
    axes.imshow(tiles, cmap="gray_r")
    axes.set_title(title)
    axes.axis("off")
figure.savefig("vae.png", dpi=110)

verdict = "passed" if accuracy >= STATED else "FAILED"
print(f"accuracy from drawings alone {accuracy:.4f}, stated {STATED}: {verdict}")
assert verdict == "passed"
