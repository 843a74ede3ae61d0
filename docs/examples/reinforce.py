"""Reinforcement learning from the beginning: policy gradients with a baseline on CartPole-v1.

    python docs/examples/reinforce.py            # five seeds
    python docs/examples/reinforce.py --short    # one

Williams, "Simple statistical gradient-following algorithms for connectionist reinforcement
learning" (1992): make what was done likelier, as much as it went better than expected. What was
expected is the guess of a second network, the baseline. Each batch of whole episodes is used for
one update of the policy alone, so this takes several times the steps of docs/examples/ppo.py.

Two programs share the parameters: `act` draws actions for sixteen environments at once, `learn`
makes an update. Solved: the last 100 episodes lasted 475 steps in the mean. Writes reinforce.png.
"""

import sys
import time

import gymnasium
import matplotlib.pyplot as plt
import numpy as np

import gpubp as gp
from gpubp import nn, ops, optim

SHORT = "--short" in sys.argv
SEEDS, SOLVED, STATED = (1, 100, 80_000) if SHORT else (5, 475, 500_000)  # STATED: steps
ENVS, LONGEST, DISCOUNT, RATE = 16, 500, 0.99, 5e-3


def mlp(outputs):
    """From the four numbers that CartPole shows of itself."""
    return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, outputs))


class Agent:
    """A policy, its baseline, and the programs that use them."""

    def __init__(self):
        self.policy, self.baseline = mlp(2), mlp(1)
        parameters = [*self.policy.parameters(), *self.baseline.parameters()]
        self.optimizer = optim.Adam(parameters, lr=RATE)
        self.act = gp.compile(self._act)
        self.learn = gp.compile_step(self._loss, self.optimizer, max_grad_norm=1.0)

    def _act(self, seen):
        """Draw actions: the largest of logits with Gumbel noise is a draw from their softmax."""
        logits = self.policy(seen)
        return ops.argmax(logits - ops.log(-ops.log(ops.uniform(logits.shape))), axis=1)

    def _loss(self, seen, action, to_come, lived):
        """For steps (ENVS * LONGEST); `lived` is 0 for those after the end of an episode."""
        expected = self.baseline(seen)[:, 0]
        better = ops.stop_gradient(to_come - expected)
        surprise = ops.softmax_cross_entropy(self.policy(seen), action)  # -log of its probability
        each = better * surprise + 0.5 * (expected - to_come) ** 2
        return ops.sum(lived * each) / ops.sum(lived)


def play(envs, agent, seed):
    """One episode in each environment: states, actions, whether still alive; (LONGEST, ENVS)."""
    states = np.zeros((LONGEST, ENVS, 4), np.float32)
    actions = np.zeros((LONGEST, ENVS), np.int64)
    lived = np.zeros((LONGEST, ENVS), np.float32)
    seen, _ = envs.reset(seed=seed)
    alive = np.ones(ENVS, bool)
    for t in range(LONGEST):
        states[t], actions[t], lived[t] = seen, agent.act(seen), alive
        seen, _, fell, late, _ = envs.step(actions[t])
        alive &= ~(fell | late)
        if not alive.any():
            break
    return states, actions, lived


def rewards_to_come(lived):
    """1 for each step, discounted, in tens, so that the baseline's numbers are small."""
    found, later = np.zeros_like(lived), 0.0
    for t in reversed(range(len(lived))):
        found[t] = later = lived[t] + DISCOUNT * later
    return found / 10


def train(seed):
    """Returns (steps after which it was solved, or None; [steps, mean length] of each round)."""
    gp.manual_seed(seed)
    agent = Agent()
    # An environment whose episode has ended goes on with others, which are not looked at.
    envs = gymnasium.make_vec("CartPole-v1", ENVS, "sync")
    steps, lengths = 0, []
    curve: list = []
    while steps < STATED:
        states, actions, lived = play(envs, agent, seed + 1000 * len(curve))
        to_come = rewards_to_come(lived)
        arrays = states.reshape(-1, 4), actions.ravel(), to_come.ravel(), lived.ravel()
        agent.learn(*arrays)
        steps += int(lived.sum())
        lengths.extend(lived.sum(axis=0))
        curve.append((steps, np.mean(lengths[-100:])))
        if len(lengths) >= 100 and curve[-1][1] >= SOLVED:
            return steps, curve
    return None, curve


begun = time.perf_counter()
runs = [train(seed) for seed in range(SEEDS)]
took, steps = time.perf_counter() - begun, sum(solved or STATED for solved, _ in runs)
print(f"training took {took:.1f} s, {steps / took:,.0f} steps a second")

for seed, (solved, curve) in enumerate(runs):
    print(f"seed {seed}: {f'solved in {solved} steps' if solved else 'not solved'}")
    plt.plot(*np.transpose(curve), label=f"seed {seed}")
plt.axhline(SOLVED, color="k", lw=0.8, ls="--")
plt.xlabel("steps in all environments")
plt.ylabel("length of an episode, mean of the last 100")
plt.legend()
plt.savefig("reinforce.png", dpi=110)

worst = max(solved or np.inf for solved, _ in runs)
verdict = "passed" if worst <= STATED else "FAILED"
print(f"steps until {SOLVED}, worst of {SEEDS}: {worst}, stated {STATED}: {verdict}")
assert verdict == "passed"
