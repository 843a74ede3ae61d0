"""A recipe as a program of gpubp and as one of PyTorch, and both trained alike.

Comes in: a recipe. Goes out: for each library the losses of all batches, the parameters and
buffers at the end, the averages and the last gradients. Dropout in PyTorch takes the numbers that
gpubp's generator is documented to draw.
"""

from __future__ import annotations

import inspect
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import recipe_lines
import recipe_losses
import recipe_training
import torch
import torch_ops
from recipes import MOST, Recipe, Value, World

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.ops.random import UNIFORM
from gpubp.optim import lr_scheduler

Arrays = dict[str, np.ndarray]


def recipe(seed: int) -> Recipe:
    """The recipe of a seed."""
    import random

    r = Recipe(seed, random.Random(seed))
    for i in range(r.choice(1, 2, 2, 3)):
        shape = r.choice((4,), (6,), (3, 4), (2, 6), (5, 3), (1,), (2, 3, 2))
        indices = i > 0 and r.flip()
        if indices:
            value = Value(i, r.choice((), (3,)), r.choice(4, 7))
        else:
            value = Value(i, shape)
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

    def distance(self, other: Outcome) -> tuple[float, str]:
        """The largest difference, of numbers beside 1 or their array's largest; and where."""
        found = [(_apart(self.losses, other.losses), "losses")]
        found.append((_apart(self.rates, other.rates), "learning rates"))
        for name, value in self.state.items():
            found.append((_apart(value, other.state[name]), name))
        for i, (a, b) in enumerate(zip(self.averages, other.averages, strict=True)):
            found.append((_apart(a, b), f"average {i}"))
        for i, (a, b) in enumerate(zip(self.grads, other.grads, strict=True)):
            found.append((_apart(a, b), f"gradient {i}"))
        return max(found)


def _apart(a: Any, b: Any) -> float:
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    if a.shape != b.shape:
        return np.inf
    if not a.size:
        return 0.0
    if not (np.isfinite(a) == np.isfinite(b)).all() or not np.isfinite(b).all():
        same = np.array_equal(a, b, equal_nan=True)
        return 0.0 if same else np.inf
    return float(np.abs(a - b).max() / max(1.0, np.abs(b).max()))


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


class _Side:
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


def _pull_mine(fn: Any, x: Any, cotangents: list[Any]) -> tuple[Any, list[Any]]:
    y, pull = gp.vjp(fn, x)
    return y, [pull(c)[0] for c in cotangents]


def _pull_theirs(fn: Any, x: Any, cotangents: list[Any]) -> tuple[Any, list[Any]]:
    x = x if x.requires_grad else x.requires_grad_()
    y = fn(x)
    return y, [torch.autograd.grad(y, x, c, create_graph=True)[0] for c in cotangents]


