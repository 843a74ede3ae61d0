"""Models as JSON: the class and the constructor's arguments of each module of `gpubp.nn`.

Comes in: a module. Goes out: a description from which an equal one is built (its weights apart), or
an error that names the module which cannot be described. Only classes of `gpubp.nn` are looked
up, by name, and only with numbers, strings and lists as arguments: a file cannot run code.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from gpubp import nn
from gpubp.errors import CheckpointError, DataError, GpubpError
from gpubp.nn.module import Module
from gpubp.ops.random import default_generator

_CHILDREN, _TIED = "modules", "tied"


def describe(module: Module) -> dict[str, Any]:
    """What `build` needs to make a module of the same structure.

    Args:
        module: a Sequential of modules of `gpubp.nn`, nested as deep as you like, or one module.
            Weights that are one stay one.

    Raises:
        CheckpointError: a module of another class, or an argument that is no JSON value.
    """
    found = _described(module)
    groups = tied(module)
    return {**found, _TIED: groups} if groups else found


def tied(module: Module) -> list[list[str]]:
    """The names of each parameter or buffer that has several, in the order of registration."""
    names: dict[int, list[str]] = {}
    for name, slot in module._slots_by_name().items():
        names.setdefault(id(slot), []).append(name)
    return [group for group in names.values() if len(group) > 1]


def _described(module: Module) -> dict[str, Any]:
    name = type(module).__name__
    if getattr(nn, name, None) is not type(module):
        raise CheckpointError(
            f"{name} is not a module of gpubp.nn, so a file cannot describe it. Save the weights "
            "alone, and load them into a model that your own code builds."
        )
    if isinstance(module, nn.Sequential):
        return {"type": name, _CHILDREN: [_described(child) for child in module]}
    found = {"type": name, "args": _arguments(module)}
    if list(module.children()):
        _check_built_again(module, found)
    return found


def _check_built_again(module: Module, description: dict[str, Any]) -> None:
    """Its constructor makes the modules that it holds; raise if they were changed afterwards."""
    name = type(module).__name__
    if not hasattr(module, "constructor_arguments"):
        raise CheckpointError(
            f"{name} holds other modules, which a file describes in a Sequential alone."
        )
    again = build(description)
    if repr(again) != repr(module) or _shapes(again) != _shapes(module):
        raise CheckpointError(
            f"{name} was changed after it was made, and a file describes what the constructor "
            "makes. Save the weights alone, and load them into a model that your own code builds."
        )


def _shapes(module: Module) -> list[tuple[str, tuple[int, ...]]]:
    return [(name, slot.shape) for name, slot in module._slots_by_name().items()]


def _arguments(module: Module) -> dict[str, Any]:
    """Constructor arguments: those a module tells, or its attributes of the same names."""
    found: dict[str, Any] = {}
    if hasattr(module, "constructor_arguments"):
        for name, value in module.constructor_arguments().items():
            found[name] = _described(value) if isinstance(value, Module) else value
            _check_plain(module, name, found[name], isinstance(value, Module))
        return found
    for name in inspect.signature(type(module).__init__).parameters:
        if name == "dtype":
            dtypes = [str(p.dtype) for p in module.parameters()]
            found.update({name: dtypes[0]} if dtypes else {})
        elif name != "self" and hasattr(module, name):
            value = getattr(module, name)
            if name in module._parameters:
                value = value is not None
            _check_plain(module, name, value)
            found[name] = list(value) if isinstance(value, tuple) else value
    return found


def _check_plain(module: Module, name: str, value: Any, described: bool = False) -> None:
    if not (described or _is_plain(value)):
        raise CheckpointError(
            f"{type(module).__name__}: its {name} is a {type(value).__name__}, which a file cannot "
            "describe."
        )


def _is_plain(value: Any) -> bool:
    if isinstance(value, (list, tuple)):
        return all(_is_plain(v) for v in value)
    return value is None or isinstance(value, (bool, int, float, str))


def build(description: Mapping[str, Any]) -> Module:
    """A module of the described structure; the default random generator is left as it is.

    Raises:
        CheckpointError: an unknown class, or arguments that it refuses.
    """
    before = default_generator.state.value.copy()
    try:
        return drawn(description)
    finally:
        default_generator.state.value = before


def drawn(description: Mapping[str, Any]) -> Module:
    """The same, with weights that the default random generator draws, and stands behind.

    Raises:
        CheckpointError: as `build`.
    """
    module = _build(description)
    _tie(module, description.get(_TIED, []))
    return module


def _tie(module: Module, groups: Any) -> None:
    """Make one of the parameters or buffers of each group of names."""
    try:
        for first, *others in groups:
            slots = module._slots_by_name()
            for name in others:
                if slots[name].shape != slots[first].shape or type(slots[name]) is not type(
                    slots[first]
                ):
                    raise CheckpointError(
                        f"{first} and {name} differ in shape: they cannot be one."
                    )
                owner, _, attribute = name.rpartition(".")
                setattr(module.get_submodule(owner), attribute, slots[first])
    except (GpubpError, TypeError, KeyError, ValueError, AttributeError) as error:
        raise CheckpointError(f"the weights cannot be tied as described: {error}.") from error


def _argument(value: Any) -> Any:
    if isinstance(value, Mapping):
        return _build(value)
    return tuple(value) if isinstance(value, list) else value


def _build(description: Mapping[str, Any]) -> Module:
    try:
        name = str(description["type"])
        cls = getattr(nn, name, None)
        if not (isinstance(cls, type) and issubclass(cls, Module)):
            raise CheckpointError(
                f"the file describes a module {name!r}, which this gpubp does not have."
            )
        if _CHILDREN in description:
            return cls(*[_build(child) for child in description[_CHILDREN]])
        arguments = dict(description["args"])
        return cls(**{k: _argument(v) for k, v in arguments.items()})
    except (GpubpError, TypeError, KeyError, ValueError, AttributeError) as error:
        if isinstance(error, CheckpointError):
            raise
        raise CheckpointError(f"the model cannot be built as described: {error}.") from error


def again(model: Module) -> Callable[[], Module]:
    """Makes models like this one, with weights that are drawn anew."""
    try:
        described = describe(model)
    except CheckpointError as error:
        raise DataError(
            f"members cannot be made again from the {type(model).__name__} alone: pass a function "
            'that makes one, population={"n": ..., "initial": make_model}.'
        ) from error

    def initial() -> Module:
        made = drawn(described)
        for name, slot in made._slots_by_name().items():
            wanted = model._slots_by_name()[name].dtype
            if slot.dtype != wanted:
                raise DataError(
                    f"{name} is of {wanted}, and a model that is made again has {slot.dtype}: pass "
                    'population={"n": ..., "initial": make_model}.'
                )
        return made

    return initial
