"""What every optimiser is: parameter groups, state beside the parameters, an update rule as ops.

Comes in: parameters, options, and (inside a trace) one gradient for each parameter. Goes out:
(slot, new value) pairs that the step's program writes at its end.

Holds in between: numbers that change from step to step (learning rates, step counts) live in
slots and are read by the program, so a compiled step never freezes them; every other option is
baked into the trace, and changing one makes the step trace again. A deep copy or a pickle goes on
as the original would, with parameters of its own; a shallow copy shares everything, as in torch.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp.arguments import checked, reading
from gpubp.core import Array, Shape, assume
from gpubp.core.store import Slot
from gpubp.errors import DataError, unknown_name
from gpubp.habits import Stepless
from gpubp.nn.parameter import Parameter
from gpubp.optim.divided import Divisible
from gpubp.optim.group import NOTES, ParamGroup, Params, as_groups, checked_params, plain
from gpubp.optim.options import check_numbers, only_options
from gpubp.optim.rules import adjusted
from gpubp.optim.state import Arrays, Cohort, Cohorts, Edits, Past, Start, as_state

Update = list[tuple[Slot, Array]]


class Optimizer(Divisible, Stepless, ABC):
    """Base of optimisers.

    Args:
        params: parameters, or dicts of "params" and options that differ from the defaults.
        defaults: every option and its default: the constructor's `locals()`; see `optim.options`.

    Attributes:
        param_groups: as in torch; `param_groups[0]["lr"] = 0.01` takes effect at the next step.

    Raises:
        DataError: no parameters, one of them twice, or an option out of its range.
        TypeError: something that is not a Parameter.
        UnknownNameError: an option that this optimiser does not have.
    """

    state_names: tuple[str, ...] = ()
    scalar_names: tuple[str, ...] = ()
    saves_step = True
    saves_initial = False
    counts_by_group = False
    decouples = False
    _announces = True  # see gpubp.core.facts
    _edits: Edits

    def __init__(self, params: Params, defaults: Mapping[str, Any]) -> None:
        object.__setattr__(self, "_edits", Edits())
        self.defaults = only_options(defaults)
        self.param_groups: list[ParamGroup] = []
        self._arrays = Arrays()
        self._cohorts = Cohorts(self._edits.note)
        for group in as_groups(params):
            self.add_param_group(group)
        if not self.param_groups or not any(g.params for g in self.param_groups):
            raise DataError(
                "the optimizer got no parameters. Pass model.parameters(); an iterator that was "
                "used before is empty."
            )

    def check(self, options: Mapping[str, Any]) -> None:
        """Raise DataError if options do not fit together; their ranges are checked before."""

    def used_state(self, group: ParamGroup) -> tuple[str, ...]:
        """The names of the state arrays that this group's options need; default: all."""
        return self.state_names

    def state_shape(self, name: str, param: Parameter) -> Shape | None:
        """The shape of a state array: the parameter's; None where the parameter has none."""
        return param.shape

    def counts_steps(self) -> bool:
        """Whether steps are counted: the update needs it, or torch saves it. Default: yes."""
        return True

    @abstractmethod
    def emit_group(
        self, group: ParamGroup, grads: list[tuple[Parameter, Array]], cohort: Cohort
    ) -> Update:
        """Append the update of parameters of one group to the trace.

        Args:
            group: the options.
            grads: the gradient of each trained parameter; sign and coupled weight decay are done.
            cohort: the steps that they have taken: `cohort.count` before this one, `cohort.next()`
                with it.
        """

    def counts_in(self, group: ParamGroup) -> bool:
        """Whether the update of this group's parameters needs it."""
        return self.counts_steps()

    def initial(self, name: str, group: ParamGroup) -> float:
        """What a state array or scalar starts from."""
        return 0.0

    @property
    def step_count(self) -> Slot:
        """int64 scalar slot: steps taken by the parameters that have taken the most, if counted."""
        most: Cohort = max(self._cohorts, key=lambda cohort: int(cohort.count.value))
        return most.count

    @checked
    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with options of their own.

        Args:
            group: "params" (a parameter or an iterable of them) and options.
        """
        params = checked_params(group.get("params", ()))
        known = {"params", *self.defaults, *NOTES}
        extra = [key for key in group if key not in known]
        if extra:
            raise unknown_name(f"option of {type(self).__name__}", extra[0], self.defaults)
        mine = {id(p) for g in self.param_groups for p in g.params}
        twice = [p.name for p in params if id(p) in mine or params.count(p) > 1]
        if twice:
            raise DataError(f"parameter {twice[0]} was given twice; give each to one group, once.")
        options = {key: group.get(key, value) for key, value in self.defaults.items()}
        made = ParamGroup(params, options, self._check, self._edits.note)
        made.update({key: group[key] for key in NOTES if key in group})
        self.param_groups.append(made)
        if params:
            past = (0, tuple((name, self.initial(name, made)) for name in self.scalar_names))
            apart = self.scalar_names or self.counts_by_group
            self._cohorts.add(params, len(self.param_groups) if apart else 0, past)
        self._edits.note()

    def _check(self, options: Mapping[str, Any]) -> None:
        check_numbers(type(self), options)
        self.check(options)

    def parameters(self) -> list[Parameter]:
        """All parameters with requires_grad, group by group."""
        assume(self._trained)
        return [p for group in self.param_groups for p in group.params if p.requires_grad]

    def prepare(self) -> None:
        """Create the state arrays, once the parameters have their banks. May be called again."""
        self._cohorts.split()
        wanted: dict[str, list[tuple[Parameter, Start]]] = {}
        for group in self.param_groups:
            for name in self.used_state(group):
                fill = self.initial(name, group)
                found = [(p, self.state_shape(name, p)) for p in self._here(group)]
                given = [(p, (shape, fill)) for p, shape in found if shape is not None]
                wanted.setdefault(name, []).extend(given)
        self._arrays.make(wanted)

    def emit(self, grads: Mapping[int, Array]) -> Update:
        """Append the update to the trace.

        Args:
            grads: the traced gradient for each id(parameter).

        Returns:
            (slot, new value) for each parameter in `grads`, its state, and the step counts.
        """
        assume(self._facts)
        given = self._given(grads)
        counted = {id(p) for g in self.param_groups if self.counts_in(g) for p in g.params} & given
        trained = [c for c in self._cohorts if any(id(p) in counted for p in c.members)]
        updates: Update = [(cohort.count, cohort.next()) for cohort in trained]
        for group in self.param_groups:
            for cohort in self._cohorts:
                mine = [p for p in group.params if id(p) in given and p in cohort]
                if mine:
                    decoupled = self.decouples or group.get("decoupled_weight_decay", False)
                    pairs = self._updated(mine, grads)
                    found = [(p, adjusted(group, p, grad, decoupled)) for p, grad in pairs]
                    updates += self.emit_group(group, found, cohort)
        return updates

    def state_of(self, name: str, param: Parameter) -> Slot:
        """The state array `name` of `param`, after `prepare`. Raises DataError if there is none."""
        return self._arrays.of(name, param)

    def state_dict(self) -> dict[str, Any]:
        """State and options, laid out as torch.optim's, with NumPy arrays (copies).

        Returns:
            {"state": {i: {name: array}}, "param_groups": [{..., "params": [i, ...]}]}, where i
            counts the parameters group by group. Parameters without a step have no state.
        """
        state: dict[int, dict[str, NDArray[Any]]] = {}
        groups = []
        position = 0
        for group in self.param_groups:
            indices = list(range(position, position + len(group.params)))
            position += len(indices)
            options = {key: value for key, value in group.items() if key != "params"}
            groups.append({**options, "params": indices})
            for i, param in zip(indices, group.params, strict=True):
                found = self._saved_state(group, param)
                if found:
                    state[i] = found
        return {"state": state, "param_groups": groups}

    def _saved_state(self, group: ParamGroup, param: Parameter) -> dict[str, NDArray[Any]]:
        steps, scalars = self._cohorts.of(param).past
        if self.counts_in(group) and not steps and not self.saves_initial:
            return {}
        found: dict[str, NDArray[Any]] = {}
        for name in self.used_state(group):
            value, shape = self._array(name, param), self.state_shape(name, param)
            if value is None and self.saves_initial and shape is not None:
                value = np.full(shape, self.initial(name, group), param.dtype)
            if value is not None:
                found[name] = value
        if found and self.saves_step:
            numbers = {"step": np.array(steps, np.float32), **dict(scalars)}
            found = {**{name: np.asarray(n) for name, n in numbers.items()}, **found}
        return found

    @reading("the state of an optimizer")
    @checked
    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over state and options, before the first step too; if it raises, nothing changed.

        Args:
            state_dict: from `state_dict`, or torch.optim's with its tensors as arrays. Options that
                only torch has (foreach, fused, ...) are passed over if they are off.

        Raises:
            DataError: other groups, or an option of torch's that is on and not supported here.
            ShapeError: an array of another shape.
            UnknownNameError: a state that this optimiser does not have.
        """
        for key in ("state", "param_groups"):
            if key not in state_dict:
                raise DataError(f"not the state of an optimizer: it has no {key!r}.")
        groups = state_dict["param_groups"]
        mine, given = [len(g.params) for g in self.param_groups], [len(g["params"]) for g in groups]
        if mine != given:
            raise DataError(
                f"the state has parameter groups of sizes {given}, this optimizer has {mine}."
            )
        options = [self._known_options(group) for group in groups]
        saved, pasts = self._read_state(groups, state_dict["state"])
        for group, new in zip(self.param_groups, options, strict=True):
            self._check({**group, **new})
        for group, new in zip(self.param_groups, options, strict=True):
            group.replace(new)
        self._cohorts.restore(pasts)
        self._arrays.restore(self._cut(saved), self._start_of)

    def _known_options(self, group: Mapping[str, Any]) -> dict[str, Any]:
        known = {*self.defaults, *NOTES}
        on = [k for k, v in group.items() if k not in known and k != "params" and v]
        if on:
            raise DataError(
                f"{type(self).__name__} does not support the option {on[0]}={group[on[0]]}."
            )
        return {key: plain(value) for key, value in group.items() if key in known}

    def _read_state(
        self, groups: Sequence[Mapping[str, Any]], state: Mapping[Any, Mapping[str, Any]]
    ) -> tuple[dict[str, dict[Parameter, NDArray[Any]]], dict[Parameter, Past]]:
        saved: dict[str, dict[Parameter, NDArray[Any]]] = {}
        pasts: dict[Parameter, Past] = {}
        for mine, theirs in zip(self.param_groups, groups, strict=True):
            for param, key in zip(mine.params, theirs["params"], strict=True):
                given = {k: v for k, v in dict(state.get(key, {})).items() if v is not None}
                steps = int(given.pop("step", int(bool(given))))
                scalars = tuple(
                    (name, float(given.pop(name, self.initial(name, mine))))
                    for name in self.scalar_names
                )
                pasts[param] = steps, scalars
                for name, value in given.items():
                    saved.setdefault(name, {})[param] = as_state(self, name, param, value)
        return saved, pasts

    def __setattr__(self, name: str, value: Any) -> None:
        object.__setattr__(self, name, value)
        self._edits.note()

    def _trained(self) -> list[bool]:
        return [p.requires_grad for group in self.param_groups for p in group.params]

    def _facts(self) -> int:
        """What a trace of this optimiser depends on, beside which parameters are trained."""
        return self._edits.count

    def __repr__(self) -> str:
        return f"{type(self).__name__}({', '.join(map(repr, self.param_groups))})"
