"""How a random program is trained: optimiser, groups, schedule, clipping, accumulation, changes."""

from __future__ import annotations

from typing import Any

from recipes import Recipe

# eps no smaller: gradients that are 0 but for rounding (a bias before a BatchNorm) would be
# scaled up to numbers that no two libraries share.
OPTIMIZERS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {"lr": 0.1}),
    ("SGD", {"lr": 0.05, "momentum": 0.9, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.05, "momentum": 0.8, "nesterov": True}),
    ("SGD", {"lr": 1e-3, "momentum": 0.8, "dampening": 0.3, "maximize": True}),
    ("Adam", {"lr": 0.01, "eps": 1e-5}),
    ("Adam", {"lr": 0.01, "eps": 1e-5, "betas": (0.7, 0.9), "amsgrad": True, "weight_decay": 0.1}),
    ("Adam", {"lr": 0.01, "eps": 1e-5, "decoupled_weight_decay": True, "weight_decay": 0.1}),
    ("AdamW", {"lr": 0.01, "eps": 1e-5}),
    ("AdamW", {"lr": 0.01, "eps": 1e-5, "maximize": True, "amsgrad": True}),
    ("Adagrad", {"lr": 0.05, "eps": 1e-4, "lr_decay": 0.1, "initial_accumulator_value": 0.2}),
    ("Adagrad", {"lr": 0.05, "eps": 1e-4, "weight_decay": 0.01}),
    ("Adadelta", {"lr": 0.5, "eps": 1e-4, "rho": 0.8}),
    ("Adadelta", {"lr": 0.02, "eps": 1e-4, "weight_decay": 0.01, "maximize": True}),
    ("RMSprop", {"lr": 0.005, "eps": 1e-4}),
    ("RMSprop", {"lr": 0.005, "eps": 1e-2, "momentum": 0.5, "centered": True, "alpha": 0.8}),
    ("Adamax", {"lr": 0.01, "eps": 1e-4, "weight_decay": 0.01}),
    ("NAdam", {"lr": 0.01, "eps": 1e-5}),
    ("NAdam", {"lr": 0.01, "eps": 1e-5, "momentum_decay": 0.1, "decoupled_weight_decay": True}),
    ("RAdam", {"lr": 0.01, "eps": 1e-5, "betas": (0.9, 0.7)}),
    ("RAdam", {"lr": 0.01, "eps": 1e-5, "weight_decay": 0.05}),
    ("Rprop", {"lr": 1e-3, "etas": (0.4, 1.3)}),
    ("ASGD", {"lr": 0.05, "lambd": 0.1, "alpha": 0.5, "t0": 1.0}),
    ("Lion", {"lr": 1e-3, "weight_decay": 0.1}),
]
HAVE_MOMENTUM = {"SGD", "Adam", "AdamW", "NAdam", "RAdam", "Adamax"}
SCHEDULES: list[tuple[str, dict[str, Any]]] = [
    ("StepLR", {"step_size": 2, "gamma": 0.5}),
    ("MultiStepLR", {"milestones": [1, 3], "gamma": 0.4}),
    ("ExponentialLR", {"gamma": 0.8}),
    ("PolynomialLR", {"total_iters": 4, "power": 1.5}),
    ("LinearLR", {"start_factor": 0.2, "total_iters": 4}),
    ("ConstantLR", {"factor": 0.3, "total_iters": 2}),
    ("CosineAnnealingLR", {"T_max": 4, "eta_min": 1e-4}),
    ("CosineAnnealingWarmRestarts", {"T_0": 2, "T_mult": 2}),
    ("OneCycleLR", {"max_lr": 0.05, "total_steps": 40, "cycle_momentum": False}),
    ("CyclicLR", {"base_lr": 1e-3, "max_lr": 0.05, "step_size_up": 2, "cycle_momentum": False}),
    ("OneCycleLR", {"max_lr": 0.05, "total_steps": 40}),
    ("LambdaLR", {"lr_lambda": lambda epoch: 1 / (1 + epoch)}),
    ("MultiplicativeLR", {"lr_lambda": lambda epoch: 0.9 - 0.1 / (1 + epoch)}),
]


def plan(r: Recipe) -> None:
    """Fill in `training`."""
    name, options = r.choice(*OPTIMIZERS)
    found = r.training
    found.update(optimizer=name, options=options, samples=r.choice(7, 11, 14))
    found["batch_size"] = r.choice(3, 4, 5)
    found["epochs"] = r.choice(1, 2)
    if r.flip(0.1):
        found.update(samples=90, batch_size=34, epochs=1)
    if found["samples"] % found["batch_size"] == 1:
        found["batch_size"] -= 1  # a batch of one has no variance
        if found["samples"] % found["batch_size"] == 1:
            found["samples"] += 1
    found["groups"] = r.choice(1, 1, 2, 3)
    found["frozen"] = r.choice(0.0, 0.0, 0.3)
    found["max_grad_norm"] = r.choice(None, None, 0.05, 0.5)
    found["max_grad_value"] = r.choice(None, None, None, 0.02)
    found["ema"] = r.choice(None, None, 0.7)
    found["keep_grads"] = r.flip(0.2)
    plain = all(loss.plain for loss in r.losses)
    found["accumulate"] = r.choice(1, 1, 2, 3) if plain else 1
    found["schedule"] = _schedule(r, name, options) if r.flip(0.4) else None
    found["schedule_inside"] = r.flip()
    found["change"] = r.choice(None, "lr", "freeze", "thaw", "eval", "train", "weights")


def _schedule(r: Recipe, name: str, options: dict[str, Any]) -> Any:
    known = name in HAVE_MOMENTUM and (name != "SGD" or options.get("momentum"))
    found = [
        (n, o)
        for n, o in SCHEDULES
        if known or n != "OneCycleLR" or not o.get("cycle_momentum", True)
    ]
    return r.choice(*found)