class Mine(_Side):
    """The program in gpubp."""

    def __init__(self, r: Recipe, data: Data, backend: Any) -> None:
        super().__init__(r)
        self.data = data
        ops.manual_seed(data.seed)
        self.generator = gp.Generator(data.seed)
        self.modules = nn.ModuleList([self._module(m.name, m.options) for m in r.modules])
        for a, b in r.ties:
            self.modules[a].weight = self.modules[b].weight
        self.extra = nn.ParameterList([nn.Parameter(p, dtype="float64") for p in r.params])
        self.params = list(dict.fromkeys([*self.modules.parameters(), *self.extra.parameters()]))
        self.enter_modes(self.modules)
        self.start = self.state()
        self.freeze(self.params, self.t["frozen"])
        make = getattr(optim, self.t["optimizer"])
        self.optimizer = make(self.groups(self.params), **self.t["options"])
        self.schedule: Any = None
        if self.t["schedule"]:
            name, options = self.t["schedule"]
            self.schedule = getattr(lr_scheduler, name)(self.optimizer, **options)
        self.ema = optim.EMA(self.params, self.t["ema"]) if self.t["ema"] else None
        world = World(ops, self.modules, self.extra, lambda a: a, _pull_mine)
        self.step = gp.compile_step(
            lambda *batch: self.loss(world, *batch),
            self.optimizer,
            backend=backend,
            max_grad_norm=self.t["max_grad_norm"],
            max_grad_value=self.t["max_grad_value"],
            keep_grads=self.t["keep_grads"],
            accumulate=self.t["accumulate"],
            scheduler=self.schedule if self.t["schedule_inside"] else None,
            ema=self.ema,
        )

    def _module(self, name: str, options: dict[str, Any]) -> Any:
        make = getattr(nn, name)
        known = inspect.signature(make.__init__).parameters
        more: dict[str, Any] = {"dtype": "float64"} if "dtype" in known else {}
        if name == "Dropout":
            more["generator"] = self.generator
        return make(**options, **more)

    def state(self) -> Arrays:
        return {
            **{f"m.{k}": v.copy() for k, v in self.modules.state_dict().items()},
            **{f"p.{k}": v.copy() for k, v in self.extra.state_dict().items()},
        }

    def run(self) -> Outcome:
        found = Outcome()
        size = self.t["batch_size"]
        inside = self.t["schedule_inside"] or self.schedule is None
        for rows in [self.data.order] if inside else self.data.order[:, None]:
            losses = self.step.run(*self.data.arrays, batch_size=size, order=rows)
            found.losses += [float(loss) for loss in losses]
            if not inside:
                self.schedule.step()
        self.change()
        for rows in self.data.singles:
            found.losses.append(float(self.step(*[a[rows] for a in self.data.arrays])))
        found.state = self.state()
        found.averages = self.ema.averages if self.ema else []
        found.grads = [g.copy() for g in self.step.grads] if self.t["keep_grads"] else []
        found.rates = [float(g["lr"]) for g in self.optimizer.param_groups]
        return found

    def change(self) -> None:
        """Between the runs and the single calls."""
        kind = self.t["change"]
        if kind == "lr" and self.schedule is None:
            self.optimizer.param_groups[0]["lr"] *= 0.3
        elif kind in ("freeze", "thaw"):
            self.freeze(self.params, 0.4 if kind == "freeze" else 0.0)
        elif kind in ("eval", "train"):
            self.modules.train(kind == "train")
        elif kind == "weights":
            self.params[0].value = self.params[0].value * 0.9


class Masked(torch.nn.Module):
    """Dropout by the numbers of gpubp's generator: of a seed, a counter of steps, and of a draw."""

    def __init__(self, p: float, source: Theirs) -> None:
        super().__init__()
        self.p = p
        self.source = [source]  # not a child

    def forward(self, x: Any) -> Any:
        if not self.training or self.p == 0.0:
            return x
        source = self.source[0]
        rng = np.array([source.data.seed, source.steps], np.int64)
        drawn = UNIFORM.reference(
            rng, shape=tuple(x.shape), dtype="float64", stream=source.draws
        )
        source.draws += 1
        kept = torch.from_numpy(drawn >= self.p)
        return torch.where(kept, x / (1.0 - self.p), 0.0)


class Lion(torch.optim.Optimizer):
    """Chen et al., "Symbolic Discovery of Optimization Algorithms" (2023, arXiv:2302.06675)."""

    def __init__(self, params: Any, lr: float, weight_decay: float = 0.0) -> None:
        super().__init__(params, {"lr": lr, "betas": (0.9, 0.99), "weight_decay": weight_decay})

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        for group in self.param_groups:
            b1, b2 = group["betas"]
            for p in group["params"]:
                if p.grad is None:
                    continue
                m = self.state[p].setdefault("m", torch.zeros_like(p))
                p.mul_(1.0 - group["lr"] * group["weight_decay"])
                p.sub_(group["lr"] * torch.sign(b1 * m + (1.0 - b1) * p.grad))
                m.mul_(b2).add_((1.0 - b2) * p.grad)


