"""A loop of one sample as one loop of many: the rule of `gp.vmap` for `gp.scan`.

Comes in: a loop, and which of its inputs differ from sample to sample. Goes out: one loop whose
body makes all samples' rounds, and for each of its pieces all samples. The body is replayed in a
body of its own, op by op, as the function around it is; see `batching`. A carry that differs in any
round differs from the start.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from gpubp import ops
from gpubp.compiler.loop_body import FINAL, VALUE, Body, Loop, piece
from gpubp.compiler.loop_build import add_loop, stacked
from gpubp.core import INPUT, Array, Graph, Kind, Node, tracing
from gpubp.ops.batched import once_each

Batch = Callable[[Graph, Sequence[Node], dict[int, Array], dict[int, Node]], list[Array | None]]


class Replay(NamedTuple):
    """How to make the ops of a body for all samples.

    Attributes:
        batch: as `batching.batch`, of a body, the nodes wanted, values, and what is made again.
        stand_in: as that of `batching`.
        samples: how many.
        different: random numbers differ from sample to sample.
    """

    batch: Batch
    stand_in: Callable[[Graph, Sequence[int], Any], Node]
    samples: int
    different: bool


def draws(loop: Loop) -> bool:
    """Random numbers are drawn in its rounds, or in those of a loop in it."""
    return any(_draws(n) for n in loop.body.nodes)


def _draws(node: Node) -> bool:
    kind = node.spec.kind
    return kind is Kind.RANDOM or (kind is Kind.LOOP and draws(node.attrs["loop"]))


class BatchedLoop:
    """A loop of all samples.

    Args:
        graph: the one that the loop stands in, which must be the active one.
        node: of the loop.
        stacks: which values of its body are wanted, of all rounds.
        values: by a node's index, all samples, along the first axis.
        replay: how to make the body's ops.
    """

    def __init__(
        self,
        graph: Graph,
        node: Node,
        stacks: Sequence[int],
        values: dict[int, Array],
        replay: Replay,
    ) -> None:
        self._graph, self._node, self._values = graph, node, values
        self._replay, self._samples = replay, replay.samples
        self._loop: Loop = node.attrs["loop"]
        self._varying = self._which_vary()
        self._make(stacks)

    def _which_vary(self) -> set[int]:
        """Positions of the body's inputs that differ from sample to sample."""
        loop = self._loop
        found = {i for i, n in enumerate(self._node.inputs) if n.index in self._values}
        while True:
            known = {loop.body.inputs[position].index for position in found}
            for n in loop.body.nodes:
                if (self._replay.different and _draws(n)) or any(
                    i.index in known for i in n.inputs
                ):
                    known.add(n.index)
            more = {position for position, after in loop.carries if after.index in known}
            if more <= found:
                return found
            found |= more

    def _make(self, stacks: Sequence[int]) -> None:
        loop, body = self._loop, Body(self._graph)
        copy, own = self._inputs(body)
        self._copy_ops(body, copy)
        ends = [copy[after.index] for _, after in loop.carries]
        wanted = [copy[at] for at in stacks]
        again: dict[int, Node] = {}
        with tracing(body):
            found = self._replay.batch(body, ends + wanted, own, again)
        same = [Array(body, again.get(n.index, n)) for n in ends + wanted]
        carries = []
        for k, (position, _) in enumerate(loop.carries):
            end, made = same[k], found[k]
            if position in self._varying:
                with tracing(body):
                    end = once_each(end, self._samples) if made is None else made
            carries.append((self._inside[position], end.node, self._given(position)))
        sliced = [(self._inside[p], self._given(p)) for p in loop.sliced]
        self._made = add_loop(
            self._node.spec, self._graph, body, carries, sliced, loop.length, loop.reverse
        )
        count = len(ends)
        self._stacks = dict(zip(stacks, zip(found[count:], same[count:]), strict=True))

    def _copy_ops(self, body: Body, copy: dict[int, Node]) -> None:
        """The old body's ops on inputs and stand-ins of the new one; `copy` gets them."""
        old = self._loop.body
        for n in old.nodes:
            # What an earlier vmap has replaced depends on a stand-in of its own.
            if n.index in copy or n.spec is INPUT or any(i.index not in copy for i in n.inputs):
                continue
            if n.is_leaf:
                copy[n.index] = body.constant(n.payload, n.weak)
                continue
            inputs = tuple([copy[i.index] for i in n.inputs])
            copy[n.index] = body.append(n.spec, inputs, n.attrs, n.shape, n.dtype, None, n.weak)
        rules = {at: rule for at, rule in old.rules.items() if at in copy}
        moved = {id(rule): rule.moved(body, copy) for rule in rules.values()}
        body.rules |= {copy[at].index: moved[id(rule)] for at, rule in rules.items()}

    def _inputs(self, body: Body) -> tuple[dict[int, Node], dict[int, Array]]:
        """For each of the old body's inputs a node of the new one: itself, or a stand-in."""
        loop, copy, own = self._loop, {}, {}
        moving = {position for position, _ in loop.carries} | {*loop.sliced}
        self._inside: dict[int, Node] = {}
        for position, old in enumerate(loop.body.inputs):
            varies = position in self._varying
            if position in moving:
                shape = (self._samples, *old.shape) if varies else old.shape
                inside = body.input(shape, old.dtype, old.weak)
            else:
                inside = body.capture(self._given(position))
            self._inside[position] = copy[old.index] = inside
            if varies:
                copy[old.index] = self._replay.stand_in(body, old.shape, old.dtype)
                own[copy[old.index].index] = Array(body, inside)
        return copy, own

    def _given(self, position: int) -> Node:
        """What the new loop is given in place of an input: of one to run over, time first."""
        node = self._node.inputs[position]
        if position not in self._varying:
            return node
        found = self._values.get(node.index)
        if found is None:
            found = once_each(Array(self._graph, node), self._samples)
        if position in self._loop.sliced:
            found = ops.swapaxes(found, 0, 1)
        return found.node

    def piece(self, kind: str, at: int) -> tuple[Array, bool]:
        """A piece, and whether it differs from sample to sample: then all samples."""
        if kind == VALUE:
            made, same = self._stacks[at]
            stack = stacked(self._graph, self._made, (same if made is None else made).node)
            return (stack, False) if made is None else (ops.swapaxes(stack, 0, 1), True)
        found = piece(self._made, self._graph, kind, at)
        differs = self._loop.carries[at][0] in self._varying
        return (ops.swapaxes(found, 0, 1) if differs and kind != FINAL else found), differs
