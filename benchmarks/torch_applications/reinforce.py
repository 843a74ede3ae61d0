"""The twin of docs/examples/reinforce.py in PyTorch."""

import sys
import time

import gymnasium
import numpy as np
import torch
from torch import nn

SHORT = "--short" in sys.argv
SEEDS, SOLVED, STATED = (1, 100, 80_000) if SHORT else (5, 475, 500_000)  # STATED: steps
ENVS, LONGEST, DISCOUNT, RATE = 16, 500, 0.99, 5e-3


def mlp(outputs):
    """From the four numbers that CartPole shows of itself."""
    return nn.Sequential(nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, outputs))


class Agent:
    """A policy and its baseline."""

    def __init__(self):
        self.policy, self.baseline = mlp(2), mlp(1)
        self.parameters = [*self.policy.parameters(), *self.baseline.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=RATE)

    @torch.no_grad()
    def act(self, seen):
        logits = self.policy(torch.from_numpy(seen))
        return torch.distributions.Categorical(logits=logits).sample().numpy()

    def learn(self, *arrays):
        """One update; for steps (ENVS * LONGEST), `lived` is 0 after the end of an episode."""
        seen, action, to_come, lived = map(torch.from_numpy, arrays)
        expected = self.baseline(seen)[:, 0]
        better = (to_come - expected).detach()
        surprise = nn.functional.cross_entropy(self.policy(seen), action, reduction="none")
        each = better * surprise + 0.5 * (expected - to_come) ** 2
        self.optimizer.zero_grad()
        ((lived * each).sum() / lived.sum()).backward()
        nn.utils.clip_grad_norm_(self.parameters, 1.0)
        self.optimizer.step()


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
    torch.manual_seed(seed)
    agent = Agent()
    # An environment whose episode has ended goes on with others, which are not looked at.
    envs = gymnasium.make_vec("CartPole-v1", ENVS, "sync")
    steps, lengths, curve = 0, [], []
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

for seed, (solved, _) in enumerate(runs):
    print(f"seed {seed}: {f'solved in {solved} steps' if solved else 'not solved'}")

worst = max(solved or np.inf for solved, _ in runs)
verdict = "passed" if worst <= STATED else "FAILED"
print(f"steps until {SOLVED}, worst of {SEEDS}: {worst}, stated {STATED}: {verdict}")
assert verdict == "passed"