class Theirs(_Side):
    """The program in PyTorch, from the weights that gpubp's started with."""

    def __init__(self, r: Recipe, data: Data, start: Arrays, shake: float = 0.0) -> None:
        """`shake` moves all weights by that share, at random: how firm are the numbers?"""
        super().__init__(r)
        self.data, self.steps, self.draws = data, 0, 0
        self.modules = torch.nn.ModuleList([self._module(m.name, m.options) for m in r.modules])
        for a, b in r.ties:
            self.modules[a].weight = self.modules[b].weight
        self.extra = torch.nn.ParameterList([torch.from_numpy(p.copy()) for p in r.params])
        self.modules.load_state_dict(
            {k[2:]: torch.from_numpy(v) for k, v in start.items() if k[0] == "m"}
        )
        self.params = list(dict.fromkeys([*self.modules.parameters(), *self.extra.parameters()]))
        rng = np.random.default_rng(data.seed)
        with torch.no_grad():
            for p in self.params if shake else []:
                p.mul_(torch.from_numpy(1.0 + shake * rng.uniform(-1, 1, tuple(p.shape))))
        self.enter_modes(self.modules)
        self.freeze(self.params, self.t["frozen"])
        make = Lion if self.t["optimizer"] == "Lion" else getattr(torch.optim, self.t["optimizer"])
        self.optimizer = make(self.groups(self.params), **self.t["options"])
        self.schedule: Any = None
        if self.t["schedule"]:
            name, options = self.t["schedule"]
            self.schedule = getattr(torch.optim.lr_scheduler, name)(self.optimizer, **options)
        self.averages: list[Any] = []
        self.grads: list[np.ndarray] = []
        self.world = World(torch_ops, self.modules, self.extra, torch.from_numpy, _pull_theirs)

    def _module(self, name: str, options: dict[str, Any]) -> Any:
        if name == "Dropout":
            return Masked(options["p"], self)
        given = {
            k: torch.from_numpy(v) if isinstance(v, np.ndarray) else v for k, v in options.items()
        }
        return getattr(torch.nn, name)(**given).double()

    def batch_loss(self, rows: np.ndarray) -> Any:
        self.draws = 0
        loss = self.loss(self.world, *[torch.from_numpy(a[rows]) for a in self.data.arrays])
        self.steps += self.draws > 0
        return loss

    def update(self, batches: list[np.ndarray]) -> list[float]:
        """One update of the mean gradient of all samples of these batches."""
        self.optimizer.zero_grad()
        losses = []
        total = sum(map(len, batches))
        for rows in batches:
            loss = self.batch_loss(rows)
            (loss * (len(rows) / total)).backward()
            losses.append(float(loss.detach()))
        found = [p.grad.numpy().copy() for p in self.ordered() if p.grad is not None]
        self.grads = found
        params = [p for p in self.params if p.grad is not None]
        if self.t["max_grad_value"]:
            torch.nn.utils.clip_grad_value_(params, self.t["max_grad_value"])
        if self.t["max_grad_norm"]:
            torch.nn.utils.clip_grad_norm_(params, self.t["max_grad_norm"])
        self.optimizer.step()
        if self.schedule is not None and self.t["schedule_inside"]:
            self.schedule.step()
        if self.t["ema"]:
            new = [p.detach().numpy().copy() for p in self.params]
            d = self.t["ema"]
            old = self.averages
            self.averages = [d * a + (1 - d) * w for a, w in zip(old, new)] if old else new
        return losses

    def ordered(self) -> list[Any]:
        return [p for group in self.optimizer.param_groups for p in group["params"]]

    def run(self) -> Outcome:
        found = Outcome()
        each = self.t["accumulate"]
        for epoch in range(self.t["epochs"]):
            batches = self.data.batches(epoch)
            for i in range(0, len(batches), each):
                found.losses += self.update(batches[i : i + each])
            if self.schedule is not None and not self.t["schedule_inside"]:
                self.schedule.step()
        self.change()
        waiting: list[np.ndarray] = []
        for rows in self.data.singles:
            waiting.append(rows)
            if len(waiting) == each:
                found.losses += self.update(waiting)
                waiting = []
        found.losses += [float(self.batch_loss(rows).detach()) for rows in waiting]
        with torch.no_grad():
            state = {f"m.{k}": v for k, v in self.modules.state_dict().items()}
            state.update({f"p.{k}": v for k, v in self.extra.state_dict().items()})
        found.state = {k: v.detach().numpy().copy() for k, v in state.items()}
        found.averages = self.averages
        found.grads = self.grads if self.t["keep_grads"] else []
        found.rates = [float(g["lr"]) for g in self.optimizer.param_groups]
        return found

    def change(self) -> None:
        kind = self.t["change"]
        if kind == "lr" and self.schedule is None:
            self.optimizer.param_groups[0]["lr"] *= 0.3
        elif kind in ("freeze", "thaw"):
            self.freeze(self.params, 0.4 if kind == "freeze" else 0.0)
        elif kind in ("eval", "train"):
            self.modules.train(kind == "train")
        elif kind == "weights":
            with torch.no_grad():
                self.params[0].mul_(0.9)
