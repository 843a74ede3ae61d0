"""A change of a module is seen by the next call of a program that was traced before it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from changes import MODULES, X, alike, changes, compiled_after, first_of

import gpubp as gp
from gpubp import nn

WITHOUT_FORWARD = {
    "Module",
    "KeyValueCache",
    "ModuleDict",
    "ModuleList",
    "ParameterDict",
    "ParameterList",
}


def test_every_module_is_tried() -> None:
    kinds = {n for n in nn.__all__ if isinstance(getattr(nn, n), type)}
    modules = {n for n in kinds if issubclass(getattr(nn, n), nn.Module)}
    assert modules == {name.split()[0] for name in MODULES} | WITHOUT_FORWARD


@pytest.mark.parametrize("name", MODULES)
def test_every_change_is_seen(name: str) -> None:
    """The old program gives what a new one does, which is what the module gives by itself."""
    make, inputs = MODULES[name]
    moved = 0
    first = first_of(gp.compile(make(), backend="numpy")(*inputs))
    for what, change in changes(make()):
        old, new, plain = compiled_after(make, inputs, change, "numpy")
        assert alike(old, new), f"{name}: {what}: {old} but a new program gives {new}"
        if not isinstance(plain, type) and not isinstance(new, type):
            np.testing.assert_allclose(old, plain, 1e-5, 1e-6, err_msg=what)
        moved += not alike(old, first)
    assert moved, "no change of this module changes what it gives"


@pytest.mark.parametrize("name", ["LayerNorm", "CrossEntropyLoss", "Sequential", "Dropout"])
def test_the_default_backend_sees_them_too(name: str) -> None:
    make, inputs = MODULES[name]
    for what, change in changes(make()):
        old, new, _ = compiled_after(make, inputs, change, "numba")
        assert alike(old, new), what


class Factor:
    def __init__(self, by: float) -> None:
        self.by = by

    def times(self, x: Any) -> Any:
        return x * self.by


class Net(nn.Module):
    """Holds what users' modules hold."""

    scale = 1.0

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.ModuleList([nn.Linear(4, 4), nn.Linear(4, 4)])
        self.heads = nn.ModuleDict({"a": nn.Linear(4, 4)})
        self.gains = nn.ParameterList([nn.Parameter(np.ones(4, np.float32))])
        self.shifts = nn.ParameterDict({"a": nn.Parameter(np.ones(4, np.float32))})
        self.steps = [1.0, 2.0]
        self.table = {"a": 1.0}
        self.mask = np.ones(4, np.float32)
        self.pair = (1.0, [2.0])
        self.plain = [nn.Tanh(), nn.ReLU()]
        self.parts = [Factor(1.5), Factor(2.0)]
        self.named = {"b": Factor(1.0)}

    def forward(self, x: Any) -> Any:
        for layer in self.layers:
            x = layer(x)
        for name, head in self.heads.items():
            x = x + head(x) * self.table.get(name, 3.0)
        for gain in self.gains:
            x = x * gain
        for shift in self.shifts.values():
            x = x + shift
        for step in self.steps:
            x = x * step
        for part in self.plain:
            x = part(x)
        for factor in self.parts:
            x = factor.times(x)
        x = x * self.named["b"].by
        return self.bent(x * self.mask) * self.scale * self.pair[0] * self.pair[1][0]

    def bent(self, x: Any) -> Any:
        return x if getattr(self, "bend", None) is None else x * self.bend


def _in_place(net: Net) -> None:
    net.mask[2] = 0.0


def _of_a_view(net: Net) -> None:
    net.mask[1:3][:] = 5.0


NET_CHANGES: dict[str, Any] = {
    "append to a ModuleList": lambda n: n.layers.append(nn.Tanh()),
    "replace in a ModuleList": lambda n: n.layers.__setitem__(0, nn.Tanh()),
    "insert into a ModuleList": lambda n: n.layers.insert(0, nn.Tanh()),
    "delete from a ModuleList": lambda n: n.layers.__delitem__(1),
    "another ModuleList": lambda n: setattr(n, "layers", nn.ModuleList([nn.Tanh()])),
    "add to a ModuleDict": lambda n: n.heads.update({"b": nn.Linear(4, 4)}),
    "pop from a ModuleDict": lambda n: n.heads.pop("a"),
    "clear a ModuleDict": lambda n: n.heads.clear(),
    "append to a ParameterList": lambda n: n.gains.append(nn.Parameter(2 * np.ones(4, "f4"))),
    "replace in a ParameterDict": lambda n: n.shifts.update(
        {"a": nn.Parameter(3 * np.ones(4, "f4"))}
    ),
    "a parameter's values": lambda n: setattr(n.gains[0], "value", np.full(4, 3.0)),
    "an attribute of an inner module": lambda n: setattr(n.layers[0], "in_features", 4),
    "a weight of an inner module": lambda n: setattr(
        n.layers[0], "weight", nn.Parameter(np.ones((4, 4), np.float32))
    ),
    "append to a list": lambda n: n.steps.append(0.5),
    "an element of a list": lambda n: n.steps.__setitem__(0, 0.25),
    "an entry of a dict": lambda n: n.table.__setitem__("a", 0.25),
    "pop from a dict": lambda n: n.table.pop("a"),
    "an element of an array": _in_place,
    "a part of an array": _of_a_view,
    "another array": lambda n: setattr(n, "mask", np.full(4, 2.0, np.float32)),
    "a list in a tuple": lambda n: n.pair[1].__setitem__(0, 0.5),
    "a plain object in a list": lambda n: setattr(n.parts[1], "by", 5.0),
    "a plain object in a dict": lambda n: setattr(n.named["b"], "by", 5.0),
    "a module in a plain list": lambda n: n.plain.__setitem__(0, nn.Sigmoid()),
    "an attribute before the class's": lambda n: setattr(n, "scale", 4.0),
    "an attribute that was not there": lambda n: setattr(n, "bend", 2.0),
    "a method of its own": lambda n: setattr(n, "bent", lambda x: x * 7.0),
    "a parameter that was not there": lambda n: setattr(
        n, "bend", nn.Parameter(np.full(4, 2.0, np.float32))
    ),
    "train mode of one part": lambda n: n.layers[0].eval(),
}


