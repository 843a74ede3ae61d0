"""What every optimiser is: parameter groups, state beside the parameters, an update rule as ops.

Comes in: parameters, options, and (inside a trace) one gradient for each parameter. Goes out:
(slot, new value) pairs that the step's program writes at its end.

Holds in between: numbers that change from step to step (learning rates, the step count) live in
slots and are read by the program, so a compiled step never freezes them; every other option is
baked into the trace, and changing one makes the step trace again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp import ops
from gpubp.core import Array, assume
from gpubp.errors import DataError, ShapeError, UnknownNameError, unknown_name
from gpubp.nn.parameter import Parameter
from gpubp.optim.group import ParamGroup, Params, as_groups, checked_params
from gpubp.store import Slot, siblings

Update = list[tuple[Slot, Array]]


class Optimizer(ABC):
    """Base of optimisers.

    Args:
        params: parameters, or dicts of "params" and options that differ from the defaults.
        defaults: every option and its default value.

    Attributes:
        param_groups: as in torch; `param_groups[0]["lr"] = 0.01` takes effect at the next step.
        step_count: int64 scalar slot: steps taken, by optimisers that need to know.

    Raises:
        DataError: no parameters, one of them twice, or an option out of its range.
        TypeError: something that is not a Parameter.
        UnknownNameError: an option that this optimiser does not have.
    """

    state_names: tuple[str, ...] = ()
    saves_step = True

    def __init__(self, params: Params, defaults: Mapping[str, Any]) -> None:
        self.defaults = dict(defaults)
        self.param_groups: list[ParamGroup] = []
        self.step_count = Slot("t", 0, np.int64)
        self._state: dict[str, dict[int, Slot]] = {}
        self._pending: dict[str, dict[int, NDArray[Any]]] = {}
        self._version = 0
        for group in as_groups(params):
            self.add_param_group(group)
        if not self.param_groups or not any(g.params for g in self.param_groups):
            raise DataError(
                "the optimizer got no parameters. Pass model.parameters(); an iterator that was "
                "used before is empty."
            )

    @abstractmethod
    def check(self, options: Mapping[str, Any]) -> None:
        """Raise DataError if an option is out of its range."""

    @abstractmethod
    def used_state(self, group: ParamGroup) -> tuple[str, ...]:
        """The names of the state arrays that this group's options need."""

    @abstractmethod
    def counts_steps(self) -> bool:
        """Whether the update needs the number of steps taken."""

    @abstractmethod
    def emit_group(
        self, group: ParamGroup, grads: list[tuple[Parameter, Array]], new_count: Array | None
    ) -> Update:
        """Append the update of one group's parameters to the trace.

        Args:
            group: the options.
            grads: the gradient of each trained parameter; sign and weight decay are done.
            new_count: the step count after this step, int64 scalar; None if steps do not count.
        """

    def add_param_group(self, group: Mapping[str, Any]) -> None:
        """Add parameters with options of their own.

        Args:
            group: "params" (a parameter or an iterable of them) and options.
        """
        params = checked_params(group.get("params", ()))
        extra = [key for key in group if key != "params" and key not in self.defaults]
        if extra:
            raise unknown_name(f"option of {type(self).__name__}", extra[0], self.defaults)
        known = {id(p) for g in self.param_groups for p in g.params}
        twice = [p.name for p in params if id(p) in known or params.count(p) > 1]
        if twice:
            raise DataError(f"parameter {twice[0]} was given twice; give each to one group, once.")
        options = {key: group.get(key, value) for key, value in self.defaults.items()}
        self.param_groups.append(ParamGroup(params, options, self.check, self._changed))
        self._changed()

    def parameters(self) -> list[Parameter]:
        """All parameters with requires_grad, group by group."""
        assume(self._facts)
        return [p for group in self.param_groups for p in group.params if p.requires_grad]

    def prepare(self) -> None:
        """Create the state arrays, once the parameters have their banks. May be called again."""
        names: dict[str, list[Parameter]] = {}
        for group in self.param_groups:
            for name in self.used_state(group):
                known = self._state.setdefault(name, {})
                new = [p for p in group.params if p.requires_grad and id(p) not in known]
                names.setdefault(name, []).extend(new)
        for name, params in names.items():
            for param, slot in zip(params, siblings(name, params), strict=True):
                self._state[name][id(param)] = slot
                saved = self._pending.get(name, {}).pop(id(param), None)
                if saved is not None:
                    slot.value = saved

    def emit(self, grads: Mapping[int, Array]) -> Update:
        """Append the update to the trace.

        Args:
            grads: the traced gradient for each id(parameter).

        Returns:
            (slot, new value) for each parameter in `grads`, its state, and the step count.
        """
        assume(self._facts)
        updates: Update = []
        new_count = None
        if self.counts_steps():
            new_count = ops.add(self.step_count, 1)
            updates.append((self.step_count, new_count))
        for group in self.param_groups:
            found = [(p, _adjusted(group, p, grads[id(p)])) for p in group.params if id(p) in grads]
            updates += self.emit_group(group, found, new_count)
        return updates

    def state_of(self, name: str, param: Parameter) -> Slot:
        """The state array `name` that belongs to `param`; exists after `prepare`."""
        return self._state[name][id(param)]

    def state_dict(self) -> dict[str, Any]:
        """State and options, laid out as torch.optim's, with NumPy arrays (copies).

        Returns:
            {"state": {i: {name: array}}, "param_groups": [{..., "params": [i, ...]}]}, where i
            counts the parameters group by group. Before the first step "state" is empty.
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
        found: dict[str, NDArray[Any]] = {}
        if self.counts_steps() and not self.step_count.value:
            return found
        for name in self.used_state(group):
            slot = self._state.get(name, {}).get(id(param))
            pending = self._pending.get(name, {}).get(id(param))
            if slot is not None:
                found[name] = slot.value.copy()
            elif pending is not None:
                found[name] = pending.copy()
        if found and self.saves_step:
            found = {"step": np.array(self.step_count.value, np.float32), **found}
        return found

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Take over state and options; works before the first step too.

        If it raises, nothing has changed.

        Args:
            state_dict: from `state_dict`, or torch.optim's with its tensors as arrays. Options that
                only torch has (foreach, fused, ...) are passed over if they are off.

        Raises:
            DataError: other groups, parameters that differ in the number of steps, an option of
                torch's that is on and not supported here.
            ShapeError: an array's shape is not its parameter's.
        """
        groups = state_dict["param_groups"]
        mine = [len(g.params) for g in self.param_groups]
        given = [len(g["params"]) for g in groups]
        if mine != given:
            raise DataError(
                f"the state has parameter groups of sizes {given}, this optimizer has {mine}."
            )
        options = [self._known_options(group) for group in groups]
        saved, steps = self._read_state(groups, state_dict["state"])
        for group, new in zip(self.param_groups, options, strict=True):
            self.check({**group, **new})
        for group, new in zip(self.param_groups, options, strict=True):
            group.replace(new)
        self.step_count.value = np.int64(steps)
        self._restore(saved)

    def _known_options(self, group: Mapping[str, Any]) -> dict[str, Any]:
        on = [k for k, v in group.items() if k not in self.defaults and k != "params" and v]
        if on:
            raise DataError(
                f"{type(self).__name__} does not support the option {on[0]}={group[on[0]]}."
            )
        return {
            key: tuple(value) if isinstance(value, list) else value
            for key, value in group.items()
            if key in self.defaults
        }

    def _read_state(
        self, groups: Sequence[Mapping[str, Any]], state: Mapping[Any, Mapping[str, Any]]
    ) -> tuple[dict[str, dict[int, NDArray[Any]]], int]:
        saved: dict[str, dict[int, NDArray[Any]]] = {}
        steps: set[int] = set()
        for mine, theirs in zip(self.param_groups, groups, strict=True):
            for param, key in zip(mine.params, theirs["params"], strict=True):
                for name, value in dict(state.get(key, {})).items():
                    if name == "step":
                        steps.add(int(value))
                    elif value is not None:
                        array = self._checked_state(name, param, value)
                        saved.setdefault(name, {})[id(param)] = array
        if len(steps) > 1:
            raise DataError(
                f"the parameters took different numbers of steps ({sorted(steps)}); gpubp counts "
                "the steps of an optimizer as one."
            )
        return saved, steps.pop() if steps else int(any(saved.values()))

    def _checked_state(self, name: str, param: Parameter, value: Any) -> NDArray[Any]:
        if name not in self.state_names:
            raise UnknownNameError(f"{type(self).__name__} has no state named {name!r}.")
        array = np.array(value, dtype=param.dtype)
        if array.shape != param.shape:
            raise ShapeError(
                f"{param.name}: state {name} has shape {array.shape}, expected {param.shape}."
            )
        return array

    def _restore(self, saved: dict[str, dict[int, NDArray[Any]]]) -> None:
        for name, slots in self._state.items():
            for key, slot in slots.items():
                slot.value = saved.get(name, {}).pop(key, np.zeros(slot.shape, slot.dtype))
        self._pending = saved

    def _changed(self) -> None:
        self._version += 1

    def _facts(self) -> tuple[Any, ...]:
        """What a trace of this optimiser depends on."""
        return self._version, [p.requires_grad for g in self.param_groups for p in g.params]

    def __repr__(self) -> str:
        groups = ", ".join(map(repr, self.param_groups))
        return f"{type(self).__name__}({groups})"


def scalar(value: Any, like: Parameter) -> Any:
    """A float64 scalar cast to a parameter's dtype."""
    return ops.astype(value, like.dtype)


def require(condition: bool, message: str) -> None:
    """Raise DataError with `message` unless `condition`."""
    if not condition:
        raise DataError(message)


def _adjusted(group: ParamGroup, param: Parameter, grad: Array) -> Any:
    """The gradient to descend: sign first, then L2 weight decay g + wd w, in torch's order."""
    signed = ops.negative(grad) if group["maximize"] else grad
    decay = group["weight_decay"]
    return ops.add(signed, ops.multiply(param, decay)) if decay else signed
