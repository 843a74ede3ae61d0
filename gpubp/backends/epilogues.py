"""Which register epilogue computes what follows a matrix product, if any does.

Comes in: a part built around a product. Goes out: the name of an epilogue of
`kernels.microkernel` with its operands, or None: then a chain over blocks of the product does it.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass, field, replace

from gpubp.compiler.parts import Compute, Operand, Part


@dataclass
class Epilogue:
    """An epilogue and its operands.

    Attributes:
        name: the activation or update, such as "bias_relu" or "adam".
        target: where the result goes, laid out as the product.
        bias: a row as long as the product's.
        state: arrays laid out as the product, read (and written, by updates) beside it.
        numbers: scalars in memory, or static numbers.
    """

    name: str
    target: Operand
    bias: Operand | None = None
    state: list[Operand] = field(default_factory=list)
    numbers: list[Operand | float] = field(default_factory=list)


def find_epilogue(part: Part, known: Collection[str]) -> Epilogue | None:
    """The epilogue for a part whose anchor is a matrix product, if it is one of `known`."""
    view = _View(part)
    names = tuple(c.spec.name for c in view.rest)
    match = _MATCHES.get(names)
    if match is None or view.product in dict(part.outputs):
        return None
    found = match(view)
    if found is None or found.name not in known:
        return None
    rows = {operand.row_step for operand in (found.target, *found.state)}
    return found if len(rows) == 1 else None


class _View:
    """A part with its product, and questions about operands."""

    def __init__(self, part: Part) -> None:
        assert part.anchor is not None
        self.part = part
        self.inputs = len(part.inputs)
        self.product = self.inputs + part.anchor
        anchor = part.body[part.anchor]
        self.shape, self.dtype = anchor.shape, anchor.dtype
        self.positions = [i for i in range(len(part.body)) if i != part.anchor]
        self.rest: list[Compute] = [part.body[i] for i in self.positions]

    def value(self, i: int) -> int:
        """The number of what the i-th op after the product makes."""
        return self.inputs + self.positions[i]

    def alike(self, value: int) -> Operand | None:
        """An operand laid out as the product, but for the distance of its rows (which all that an
        epilogue walks must have in common, see `find_epilogue`).
        """
        operand = self.part.inputs[value] if value < self.inputs else None
        if operand is None or operand.dtype != self.dtype or operand.shape != self.shape:
            return None
        return operand if _row_by_row(operand) else None

    def row(self, value: int) -> Operand | None:
        """An operand that is the same for every row of the product."""
        operand = self.part.inputs[value] if value < self.inputs else None
        if operand is None or operand.dtype != self.dtype or not operand.shape:
            return None
        same = operand.shape[-1] == self.shape[-1] and operand.strides[-1] == 1
        repeated = all(n == 1 or s == 0 for n, s in zip(operand.shape[:-1], operand.strides))
        return operand if same and repeated else None

    def scalar(self, value: int) -> Operand | None:
        """An operand with one element."""
        operand = self.part.inputs[value] if value < self.inputs else None
        if operand is None or operand.dtype != self.dtype:
            return None
        one = math.prod(operand.shape) == 1 or not any(operand.strides)
        return operand if one else None

    def outputs(self, values: Sequence[int]) -> list[Operand] | None:
        """Where values go, if the part writes these and no others, laid out as the product."""
        found = dict(self.part.outputs)
        if sorted(found) != sorted(values):
            return None
        targets = [found[v] for v in values]
        fits = all(_row_by_row(t) and t.dtype == self.dtype for t in targets)
        return targets if fits else None

    def in_place(self, olds: Sequence[int], news: Sequence[int]) -> list[Operand] | None:
        """Operands that are each overwritten by their new value."""
        sources = [self.alike(v) for v in olds]
        targets = self.outputs(news)
        if targets is None:
            return None
        found = [s for s, t in zip(sources, targets) if s is not None and _same_place(s, t)]
        return found if len(found) == len(targets) else None


def _row_by_row(operand: Operand) -> bool:
    """A contiguous array, or a matrix whose rows are farther apart than they are long."""
    if operand.contiguous or len(operand.shape) != 2:
        return operand.contiguous
    return operand.strides[1] == 1 and operand.strides[0] >= operand.shape[1]


def _same_place(a: Operand, b: Operand) -> bool:
    return (a.buffer, a.offset) == (b.buffer, b.offset)


def _bias(view: _View) -> Epilogue | None:
    bias = _bias_row(view)
    targets = view.outputs([view.value(0)])
    if bias is None or targets is None:
        return None
    return Epilogue("bias", targets[0], bias)


def _bias_row(view: _View) -> Operand | None:
    """The row that the first op adds to the product."""
    others = [a for a in view.rest[0].args if a != view.product]
    return view.row(others[0]) if len(others) == 1 else None


def _activation(view: _View) -> Epilogue | None:
    """A bias and an activation; GELU's gradient needs what the bias made, and so it is kept."""
    name = view.rest[1].spec.name
    bias, total = _bias_row(view), view.value(0)
    keeps = name == "gelu"
    targets = view.outputs([total, view.value(1)] if keeps else [view.value(1)])
    if bias is None or targets is None or view.rest[1].args != (total,) or not _exact(view, 1):
        return None
    return Epilogue(f"bias_{name}", targets[-1], bias, targets[:-1])


