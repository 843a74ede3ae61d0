"""A GAN on points in the plane: two compiled steps over shared parameters.

Goodfellow et al., "Generative Adversarial Nets" (2014), with the non-saturating generator loss.
"""

import numpy as np

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.optim import lr_scheduler

BATCH, STEPS = 128, 1000
MEAN, STD = np.array([1.5, -1.0]), np.array([0.6, 0.3])


def mlp(inputs, outputs):
    """Two hidden layers of 24."""
    return nn.Sequential(
        nn.Linear(inputs, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, outputs)
    )


gp.manual_seed(0)
generator, critic = mlp(2, 2), mlp(2, 1)


def critic_loss(real, noise):
    """-log D(real) - log(1 - D(G(noise))), D given as a logit."""
    fake = generator(noise)
    return ops.mean(ops.softplus(-critic(real))) + ops.mean(ops.softplus(critic(fake)))


def generator_loss(noise):
    """-log D(G(noise))"""
    return ops.mean(ops.softplus(-critic(generator(noise))))


def step_of(loss, network, lr):
    """A step that updates one network and reads the live parameters of the other."""
    optimizer = optim.Adam(network.parameters(), lr=lr, betas=(0.5, 0.9))
    # The two chase each other round the solution; a shrinking rate lets them settle.
    shrinking = lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total_iters=STEPS)
    return gp.compile_step(loss, optimizer, scheduler=shrinking)


train_critic = step_of(critic_loss, critic, lr=1e-2)
train_generator = step_of(generator_loss, generator, lr=2e-3)

rng = np.random.default_rng(0)
for _ in range(STEPS):
    real = (MEAN + STD * rng.normal(size=(BATCH, 2))).astype(np.float32)
    train_critic(real, rng.normal(size=(BATCH, 2)))
    train_generator(rng.normal(size=(BATCH, 2)))

samples = generator(rng.normal(size=(4000, 2)).astype(np.float32))
print("mean", samples.mean(axis=0).round(2), "expected", MEAN)
print("std ", samples.std(axis=0).round(2), "expected", STD)
np.testing.assert_allclose(samples.mean(axis=0), MEAN, atol=0.15)
np.testing.assert_allclose(samples.std(axis=0), STD, atol=0.15)
