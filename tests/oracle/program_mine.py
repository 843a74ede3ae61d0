"""A recipe as a program of gpubp, and its training."""

from __future__ import annotations

import inspect
from typing import Any

from programs import Arrays, Data, Outcome, Side
from recipes import Recipe, World

import gpubp as gp
from gpubp import nn, ops, optim
from gpubp.optim import lr_scheduler


def _pull_mine(fn: Any, x: Any, cotangents: list[Any]) -> tuple[Any, list[Any]]:
    y, pull = gp.vjp(fn, x)
    return y, [pull(c)[0] for c in cotangents]


class Mine(Side):
    """The program in gpubp."""

    def __init__(self, r: Recipe, data: Data, backend: Any, verify: bool | None = None) -> None:
        """`verify`: check graphs and programs after the compiler's passes; None: as the tests."""
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
            options=gp.Options(verify=verify),
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
