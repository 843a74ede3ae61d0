"""A recipe as a program of PyTorch, trained as gpubp trains it.

Dropout takes the numbers that gpubp's generator is documented to draw.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import torch
import torch_ops
from programs import Arrays, Data, Outcome, Side
from recipes import Recipe, World

from gpubp.ops.random import UNIFORM


def _pull_theirs(fn: Any, x: Any, cotangents: list[Any]) -> tuple[Any, list[Any]]:
    x = x if x.requires_grad else x.requires_grad_()
    y = fn(x)
    return y, [torch.autograd.grad(y, x, c, create_graph=True)[0] for c in cotangents]


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
        drawn = UNIFORM.reference(rng, shape=tuple(x.shape), dtype="float64", stream=source.draws)
        source.draws += 1
        kept = torch.from_numpy(drawn >= self.p)
        return torch.where(kept, x / (1.0 - self.p), 0.0)


class Hardsigmoid(torch.nn.Module):
    """Exact: the gradient of torch's own has one sixth as a float32, in float64 too."""

    def forward(self, x: Any) -> Any:
        return torch.nn.functional.hardtanh(x / 6.0 + 0.5, 0.0, 1.0)


class CELU(torch.nn.Module):
    """Exact: the gradient of torch's own has 1 / alpha as a float32, in float64 too."""

    def __init__(self, alpha: float) -> None:
        super().__init__()
        self.alpha = alpha

    def forward(self, x: Any) -> Any:
        below = self.alpha * torch.expm1(torch.minimum(x, torch.zeros_like(x)) / self.alpha)
        return torch.where(x > 0, x, below)


EXACT = {"Hardsigmoid": Hardsigmoid, "CELU": CELU}


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


class Theirs(Side):
    """The program in PyTorch, from the weights that gpubp's started with."""

    def __init__(self, r: Recipe, data: Data, start: Arrays, shake: float = 0.0) -> None:
        """`shake` moves inputs, weights and gradients by that share, at random: how firm are the
        numbers?

        Inputs, since what is made of them alone may cancel: with the sum of a softmax that is
        normalised, the sign of a gradient is that of its rounding. Gradients by a share of the
        largest of all: where two terms cancel, the sign of the rest is rounding (a fused
        multiply-add leaves another rest than a product and a sum).
        """
        super().__init__(r)
        self.shake, self.noise = shake, np.random.default_rng([r.seed, round(shake * 1e15)])
        self.data, self.steps, self.draws = data, 0, 0
        if shake:
            self.data = copy.copy(data)
            count = len(r.inputs)  # what follows are targets
            shaken = [self._shaken(a) for a in data.arrays[:count]]
            self.data.arrays = [*shaken, *data.arrays[count:]]
        self.modules = torch.nn.ModuleList([self._module(m.name, m.options) for m in r.modules])
        for a, b in r.ties:
            self.modules[a].weight = self.modules[b].weight
        self.extra = torch.nn.ParameterList([torch.from_numpy(p.copy()) for p in r.params])
        self.modules.load_state_dict(
            {k[2:]: torch.from_numpy(v) for k, v in start.items() if k[0] == "m"}
        )
        self.params = list(dict.fromkeys([*self.modules.parameters(), *self.extra.parameters()]))
        rng = self.noise
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
        if name in EXACT:
            return EXACT[name](**options)
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
        self.shake_gradients()
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

    def _shaken(self, array: np.ndarray) -> np.ndarray:
        if array.dtype.kind != "f":
            return array
        return array * (1.0 + self.shake * self.noise.uniform(-1, 1, array.shape))

    def shake_gradients(self) -> None:
        grads = [p.grad for p in self.params if p.grad is not None] if self.shake else []
        largest = max([float(g.abs().max()) for g in grads], default=0.0)
        for g in grads:
            drawn = self.noise.uniform(-1, 1, tuple(g.shape))
            g.add_(torch.from_numpy(np.asarray(self.shake * largest * drawn)))

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
