"""What the two sides of a random program share: the recipe of a seed, data, groups, outcomes.

`program_mine.py` and `program_theirs.py` train the same recipe in gpubp and in PyTorch.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import recipe_lines
import recipe_losses
import recipe_training
from recipes import MOST, Recipe, Value, World

Arrays = dict[str, np.ndarray]


def recipe(seed: int) -> Recipe:
    """The recipe of a seed."""
    import random

    r = Recipe(seed, random.Random(seed))
    for i in range(r.choice(1, 2, 2, 3)):
        if i > 0 and r.flip():
            value = Value(i, r.choice((), (3,)), r.choice(4, 7))
        else:
            value = Value(i, r.choice((4,), (6,), (3, 4), (2, 6), (5, 3), (1,), (2, 3, 2)))
        r.inputs.append(value)
        r.values.append(value)
    recipe_lines.grow(r, r.rng.randint(2, 10))
    recipe_losses.finish(r)
    recipe_training.plan(r)
    assert all(v.size <= 20 * MOST for v in r.values)
    return r


@dataclass
class Outcome:
    """What training gave."""

    losses: list[float] = field(default_factory=list)
    state: Arrays = field(default_factory=dict)
    averages: list[np.ndarray] = field(default_factory=list)
    grads: list[np.ndarray] = field(default_factory=list)
    rates: list[float] = field(default_factory=list)

    def arrays(self) -> Arrays:
        """All numbers by name."""
        found = {"losses": np.array(self.losses), "learning rates": np.array(self.rates)}
        found.update(self.state)
        found.update({f"average {i}": a for i, a in enumerate(self.averages)})
        found.update({f"gradient {i}": g for i, g in enumerate(self.grads)})
        return {name: np.asarray(a, np.float64) for name, a in found.items()}

    def apart(self, other: Outcome) -> Arrays:
        """The difference of each number, beside 1 or the largest of its array, by name."""
        mine, theirs = self.arrays(), other.arrays()
        assert mine.keys() == theirs.keys()
        return {name: _apart(a, theirs[name]) for name, a in mine.items()}


def largest(apart: Arrays) -> tuple[float, str]:
    """The largest of these differences, and where it is."""
    return max((float(a.max(initial=0.0)), name) for name, a in apart.items())


def _apart(a: Any, b: Any) -> np.ndarray:
    if a.shape != b.shape:
        return np.full(b.shape, np.inf)
    finite = np.isfinite(a) & np.isfinite(b)
    same = (a == b) | (np.isnan(a) & np.isnan(b))
    scale = max(1.0, np.abs(b[np.isfinite(b)]).max(initial=0.0))
    with np.errstate(invalid="ignore"):
        found = np.abs(a - b) / scale
    return np.where(finite, found, np.where(same, 0.0, np.inf))


class Data:
    """Inputs, targets, and the batches of all stages."""

    def __init__(self, r: Recipe) -> None:
        rng = np.random.default_rng(r.seed)
        t = r.training
        n = t["samples"]
        self.arrays: list[np.ndarray] = []
        for v in r.inputs:
            shape = (n, *v.shape)
            drawn = rng.integers(0, v.classes, shape) if v.classes else rng.normal(size=shape)
            self.arrays.append(drawn)
        self.arrays += [loss.target(rng, n) for loss in r.losses]
        self.order = np.stack([rng.permutation(n) for _ in range(t["epochs"])])
        self.size = t["batch_size"]
        self.singles = [rng.permutation(n)[: self.size] for _ in range(2)]
        for loss, target in zip(r.losses, self.arrays[len(r.inputs) :], strict=True):
            if loss.ignored is not None:
                target[self._firsts()] = 0  # in each batch one is counted
        self.seed = int(rng.integers(2**32))

    def _firsts(self) -> list[int]:
        """The first sample of each batch."""
        whole = [b for epoch in range(len(self.order)) for b in self.batches(epoch)]
        return [int(rows[0]) for rows in [*whole, *self.singles]]

    def batches(self, epoch: int) -> list[np.ndarray]:
        rows = self.order[epoch]
        return [rows[i : i + self.size] for i in range(0, len(rows), self.size)]


class Side:
    """What both sides share: lines to values, groups, and the run of all stages."""

    def __init__(self, r: Recipe) -> None:
        self.r, self.t = r, r.training

    def loss(self, world: World, *batch: Any) -> Any:
        values = list(batch[: len(self.r.inputs)])
        for line in self.r.lines:
            values.append(line.fn(world, *[values[i] for i in line.operands]))
        targets = batch[len(self.r.inputs) :]
        terms = [
            loss.fn(world, values[-1], target)
            for loss, target in zip(self.r.losses, targets, strict=True)
        ]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    def groups(self, params: list[Any]) -> list[dict[str, Any]]:
        """Parameters dealt out to groups; later groups have other options."""
        count = min(self.t["groups"], len(params))
        made = []
        for i in range(count):
            group: dict[str, Any] = {"params": params[i::count]}
            if i:
                group["lr"] = self.t["options"]["lr"] * 0.5 * i
                if self.t["options"].get("weight_decay"):
                    group["weight_decay"] = 0.02
            made.append(group)
        return made

    def freeze(self, params: list[Any], share: float) -> None:
        """Some of the parameters; never all."""
        rng = np.random.default_rng(self.r.seed + 1)
        chosen = [bool(c) for c in rng.uniform(size=len(params)) < share]
        if not all(chosen):
            for p, frozen in zip(params, chosen, strict=True):
                p.requires_grad = not frozen

    def enter_modes(self, root: Any) -> None:
        for i in self.r.evals:
            root[i].eval()
