"""`gp.vmap`: a function of one sample as a function of many, graph to graph.

Comes in: a function, and where its arguments have their samples. Goes out: a function that is
traced once on stand-ins for one sample, and replayed for all of them: see `batching`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from gpubp.arguments import checked, shown
from gpubp.compiler.batching import batch, stand_in
from gpubp.compiler.grad import standing_for, transform
from gpubp.core import Array, Graph, Node, describe, tree
from gpubp.errors import ArgumentError, ShapeError, TraceError
from gpubp.ops.batched import moved, once_each


@checked
def vmap(
    fn: Callable[..., Any],
    in_dims: Any = 0,
    out_dims: Any = 0,
    randomness: str = "error",
) -> Callable[..., Any]:
    """A function of many samples, made of a function of one; as `torch.func.vmap`.

    Args:
        fn: traceable; takes and returns arrays, or nested tuples, lists and dicts of them.
        in_dims: along which axis an argument has its samples; None: every sample gets all of it.
            One for all arguments, or a tuple with one for each: again one, or nested like it.
        out_dims: where results have their samples; one for all, or nested like the result.
        randomness: of random numbers drawn inside: "error", "different" for each sample, or the
            "same" for all.

    Returns:
        The new function: usable on concrete arrays, inside `gp.compile`, under `gp.grad` and in
        `gp.vmap` again. Keyword arguments are the same for every sample.

    Raises:
        ArgumentError: `in_dims` or `out_dims` do not fit, or nothing has samples.
        ShapeError: axes out of range, or numbers of samples that differ.
        TraceError: more than 256 samples of an op without a rule; a slot that a sample writes.
    """
    if randomness not in ("error", "different", "same"):
        raise ArgumentError(
            f'vmap: randomness is {randomness!r}, expected "error", "different" or "same".'
        )

    def call(*args: Any, **kwargs: Any) -> Any:
        def body(graph: Graph, given: list[Any]) -> Any:
            leaves, structure = tree.flatten(given)
            dims = _spread(in_dims, list(given), "in_dims")
            return _mapped(graph, fn, kwargs, (leaves, structure, dims), out_dims, randomness)

        return transform(body)(*args)

    return standing_for(fn, call)


def _mapped(
    graph: Graph,
    fn: Callable[..., Any],
    kwargs: dict[str, Any],
    given: tuple[list[Any], Any, list[int | None]],
    out_dims: Any,
    randomness: str,
) -> Any:
    leaves, structure, dims = given
    samples = _samples(leaves, dims)
    values: dict[int, Array] = {}
    start, args = len(graph.nodes), []
    written = list(graph.writes)
    for leaf, dim in zip(leaves, dims, strict=True):
        if dim is None:
            args.append(leaf)
            continue
        front = moved(leaf, dim % len(leaf.shape), 0)
        node = stand_in(graph, front.shape[1:], front.dtype)
        values[node.index] = front
        args.append(Array(graph, node))
    out = fn(*tree.unflatten(structure, args), **kwargs)
    results, shape = tree.flatten(out)
    nodes = [graph.lift(r) for r in results]
    places = _spread(out_dims, out, "out_dims")
    writes = [n for entry in graph.writes if entry not in written for n in entry[1:]]
    again: dict[int, Node] = {}
    made = batch(graph, [*nodes, *writes], values, samples, randomness, start, again)
    if any(m is not None for m in made[len(nodes) :]):
        raise TraceError(
            "vmap: the function writes a value of its sample to a parameter or buffer, which has "
            "no axis of samples. Put the module into eval mode, or return the value."
        )
    for slot, n in list(graph.writes):
        if n.index in again:
            graph.assign(slot, again[n.index])
    nodes = [again.get(n.index, n) for n in nodes]
    return tree.unflatten(
        shape, [_placed(graph, n, m, p, samples) for n, m, p in zip(nodes, made, places)]
    )


def _placed(graph: Graph, node: Node, made: Array | None, place: int | None, samples: int) -> Any:
    """A result with its samples where `out_dims` want them."""
    if place is None:
        if made is not None:
            raise ArgumentError(
                "vmap: out_dims are None for a result that differs from sample to sample."
            )
        return Array(graph, node)
    rank = len(node.shape) + 1
    if not -rank <= place < rank:
        raise ShapeError(f"vmap: out_dims {place} is out of range for samples of {describe(node)}.")
    found = once_each(Array(graph, node), samples) if made is None else made
    return moved(found, 0, place % rank)


def _samples(leaves: Sequence[Any], dims: Sequence[int | None]) -> int:
    """How many samples there are."""
    found: set[int] = set()
    for leaf, dim in zip(leaves, dims, strict=True):
        if dim is not None:
            if not -len(leaf.shape) <= dim < len(leaf.shape):
                raise ShapeError(f"vmap: in_dims {dim} is out of range for {describe(leaf)}.")
            found.add(leaf.shape[dim])
    if not found:
        raise ArgumentError("vmap: no argument has samples: in_dims are None for all of them.")
    if len(found) > 1:
        raise ShapeError(
            f"vmap: arguments have {sorted(found)} samples along in_dims, expected one number."
        )
    return found.pop()


def _spread(dims: Any, structure: Any, name: str) -> list[int | None]:
    """One axis, or None, for each leaf of a structure."""
    if dims is None or (isinstance(dims, int) and not isinstance(dims, bool)):
        leaves, _ = tree.flatten(structure)
        return [dims] * len(leaves)
    if isinstance(dims, dict) and isinstance(structure, dict) and dims.keys() == structure.keys():
        return [d for key, part in structure.items() for d in _spread(dims[key], part, name)]
    both = (tuple, list)
    if isinstance(dims, both) and isinstance(structure, both) and len(dims) == len(structure):
        return [d for one, part in zip(dims, structure) for d in _spread(one, part, name)]
    what = f"{len(structure)} parts" if isinstance(structure, both) else type(structure).__name__
    raise ArgumentError(
        f"vmap: {name} {shown(dims)} do not fit {what}: expected an axis, None, or a structure of "
        "them like that of the arguments or results."
    )
