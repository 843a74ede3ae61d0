"""Reinforcement learning from a replay buffer: deep Q-learning swings Gymnasium's Acrobot-v1 up.

    python docs/examples/dqn.py            # five seeds
    python docs/examples/dqn.py --short    # one, a part of the way

Mnih et al., "Human-level control through deep reinforcement learning" (2015), with the double
estimate of van Hasselt, Guez and Silver, "Deep Reinforcement Learning with Double Q-learning"
(2016). A network learns what each action is worth from what was lived through, drawn at random; a
copy of it that lags behind says what is still to come. Reward is -1 a step until the tip is up.

Two programs share the parameters: `worth` acts in eight environments at once, `learn` makes several
updates in a row. Solved: the last 100 episodes took 100 steps in the mean. Writes dqn.png.
"""

import sys
import time

import gymnasium
import matplotlib.pyplot as plt
import numpy as np

import gpubp as gp
from gpubp import nn, ops, optim
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
    """The network, its copy, and the programs that use them."""

    def __init__(self):
        self.network, self.copy = mlp(), mlp()
        self.copy.load_state_dict(self.network.state_dict())
        self.worth = gp.compile(self.network)
        optimizer = optim.Adam(self.network.parameters(), lr=1e-3)
        self.learn = gp.compile_step(self._loss, optimizer, max_grad_norm=10.0)

    def _loss(self, seen, action, reward, following, end):
        """The network chooses what to do next, its copy says what that is worth."""
        best = ops.one_hot(ops.argmax(self.network(following), axis=1), 3)
        to_come = ops.sum(self.copy(following) * best, axis=1)
        target = ops.stop_gradient(reward + DISCOUNT * (1 - end) * to_come)
        found = ops.sum(self.network(seen) * ops.one_hot(action, 3), axis=1)
        return nn.functional.smooth_l1_loss(found, target)


def train(seed):
    """Returns (steps after which it was solved, or None; lengths of all episodes)."""
    gp.manual_seed(seed)
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
            agent.learn.run(*buffer.sample(UPDATES * BATCH), batch_size=BATCH)
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

for seed, (solved, finished) in enumerate(runs):
    print(f"seed {seed}: {f'solved in {solved} steps' if solved else 'not solved'}")
    smooth = np.convolve(finished, np.ones(LAST) / LAST, "valid")
    plt.plot(np.cumsum(finished)[LAST - 1 :], smooth, label=f"seed {seed}")
plt.axhline(SOLVED, color="k", lw=0.8, ls="--")
plt.xlabel("steps in all environments")
plt.ylabel(f"length of an episode, mean of the last {LAST}")
plt.legend()
plt.savefig("dqn.png", dpi=110)

worst = max(solved or np.inf for solved, _ in runs)
verdict = "passed" if worst <= STATED else "FAILED"
print(f"steps until {SOLVED}, worst of {SEEDS}: {worst}, stated {STATED}: {verdict}")
assert verdict == "passed"
