"""Weights of other libraries: which of their layers belongs to which module, and the copying.

Comes in: layers as `keras_weights.py` and `flax_weights.py` find them. Goes out: a module with
their weights, or an error that says what does not fit; then nothing has changed.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gpubp import nn
from gpubp.errors import DataError, unknown_name
from gpubp.nn.module import Module
from gpubp.train.borrowed_layers import Borrowed, kind_of, state_of

Shapes = Mapping[str, Sequence[int]]


@dataclass(frozen=True)
class Source:
    """A layer of the other library.

    Attributes:
        path: where it is, with slashes.
        kind: see `borrowed_layers.kind_of`; "" if that cannot be told from it.
        layers: its arrays, in roles: one entry, of a bidirectional layer two.
        eps: of a normalisation, if that is known.
    """

    path: str
    kind: str
    layers: list[Borrowed]
    eps: float | None = None
    taken: list[str] = field(default_factory=list)

    @property
    def plain(self) -> str:
        """The path as modules have it: with dots, without the lists that libraries put between."""
        return ".".join(part for part in self.path.split("/") if part != "layers")


def fill(
    module: Module, sources: Sequence[Source], names: Mapping[str, Any], flatten: Shapes, what: str
) -> dict[str, list[str]]:
    """Copy weights into a module.

    Args:
        module: gets them.
        sources: all layers with weights.
        names: module -> path, or paths, where order and names do not tell.
        flatten: module -> (channels, height, width) before the Flatten whose output it takes.
        what: the file, for errors.

    Returns:
        For each module with weights the paths that they are from.

    Raises:
        UnknownNameError: a module or path that does not exist.
        DataError: weights that only one side has, other shapes, layers that cannot be told apart.
    """
    targets = _targets(module)
    for name in (*names, *flatten):
        if name not in targets:
            raise unknown_name("module with weights", name, targets)
    _check_flatten(module, flatten)
    pairs = _pairs(targets, sources, names, what)
    left = [source.path for source in sources if not source.taken]
    if left:
        raise DataError(f"{what}: no module takes {_listed(left)}. {_advice(targets)}")
    state = {name: np.asarray(value) for name, value in module.state_dict().items()}
    for name, found in pairs.items():
        made = state_of(targets[name], found, flatten.get(name), f"{what}, {found[0].path}")
        for key, value in made.items():
            full = f"{name}.{key}" if name else key
            _check_shape(state, full, value, found[0].path, what)
            state[full] = value.astype(state[full].dtype)
    module.load_state_dict(state)
    return {name: [source.path for source in found] for name, found in pairs.items()}


def _targets(module: Module) -> dict[str, Module]:
    """The modules that have weights, in their order."""
    found: dict[str, Module] = {}
    for name, part in module.named_modules():
        if any(name.startswith(f"{other}." if other else "") for other in found):
            continue  # of a layer that is taken as a whole
        if kind_of(part):
            found[name] = part
        elif part._parameters or part._buffers:
            own = next(iter([*part._parameters, *part._buffers]))
            raise DataError(
                f"{name or type(part).__name__} has an array {own!r} of its own, which no layer of "
                "another library has. Put it there yourself: module.load_state_dict({...})."
            )
    return found


def _pairs(
    targets: Mapping[str, Module], sources: Sequence[Source], names: Mapping[str, Any], what: str
) -> dict[str, list[Source]]:
    by_path = {source.path: source for source in sources}
    found: dict[str, list[Source]] = {}
    for name, paths in names.items():
        for path in [paths] if isinstance(paths, str) else paths:
            if path not in by_path:
                raise unknown_name(f"layer with weights in {what}", path, by_path)
            found.setdefault(name, []).append(by_path[path])
            by_path[path].taken.append(name)
    by_name = {source.plain: source for source in sources if not source.taken}
    for name, target in targets.items():
        if name not in found and name in by_name and _layers(target) == 1:
            found[name] = [by_name[name]]
            by_name[name].taken.append(name)
    for kind in dict.fromkeys(kind_of(target) for target in targets.values()):
        wanted = [n for n, t in targets.items() if n not in found and kind_of(t) == kind]
        if wanted:
            _in_order(wanted, targets, [s for s in sources if not s.taken], kind, found, what)
    return {name: found[name] for name in targets}


def _in_order(
    wanted: Sequence[str],
    targets: Mapping[str, Module],
    sources: Sequence[Source],
    kind: str,
    found: dict[str, list[Source]],
    what: str,
) -> None:
    """The modules of one kind get the layers of that kind in the order of their numbers."""
    left = sorted((s for s in sources if s.kind == kind), key=lambda s: _numbers(s.path))
    families = {re.sub(r"(^|_)\d+(?=/|$)", "", source.path) for source in left}
    need = sum(_layers(targets[name]) for name in wanted)
    have = sum(len(source.layers) for source in left)
    if need != have or (len(families) > 1 and len(wanted) > 1):
        shown = _listed([s.path for s in left] or [s.path for s in sources if not s.kind])
        raise DataError(
            f"{what}: it cannot be told which layers are those of {_listed(wanted)} ({kind}): "
            f"there are {shown}. {_advice(wanted)}"
        )
    for name in wanted:
        taken: list[Source] = []
        while sum(len(s.layers) for s in taken) < _layers(targets[name]):
            taken.append(left.pop(0))
            taken[-1].taken.append(name)
        found[name] = taken


def _layers(target: Module) -> int:
    """How many sets of weights a module takes: of recurrent ones a layer and direction."""
    if isinstance(target, (nn.LSTM, nn.GRU, nn.RNN)):
        return int(target.num_layers * (2 if target.bidirectional else 1))
    return 1


def _numbers(path: str) -> list[tuple[str, int]]:
    """By numbers as numbers: dense, dense_1, ..., dense_10."""
    parts = [re.fullmatch(r"(.*?)_?(\d*)", part) for part in path.split("/")]
    return [(match[1], int(match[2] or 0)) for match in parts if match]


def _check_shape(
    state: Mapping[str, NDArray[Any]], name: str, value: NDArray[Any], path: str, what: str
) -> None:
    if name not in state:
        raise DataError(
            f"{what}: {path} has what the module does not: {name}, of shape {value.shape}."
        )
    if state[name].shape != value.shape:
        raise DataError(
            f"{what}: {path} gives {name} of shape {value.shape}, the module's has "
            f"{state[name].shape}."
        )


def _check_flatten(module: Module, flatten: Shapes) -> None:
    """Raise DataError for a Linear behind a Flatten of images whose size was not told.

    The other libraries have the channels last, so the inputs of such a layer stand in another
    order, which no shape shows.
    """
    images, flat = 0, False
    for name, part in module.named_modules():
        if isinstance(part, (nn.Conv1d, nn.Conv2d, nn.Conv3d)):
            images = part.out_channels
        flat = flat or (isinstance(part, nn.Flatten) and images > 0)
        if flat and isinstance(part, nn.Linear):
            if part.in_features != images and name not in flatten:
                raise DataError(
                    f"{name} takes what a Flatten makes of images, which Keras and Flax have with "
                    f"the channels last: say their shape before it, flatten={{{name!r}: "
                    f"({images}, height, width)}}."
                )
            return


def _listed(names: Sequence[str]) -> str:
    shown = ", ".join(map(repr, names[:8]))
    return shown + (f" and {len(names) - 8} more" if len(names) > 8 else "")


def _advice(names: Any) -> str:
    first = next(iter(names), "name")
    return f"Say what belongs together: names={{{first!r}: 'path/of/the/layer', ...}}."
