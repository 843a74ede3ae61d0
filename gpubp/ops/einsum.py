"""Products over named axes: einsum, and what it generalises.

Two operands at a time become one batched matrix product: axes that both have and the result keeps
are its batch, those that only one has its rows and columns, and those that both have and nobody
keeps are summed. The pair that makes the smallest result comes first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from gpubp.arguments import shown
from gpubp.core import describe
from gpubp.errors import ArgumentError, ShapeError
from gpubp.ops import reduce
from gpubp.ops.elementwise import multiply
from gpubp.ops.linalg import matmul
from gpubp.ops.order import diagonal, moveaxis
from gpubp.ops.shape import reshape, transpose
from gpubp.ops.spec import normalized_axis, promote

Named = tuple[str, Any]  # the names of the axes, and the array


def einsum(equation: str, *operands: Any) -> Any:
    """The sum of products that an equation names.

    `einsum("bik,bkj->bij", a, b)`. Axes that the result does not name are summed; without `->` it
    has all names that stand once, in the order of the alphabet. `...` stands for any more axes,
    which broadcast.

    Args:
        equation: names of one letter for each axis of each operand, divided by commas.
        *operands: arrays, or a list of them.

    Raises:
        ArgumentError: the equation cannot be read, or has not as many parts as operands.
        ShapeError: a name has two sizes, or an operand not as many axes as names.
    """
    if len(operands) == 1 and isinstance(operands[0], (list, tuple)):
        operands = tuple(operands[0])
    if not isinstance(equation, str) or not operands:
        raise ArgumentError('einsum: expected an equation such as "ij,jk->ik", and arrays.')
    arrays = promote(*operands)
    inputs, output = _read(equation, arrays)
    named = [_plain(names, x) for names, x in zip(inputs, arrays, strict=True)]
    _require_sizes(named)
    while len(named) > 1:
        first, second = _best_pair(named, output)
        rest = [x for i, x in enumerate(named) if i not in (first, second)]
        kept = set(output).union(*(n for n, _ in rest)) if rest else set(output)
        named = [*rest, _contracted(named[first], named[second], kept)]
    names, found = _summed(named[0], set(output))
    return transpose(found, [names.index(n) for n in output]) if names != output else found


def _read(equation: str, arrays: Sequence[Any]) -> tuple[list[str], str]:
    """The names of each operand's axes, and of the result's; letters for those of `...`."""
    text = equation.replace(" ", "")
    left, arrow, right = text.partition("->")
    parts = left.split(",")
    if len(parts) != len(arrays):
        raise ArgumentError(
            f"einsum: {equation!r} names {len(parts)} operands, but {len(arrays)} were given."
        )
    extra = max([len(x.shape) - len(p.replace("...", "")) for p, x in zip(parts, arrays)] + [0])
    spare = [chr(0x3B1 + i) for i in range(max(extra, 0))] if "..." in text else []
    full = [_spelled(p, len(x.shape), spare, equation, x) for p, x in zip(parts, arrays)]
    if arrow:
        output = right.replace("...", "".join(spare))
    else:
        once = sorted(c for c in set("".join(full)) if "".join(full).count(c) == 1)
        output = "".join([*spare, *[c for c in once if c not in spare]])
    known = set("".join(full))
    if len(set(output)) != len(output) or not set(output) <= known | set(spare):
        raise ArgumentError(f"einsum: the result of {equation!r} has names twice, or unknown ones.")
    return full, "".join(c for c in output if c in known)


def _spelled(part: str, ndim: int, spare: Sequence[str], equation: str, x: Any) -> str:
    names = part.replace("...", "", 1)
    if not all(c.isalpha() and c.isascii() for c in names):
        raise ArgumentError(f"einsum: {equation!r} cannot be read: names are letters.")
    missing = ndim - len(names)
    if missing < 0 or (missing and "..." not in part):
        raise ShapeError(f"einsum: {part!r} names the axes of {describe(x)} wrongly.")
    return part.replace("...", "".join(spare[len(spare) - missing :]))


def _plain(names: str, x: Any) -> Named:
    """Each name once: of a name that stands twice the diagonal. Broadcast axes are dropped."""
    for name in dict.fromkeys(names):
        while names.count(name) > 1:
            first = names.index(name)
            second = names.index(name, first + 1)
            if x.shape[first] != x.shape[second]:
                raise ShapeError(f"einsum: {name!r} has two sizes in {describe(x)}.")
            x = moveaxis(diagonal(x, 0, first, second), -1, first)
            names = names[:second] + names[second + 1 :]
    return names, x


def _require_sizes(named: Sequence[Named]) -> None:
    sizes: dict[str, int] = {}
    for names, x in named:
        for name, n in zip(names, x.shape):
            if n != 1 and sizes.setdefault(name, n) != n:
                raise ShapeError(
                    f"einsum: {name!r} has the sizes {sizes[name]} and {n}, expected one."
                )


def _best_pair(named: Sequence[Named], output: str) -> tuple[int, int]:
    if len(named) == 2:
        return 0, 1
    best = None
    for i in range(len(named)):
        for j in range(i + 1, len(named)):
            others = [n for k, (n, _) in enumerate(named) if k not in (i, j)]
            kept = set(output).union(*others)
            sizes = _sizes(named[i], named[j])
            size = math.prod(n for name, n in sizes.items() if name in kept)
            if best is None or size < best[0]:
                best = size, i, j
    assert best is not None
    return best[1], best[2]


def _sizes(a: Named, b: Named) -> dict[str, int]:
    found: dict[str, int] = {}
    for names, x in (a, b):
        for name, n in zip(names, x.shape):
            found[name] = max(found.get(name, 1), n)
    return found


def _summed(one: Named, kept: set[str]) -> Named:
    """Without the axes that nobody needs."""
    names, x = one
    gone = tuple(i for i, name in enumerate(names) if name not in kept)
    if gone:
        x = reduce.sum(x, gone)
    return "".join(n for n in names if n in kept), x


def _contracted(a: Named, b: Named, kept: set[str]) -> Named:
    """Two operands as one; `kept` are the names that are needed later."""
    a, b = _summed(a, kept | set(b[0])), _summed(b, kept | set(a[0]))
    (first, x), (second, y) = a, b
    shared = [n for n in first if n in second]
    gone = [n for n in shared if n not in kept]
    batch = [n for n in shared if n in kept]
    if any(x.shape[first.index(n)] != y.shape[second.index(n)] for n in gone) or not gone:
        return _multiplied(a, b, kept)
    rows = [n for n in first if n not in shared]
    columns = [n for n in second if n not in shared]
    left = _arranged(a, (batch, rows, gone))
    right = _arranged(b, (batch, gone, columns))
    shape = [_sizes(a, b)[n] for n in (*batch, *rows, *columns)]
    return "".join([*batch, *rows, *columns]), reshape(matmul(left, right), shape)


def _arranged(one: Named, groups: Sequence[Sequence[str]]) -> Any:
    """As (batch axes, one axis for each other group)."""
    names, x = one
    batch, *rest = groups
    x = transpose(x, [names.index(n) for group in groups for n in group])
    shape = list(x.shape[: len(batch)])
    at = len(batch)
    for group in rest:
        shape.append(math.prod(x.shape[at : at + len(group)]))
        at += len(group)
    return reshape(x, shape)


def _multiplied(a: Named, b: Named, kept: set[str]) -> Named:
    """Element by element, where nothing can be summed in a product of matrices."""
    names = "".join(dict.fromkeys(a[0] + b[0]))
    spread = []
    for own, x in (a, b):
        present = [n for n in names if n in own]
        x = transpose(x, [own.index(n) for n in present])
        sizes = dict(zip(present, x.shape))
        spread.append(reshape(x, [sizes.get(n, 1) for n in names]))
    return _summed((names, multiply(*spread)), kept)


def tensordot(a: Any, b: Any, dims: Any = 2) -> Any:
    """Products summed over axes of both: the last `dims` of a with the first of b, or two lists."""
    a, b = promote(a, b)
    if isinstance(dims, int):
        pairs = [list(range(len(a.shape) - dims, len(a.shape))), list(range(dims))]
    else:
        if not isinstance(dims, (list, tuple)):
            raise ArgumentError(f"tensordot: dims is {shown(dims)}, expected a number or lists.")
        pairs = [list(d) if isinstance(d, (list, tuple)) else [d] for d in dims]
    if len(pairs) != 2 or len(pairs[0]) != len(pairs[1]):
        raise ArgumentError("tensordot: dims must be a number, or as many axes of each array.")
    first, second = (
        [normalized_axis(i, len(x.shape), "tensordot") for i in axes]
        for axes, x in zip(pairs, (a, b), strict=True)
    )
    for i, j in zip(first, second):  # of one element and several, the latter are summed
        if 1 in (a.shape[i], b.shape[j]) and a.shape[i] != b.shape[j]:
            a = reduce.sum(a, i, keepdims=True) if b.shape[j] == 1 else a
            b = reduce.sum(b, j, keepdims=True) if a.shape[i] == 1 else b
    if [a.shape[i] for i in first] != [b.shape[i] for i in second]:
        raise ShapeError(f"tensordot: {describe(a)} and {describe(b)} differ along {dims}.")
    rows = [i for i in range(len(a.shape)) if i not in first]
    columns = [i for i in range(len(b.shape)) if i not in second]
    middle = math.prod(a.shape[i] for i in first)
    left = reshape(transpose(a, [*rows, *first]), (math.prod(a.shape[i] for i in rows), middle))
    right = reshape(
        transpose(b, [*second, *columns]), (middle, math.prod(b.shape[i] for i in columns))
    )
    shape = [a.shape[i] for i in rows] + [b.shape[i] for i in columns]
    return reshape(matmul(left, right), shape)


def outer(a: Any, b: Any) -> Any:
    """Each element of a vector times each of another."""
    a, b = promote(a, b)
    if len(a.shape) != 1 or len(b.shape) != 1:
        raise ShapeError(f"outer: expected two vectors, got {describe(a)} and {describe(b)}.")
    return multiply(reshape(a, (-1, 1)), b)


def dot(a: Any, b: Any) -> Any:
    """The sum of products of two vectors."""
    a, b = promote(a, b)
    if len(a.shape) != 1 or a.shape != b.shape:
        raise ShapeError(
            f"dot: expected two vectors of one size, got {describe(a)} and {describe(b)}."
        )
    return reduce.sum(multiply(a, b))


def inner(a: Any, b: Any) -> Any:
    """Products summed over the last axis of both."""
    a, b = promote(a, b)
    if not a.shape or not b.shape:
        return multiply(a, b)
    return tensordot(a, b, ([len(a.shape) - 1], [len(b.shape) - 1]))


def kron(a: Any, b: Any) -> Any:
    """The Kronecker product: each element of a times all of b."""
    a, b = promote(a, b)
    ndim = max(len(a.shape), len(b.shape))
    shapes = [(*[1] * (ndim - len(x.shape)), *x.shape) for x in (a, b)]
    spaced = reshape(a, [part for n in shapes[0] for part in (n, 1)])
    within = reshape(b, [part for n in shapes[1] for part in (1, n)])
    return reshape(multiply(spaced, within), [n * m for n, m in zip(*shapes)])