@pytest.mark.parametrize("what", NET_CHANGES)
def test_what_users_modules_hold(what: str) -> None:
    net = Net()
    f = gp.compile(net)
    before = f(X)
    NET_CHANGES[what](net)
    found = f(X)
    np.testing.assert_allclose(found, np.asarray(net(X)), 1e-5, 1e-6)
    assert what.startswith(("an attribute of an", "train mode")) or not np.allclose(found, before)


def test_attributes_of_users_classes() -> None:
    net = Net()
    f = gp.compile(net)
    f(X)
    try:
        Net.scale = 3.0
        np.testing.assert_allclose(f(X), np.asarray(net(X)), 1e-5, 1e-6)
    finally:
        Net.scale = 1.0
    np.testing.assert_allclose(f(X), np.asarray(net(X)), 1e-5, 1e-6)


def test_a_change_back_and_forth() -> None:
    layer = nn.LeakyReLU(0.1)
    f = gp.compile(layer)
    for slope in (0.1, 0.5, 0.1, 0.1, 0.9, 0.1):
        layer.negative_slope = slope
        np.testing.assert_allclose(f(X), np.where(X > 0, X, X * np.float32(slope)), 1e-6)


def test_what_the_traced_function_reads_itself() -> None:
    """Not only modules that are called: whoever reads an attribute."""
    options, layer = nn.Dropout(0.25), nn.Linear(4, 4)
    f = gp.compile(lambda x: x * options.p + layer.weight)
    for p in (0.25, 0.5):
        options.p = p
        layer.weight = nn.Parameter(np.full((4, 4), p, np.float32))
        np.testing.assert_allclose(f(X[:4]), X[:4] * np.float32(p) + np.float32(p), 1e-6)


def test_numbers_that_are_equal_but_not_alike() -> None:
    class Kinds(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.by: Any = 1

        def forward(self, x: Any) -> Any:
            return x * 2.0 if isinstance(self.by, bool) else x * 3.0 + 1.0 / self.by

    module = Kinds()
    f = gp.compile(module)
    for by in (1, True, 1.0, np.float32(1.0), True, 4.0, 1e-30):
        module.by = by
        np.testing.assert_allclose(f(X), np.asarray(module(X)), 1e-6)


def test_what_the_trace_wrote_itself_is_no_fact() -> None:
    class Notes(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.traced = 0

        def forward(self, x: Any) -> Any:
            self.last = x.shape
            seen.append(1)
            return x * float(len(self.last))

    seen: list[int] = []
    module = Notes()
    f = gp.compile(module)
    for _ in range(3):
        f(X)
    assert len(seen) == 1
    module.last = (1, 2, 3)
    f(X)
    assert len(seen) == 1, "what is written before it is read does not matter"


def test_what_counts_its_calls_is_traced_at_each_one() -> None:
    class Counter(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.calls = 0

        def forward(self, x: Any) -> Any:
            self.calls += 1
            return x * float(self.calls)

    f = gp.compile(Counter())
    for i in (1, 2, 3):
        np.testing.assert_allclose(f(X), X * np.float32(i), 1e-6)


def test_changes_elsewhere_cost_no_trace() -> None:
    traced: list[int] = []
    layer, other = nn.Linear(4, 4), nn.Dropout(0.5)

    def fn(x: Any) -> Any:
        traced.append(1)
        return layer(x)

    f = gp.compile(fn)
    for p in (0.1, 0.2, 0.3):
        other.p = p
        layer.note = str(p)
        nn.Linear(3, 3).eval()
        f(X)
    assert len(traced) == 1


def test_copies_of_modules_in_a_trace_read_all_of_the_original() -> None:
    import copy

    loss = nn.CrossEntropyLoss()

    def each(x: Any, y: Any) -> Any:
        other = copy.copy(loss)
        other.reduction = "none"
        return other(x, y)

    f, labels = gp.compile(each), np.zeros(6, np.int64)
    before = f(X, labels)
    loss.label_smoothing = 0.5
    after = f(X, labels)
    np.testing.assert_allclose(after, np.asarray(each(X, labels)), 1e-5)
    assert not np.allclose(before, after)
