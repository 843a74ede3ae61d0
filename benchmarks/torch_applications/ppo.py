"""The twin of docs/examples/ppo.py in PyTorch."""

import sys
import time

import gymnasium
import numpy as np
import torch
from torch import nn

SHORT = "--short" in sys.argv
SEEDS, SOLVED, STATED = (1, 195, 60_000) if SHORT else (5, 475, 150_000)
ENVS, LENGTH, EPOCHS, BATCH = 8, 32, 20, 256
DISCOUNT, LAMBDA, CLIP, RATE = 0.98, 0.8, 0.2, 1e-3


def mlp(outputs):
    """From the four numbers that CartPole shows of itself."""
    return nn.Sequential(
        nn.Linear(4, 64), nn.Tanh(), nn.Linear(64, 64), nn.Tanh(), nn.Linear(64, outputs)
    )


class Agent:
    """A policy and a critic."""

    def __init__(self):
        self.policy, self.critic = mlp(2), mlp(1)
        self.parameters = [*self.policy.parameters(), *self.critic.parameters()]
        self.optimizer = torch.optim.Adam(self.parameters, lr=RATE)

    @torch.no_grad()
    def act(self, seen):
        drawn = torch.distributions.Categorical(logits=self.policy(torch.from_numpy(seen)))
        action = drawn.sample()
        return action.numpy(), drawn.log_prob(action).numpy(), self.value(seen)

    @torch.no_grad()
    def value(self, seen):
        return self.critic(torch.from_numpy(seen))[:, 0].numpy()

    def loss(self, seen, action, before, advantage, target):
        """The clipped surrogate, and the critic's squared error."""
        now = torch.log_softmax(self.policy(seen), dim=1).gather(1, action[:, None])[:, 0]
        ratio = torch.exp(now - before)
        gain = torch.minimum(ratio * advantage, ratio.clamp(1 - CLIP, 1 + CLIP) * advantage)
        return 0.5 * ((self.critic(seen)[:, 0] - target) ** 2).mean() - gain.mean()

    def learn(self, *lived):
        """Updates on shuffled batches."""
        arrays = [torch.from_numpy(array) for array in lived]
        for _ in range(EPOCHS):
            for rows in torch.randperm(len(arrays[0])).split(BATCH):
                self.optimizer.zero_grad()
                self.loss(*(array[rows] for array in arrays)).backward()
                nn.utils.clip_grad_norm_(self.parameters, 0.5)
                self.optimizer.step()


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
    torch.manual_seed(seed)
    agent = Agent()
    same_step = {"autoreset_mode": gymnasium.vector.AutoresetMode.SAME_STEP}
    envs = gymnasium.make_vec("CartPole-v1", ENVS, "sync", vector_kwargs=same_step)
    seen, _ = envs.reset(seed=seed)
    lengths, finished = np.zeros(ENVS, int), []
    rounds = STATED // (LENGTH * ENVS)
    for done in range(rounds):
        lived, seen = live(envs, agent, seen, lengths, finished)
        agent.optimizer.param_groups[0]["lr"] = RATE * (1 - done / rounds)
        agent.learn(*lived)
        if len(finished) >= 100 and np.mean(finished[-100:]) >= SOLVED:
            return (done + 1) * LENGTH * ENVS, finished
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
