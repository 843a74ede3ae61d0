"""A torch optimiser's options and state, in gpubp's optimiser of the same name and back.

Comes in: an optimiser of `torch.optim` and the slots of its parameters. Goes out: one of
`gpubp.optim`, whose update a step compiles; after each step the torch optimiser's `state` holds
the same moments (in the same memory) and counts.

Holds in between: whatever is done to the torch optimiser between two steps (a step of its own,
`load_state_dict`, another rate) is what the next compiled step starts from. An optimiser has one
counterpart, however many steps are made for it.
"""

from __future__ import annotations

import inspect
import weakref
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from typing import Any

from gpubp import optim
from gpubp.core import Array
from gpubp.core.store import pack
from gpubp.errors import ArgumentError, DataError
from gpubp.nn.parameter import Parameter
from gpubp.optim.base import Optimizer
from gpubp.optim.group import NOTES, ParamGroup, plain
from gpubp.torch import where
from gpubp.torch.moments import Moments

NAMES = "SGD Adam AdamW Adamax Adadelta Adagrad ASGD Adafactor Muon NAdam RAdam RMSprop Rprop"
# How torch cuts its own work, and names; nothing that numbers depend on.
_PASSED_OVER = frozenset(("params", "param_names", "foreach", "fused", "capturable", *NOTES))

_TWINS: weakref.WeakKeyDictionary[Any, Twin] = weakref.WeakKeyDictionary()


def twin_of(theirs: Any, slot: Callable[[Any], Any]) -> Twin:
    """The counterpart of a torch optimiser; made at the first time.

    Args:
        theirs: of `torch.optim`.
        slot: the slot of a parameter.

    Raises:
        ArgumentError: an optimiser of another kind, or with hooks.
        DataError: an option that gpubp has not.
    """
    kind = _kind(theirs)
    if theirs._optimizer_step_pre_hooks or theirs._optimizer_step_post_hooks:
        raise ArgumentError(
            "the optimizer has step hooks; a compiled step calls no Python. Remove them."
        )
    slots = [[slot(p) for p in group["params"]] for group in theirs.param_groups]
    known = _TWINS.get(theirs)
    if known is None or not known.has(slots):
        known = _TWINS[theirs] = Twin(theirs, kind, slots)
    return known


def _kind(theirs: Any) -> type[Optimizer]:
    import torch

    for name in NAMES.split():
        if type(theirs) is getattr(torch.optim, name, None):
            found: type[Optimizer] = getattr(optim, name)
            return found
    if isinstance(theirs, torch.optim.LBFGS):
        raise ArgumentError(
            f"{where.of_caller()}: LBFGS finds the loss several times a step, which no compiled "
            "step does. Use gpubp.optim.LBFGS on gpubp.torch.from_module(model), which shares the "
            "weights."
        )
    raise ArgumentError(
        f"{where.of_caller()}: got the optimizer {type(theirs).__name__}; expected one of "
        f"torch.optim itself: {', '.join(NAMES.split())}."
    )


class Reaching:
    """What a step sees of an optimiser: the parameters that reach its loss.

    torch leaves a parameter without a gradient as it is.

    Args:
        optimizer: of gpubp.
    """

    def __init__(self, optimizer: Optimizer) -> None:
        self._optimizer = optimizer
        self._lost: list[Parameter] = []

    def leave_out(self, lost: Sequence[Parameter]) -> None:
        """These do not reach the loss."""
        self._lost = list(lost)

    def _is_lost(self, param: Parameter) -> bool:
        return any(p is param for p in self._lost)

    def all_parameters(self) -> list[Parameter]:
        """Those that are trained, and those that would be if they reached the loss."""
        return self._optimizer.parameters()

    def parameters(self) -> list[Parameter]:
        """Those that are trained."""
        return [p for p in self._optimizer.parameters() if not self._is_lost(p)]

    def prepare(self) -> None:
        """Make state arrays."""
        pack("params", self._lost)
        self._optimizer.prepare()
        self._optimizer._cohorts.split(self._is_lost)

    def emit(self, grads: dict[int, Array]) -> Any:
        """Append the update to the trace."""
        return self._optimizer.emit(grads)


class Twin:
    """A torch optimiser and its counterpart.

    Args:
        theirs: of `torch.optim`.
        kind: of `gpubp.optim`.
        slots: the parameters, group by group.

    Attributes:
        mine: of that kind.
    """

    def __init__(
        self, theirs: Any, kind: type[Optimizer], slots: Sequence[Sequence[Parameter]]
    ) -> None:
        groups = [
            {**_options(kind, group), "params": params}
            for group, params in zip(theirs.param_groups, slots, strict=True)
        ]
        made: Callable[..., Optimizer] = kind
        self.mine = made(groups)
        self._slots = [list(params) for params in slots]
        self._theirs: Callable[[], Any] = weakref.ref(theirs)
        self._seen: list[dict[str, Any]] = [{} for _ in groups]
        self._moments = Moments(self.mine, [p for params in slots for p in params])

    def has(self, slots: Sequence[Sequence[Parameter]]) -> bool:
        """Its parameters are these, group by group."""
        return [[id(p) for p in g] for g in slots] == [[id(p) for p in g] for g in self._slots]

    def pull(self) -> None:
        """Before a step: take over options and state that others have changed."""
        theirs = self._theirs()
        if len(theirs.param_groups) != len(self._seen):
            raise DataError(
                "the optimizer got another parameter group. Make a new step with "
                "gpubp.torch.compile_step."
            )
        groups = zip(theirs.param_groups, self.mine.param_groups, self._seen, strict=True)
        for group, mine, seen in groups:
            if not seen or any(_differs(group.get(key), v) for key, v in seen.items()):
                options = _options(type(self.mine), group)
                _move(mine, options)
                seen.update(options)
        self._moments.pull(theirs)

    def push(self) -> None:
        """After a step: let the torch optimiser hold moments and counts."""
        theirs = self._theirs()
        self._moments.push(theirs)
        theirs._opt_called = True  # schedules of torch warn of steps before it


def _differs(given: Any, seen: Any) -> bool:
    return bool(given != seen) and bool(plain(given) != seen)


@cache
def _names(kind: type[Optimizer]) -> tuple[str, ...]:
    return tuple(name for name in inspect.signature(kind).parameters if name != "params")


def _options(kind: type[Optimizer], group: Mapping[str, Any]) -> dict[str, Any]:
    """A group's options, by gpubp's names, which are torch's."""
    known = _names(kind)
    passed = {*_PASSED_OVER, "decoupled_weight_decay"}
    on = [key for key, value in group.items() if key not in known and key not in passed and value]
    if on:
        raise DataError(f"{kind.__name__} has no {on[0]}={group[on[0]]!r} in gpubp. Leave it out.")
    return {name: plain(group[name]) for name in known if name in group}


def _move(mine: ParamGroup, options: Mapping[str, Any]) -> None:
    """Take over options; what moves more than once is read by programs, not baked into them."""
    for name in ("momentum", "betas", "weight_decay"):
        if name in options and mine[name] != options[name]:
            mine.in_slot("momentum" if name == "betas" else name)
    mine.replace(options)