def _gradient(view: _View) -> Epilogue | None:
    cotangent, saved = view.rest[0].args
    operand, targets = view.alike(saved), view.outputs([view.value(0)])
    if cotangent != view.product or operand is None or targets is None or not _exact(view, 0):
        return None
    if _same_place(operand, targets[0]):
        return None  # the product is stored before the saved value is read
    return Epilogue(view.rest[0].spec.name, targets[0], state=[operand])


def _exact(view: _View, i: int) -> bool:
    """The i-th op is not the approximate GELU."""
    return bool(view.rest[i].attrs.get("approximate", "none") == "none")


def _sgd(view: _View) -> Epilogue | None:
    w, gradient, lr = view.rest[0].args
    places, rate = view.in_place([w], [view.value(0)]), view.scalar(lr)
    if gradient != view.product or places is None or rate is None:
        return None
    return Epilogue("sgd", places[0], numbers=[rate])


def _momentum(view: _View) -> Epilogue | None:
    average, update = view.rest
    buffer, gradient = average.args
    w, direction, lr = update.args
    places = view.in_place([buffer, w], [view.value(0), view.value(1)])
    rate = view.scalar(lr)
    plain = gradient == view.product and direction == view.value(0)
    if not plain or places is None or rate is None:
        return None
    attrs = average.attrs
    numbers = [rate, attrs["momentum"], 1 - attrs["dampening"]]
    return Epilogue("momentum", places[1], state=[places[0]], numbers=numbers)


def _adam(view: _View) -> Epilogue | None:
    return _adam_of(view, 0, view.product)


def _adam_decay(view: _View) -> Epilogue | None:
    """Adam on the gradient plus a multiple of the weights (an L2 penalty)."""
    scaled, total = view.rest[:2]
    weights = view.rest[4].args[0]
    factors = [a for a in scaled.args if a != weights]
    if len(factors) != 1 or sorted(total.args) != sorted((view.product, view.value(0))):
        return None
    found, decay = _adam_of(view, 2, view.value(1)), view.scalar(factors[0])
    if found is None or decay is None:
        return None
    return replace(found, name="adam_decay", numbers=[*found.numbers, decay])


def _adam_of(view: _View, start: int, gradient: int) -> Epilogue | None:
    """Adam's three ops from the `start`-th after the product on, applied to `gradient`."""
    first, second, update = view.rest[start:]
    w, m, v, size, root = update.args
    news = [view.value(start + i) for i in range(3)]
    places = view.in_place([first.args[0], second.args[0], w], news)
    scalars = [s for s in (view.scalar(size), view.scalar(root)) if s is not None]
    plain = first.args[1] == second.args[1] == gradient
    if not plain or (m, v) != (news[0], news[1]):
        return None
    if places is None or len(scalars) != 2:
        return None
    decays = [d for op in (first, second) for d in (op.attrs["decay"], 1 - op.attrs["decay"])]
    numbers: list[Operand | float] = [*scalars, *decays, update.attrs["eps"]]
    return Epilogue("adam", places[2], state=places[:2], numbers=numbers)


_MATCHES: dict[tuple[str, ...], Callable[[_View], Epilogue | None]] = {
    ("add",): _bias,
    **{("add", name): _activation for name in ("relu", "sigmoid", "tanh", "gelu")},
    **{(f"{name}_grad",): _gradient for name in ("relu", "sigmoid", "tanh", "gelu")},
    ("sgd_update",): _sgd,
    ("momentum_update", "sgd_update"): _momentum,
    ("ema", "ema_square", "adam_update"): _adam,
    ("multiply", "add", "ema", "ema_square", "adam_update"): _adam_decay,
}
