"""The twin of docs/examples/dqn.py in PyTorch."""

import sys
import time

import gymnasium
import numpy as np
import torch
from torch import nn

from gpubp.data import ReplayBuffer

SHORT = "--short" in sys.argv
SEEDS, SOLVED, STATED = (1, 200, 40_000) if SHORT else (5, 100, 100_000)  # STATED: steps
LAST = 20 if SHORT else 100  # episodes whose mean counts
ENVS, BATCH, DISCOUNT = 8, 128, 0.99
EVERY, UPDATES, LAG = 4, 32, 512  # every 4 steps of all environments 32 updates; copy after 512
FIRST, SETTLED, CURIOUS = 1000, 12_000, 0.01  # when to learn from, and to be least curious


def mlp():
    """From the six numbers that Acrobot shows of itself to the worth of its three actions."""
    return nn.Sequential(
        nn.Linear(6, 128), nn.ReLU(), nn.Linear(128, 128), nn.ReLU(), nn.Linear(128, 3)
    )


class Agent:
    """The network and its copy."""

    def __init__(self):
        self.network, self.copy = mlp(), mlp()
        self.copy.load_state_dict(self.network.state_dict())
        self.optimizer = torch.optim.Adam(self.network.parameters(), lr=1e-3)

    @torch.no_grad()
    def worth(self, seen):
        return self.network(torch.from_numpy(seen)).numpy()

    def loss(self, seen, action, reward, following, end):
        """The network chooses what to do next, its copy says what that is worth."""
        with torch.no_grad():
            best = self.network(following).argmax(1, keepdim=True)
            to_come = self.copy(following).gather(1, best)[:, 0]
        found = self.network(seen).gather(1, action[:, None])[:, 0]
        target = reward + DISCOUNT * (1 - end) * to_come
        return nn.functional.smooth_l1_loss(found, target)

    def learn(self, *arrays):
        """As many updates as there are batches."""
        arrays = [torch.from_numpy(array) for array in arrays]
        for rows in torch.randperm(len(arrays[0])).split(BATCH):
            self.optimizer.zero_grad()
            self.loss(*(array[rows] for array in arrays)).backward()
            nn.utils.clip_grad_norm_(self.network.parameters(), 10.0)
            self.optimizer.step()


def train(seed):
    """Returns (steps after which it was solved, or None; lengths of all episodes)."""
    torch.manual_seed(seed)
    rng, agent = np.random.default_rng(seed), Agent()
    buffer = ReplayBuffer(50_000, seed=seed)
    same_step = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}
    envs = gymnasium.make_vec("Acrobot-v1", ENVS, "sync", vector_kwargs=same_step)
    seen, _ = envs.reset(seed=seed)
    lengths, finished, updates = np.zeros(ENVS, int), [], 0
    for t in range(1, STATED // ENVS + 1):
        curious = max(CURIOUS, 1 - t * ENVS / SETTLED)
        action = np.argmax(agent.worth(seen), axis=1)
        action = np.where(rng.uniform(size=ENVS) < curious, rng.integers(3, size=ENVS), action)
        now, reward, up, late, info = envs.step(action)
        following, ends = now.copy(), up | late
        if ends.any():  # there `now` is the next episode's
            following[ends] = np.stack(info["final_obs"][ends])
        # Only an episode that reached its goal has nothing to come.
        buffer.add(seen, action, reward.astype(np.float32), following, up.astype(np.float32))
        lengths += 1
        finished.extend(lengths[ends])
        lengths[ends] = 0
        seen = now
        if t * ENVS >= FIRST and t % EVERY == 0:
            agent.learn(*buffer.sample(UPDATES * BATCH))
            updates += UPDATES
            if updates % LAG < UPDATES:
                agent.copy.load_state_dict(agent.network.state_dict())
        if len(finished) >= LAST and np.mean(finished[-LAST:]) <= SOLVED:
            return t * ENVS, finished
    return None, finished


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
