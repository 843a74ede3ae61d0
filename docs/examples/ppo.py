"""Reinforcement learning: proximal policy optimisation balances a pole (Gymnasium's CartPole-v1).

    python docs/examples/ppo.py            # five seeds
    python docs/examples/ppo.py --short    # one

Schulman et al., "Proximal Policy Optimization Algorithms" (2017); advantages by Schulman et al.,
"High-Dimensional Continuous Control Using Generalized Advantage Estimation" (2015).

Two programs share the parameters: `act` draws actions for eight environments at once, `learn` makes
all updates on what they have lived through without going back to Python. The task is solved when
the last 100 episodes lasted 475 steps in the mean. Writes ppo.png: how long episodes lasted.
"""

import sys
import time

import gymnasium
import matplotlib.pyplot as plt
import numpy as np

import gpubp as gp
from gpubp import nn, ops, optim

SHORT = "--short" in sys.argv
SEEDS, SOLVED, STATED = (1, 195, 60_000) if SHORT else (5, 475, 150_000)  # STATED: steps
ENVS, LENGTH, EPOCHS, BATCH = 8, 32, 20, 256
DISCOUNT, LAMBDA, CLIP, RATE = 0.98, 0.8, 0.2, 1e-3


def mlp(outputs):
    """From the four numbers that CartPole shows of itself."""
    return nn.Sequential(
        nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs)
    )


class Agent:
    """A policy, a guess of what is still to come (the critic), and the programs that use them."""

    def __init__(self):
        self.policy, self.critic = mlp(2), mlp(1)
        parameters = [*self.policy.parameters(), *self.critic.parameters()]
        self.optimizer = optim.Adam(parameters, lr=RATE)
        self.act = gp.compile(self._act)
        self.value = gp.compile(lambda seen: self.critic(seen)[:, 0])
        self.learn = gp.compile_step(self._loss, self.optimizer, max_grad_norm=0.5)

    def _act(self, seen):
        """Draw actions: the largest of logits with Gumbel noise is a draw from their softmax."""
        logits = self.policy(seen)
        noise = -ops.log(-ops.log(ops.uniform(logits.shape)))
        action = ops.argmax(logits + noise, axis=1)
        return action, self._log_probability(logits, action), self.critic(seen)[:, 0]

    def _log_probability(self, logits, action):
        return -ops.softmax_cross_entropy(logits, action)

    def _loss(self, seen, action, before, advantage, target):
        """The clipped surrogate, and the critic's squared error."""
        ratio = ops.exp(self._log_probability(self.policy(seen), action) - before)
        gain = ops.minimum(ratio * advantage, ops.clip(ratio, 1 - CLIP, 1 + CLIP) * advantage)
        return 0.5 * ops.mean((self.critic(seen)[:, 0] - target) ** 2) - ops.mean(gain)


def advantages(rewards, values, following, ends):
    """How much better than the critic's guess things went; arrays of (LENGTH, ENVS)."""
    surprise = rewards + DISCOUNT * following - values
    found, later = np.zeros_like(surprise), 0.0
    for t in reversed(range(LENGTH)):
        found[t] = later = surprise[t] + DISCOUNT * LAMBDA * (1 - ends[t]) * later
    return found


def live(envs, agent, seen, lengths, finished):
    """LENGTH steps in all environments; returns what `learn` takes, and what is seen at last."""
    rows = []
    for _ in range(LENGTH):
        action, log_probability, value = agent.act(seen)
        now, reward, fell, late, info = envs.step(action)
        ends = fell | late
        last = now.copy()  # where an episode has ended, `now` is already the next one's
        if ends.any():
            last[ends] = np.stack(info["final_obs"][ends])
        rows.append((seen, action, log_probability, value, reward, ends, last, fell))
        lengths += 1
        finished.extend(lengths[ends])
        lengths[ends] = 0
        seen = now
    states, actions, before, values, rewards, ends, last, fell = map(np.stack, zip(*rows))
    # A pole that has fallen has nothing to come; one that stood to the end of the time has.
    following = agent.value(last.reshape(-1, 4)).reshape(fell.shape) * ~fell
    gains = advantages(rewards, values, following, ends)
    scaled = (gains - gains.mean()) / (gains.std() + 1e-8)
    arrays = actions, before, scaled, gains + values
    wanted = (np.int64, np.float32, np.float32, np.float32)
    flat = [array.ravel().astype(dtype) for array, dtype in zip(arrays, wanted)]
    return (states.reshape(-1, 4), *flat), seen


def train(seed):
    """Returns (steps after which it was solved, or None; lengths of all episodes)."""
    gp.manual_seed(seed)
    agent = Agent()
    same_step = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}
    envs = gymnasium.make_vec("CartPole-v1", ENVS, "sync", vector_kwargs=same_step)
    seen, _ = envs.reset(seed=seed)
    lengths = np.zeros(ENVS, int)
    finished: list = []
    rounds = STATED // (LENGTH * ENVS)
    for done in range(rounds):
        lived, seen = live(envs, agent, seen, lengths, finished)
        agent.optimizer.param_groups[0]["lr"] = RATE * (1 - done / rounds)
        agent.learn.run(*lived, batch_size=BATCH, epochs=EPOCHS)
        if len(finished) >= 100 and np.mean(finished[-100:]) >= SOLVED:
            return (done + 1) * LENGTH * ENVS, finished
    return None, finished


begun = time.perf_counter()
runs = [train(seed) for seed in range(SEEDS)]
took, steps = time.perf_counter() - begun, sum(solved or STATED for solved, _ in runs)
print(f"training took {took:.1f} s, {steps / took:,.0f} steps a second")

for seed, (solved, finished) in enumerate(runs):
    print(f"seed {seed}: {f'solved in {solved} steps' if solved else 'not solved'}")
    smooth = np.convolve(finished, np.ones(100) / 100, "valid")
    plt.plot(np.cumsum(finished)[99:], smooth, label=f"seed {seed}")
plt.axhline(SOLVED, color="k", lw=0.8, ls="--")
plt.xlabel("steps in all environments")
plt.ylabel("length of an episode, mean of the last 100")
plt.legend()
plt.savefig("ppo.png", dpi=110)

worst = max(solved or np.inf for solved, _ in runs)
verdict = "passed" if worst <= STATED else "FAILED"
print(f"steps until {SOLVED}, worst of {SEEDS}: {worst}, stated {STATED}: {verdict}")
assert verdict == "passed"
