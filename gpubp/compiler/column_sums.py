"""Bias gradients beside weight gradients: column sums in the instruction of a matrix product."""

from __future__ import annotations

from collections.abc import Mapping

from gpubp.compiler.group import Group
from gpubp.compiler.grouping import Grouping
from gpubp.core import Node


def attach_column_sums(work: Grouping) -> list[list[Group]]:
    """Put each bias gradient beside the weight gradient that reads the same cotangent.

    Returns:
        One list of groups for each instruction.
    """
    hosts, order = work.products_by_source(), work.order
    groups = work.groups()
    order.together = {g: [g] for g in groups}
    for group in groups:
        host = _host_of(work, group, hosts)
        if host is not None and not any(
            order.feeds(group, g) or order.feeds(g, group) for g in order.together[host]
        ):
            order.share(host, group)
    return [shared for group, shared in order.together.items() if group is shared[0]]


def _host_of(work: Grouping, group: Group, hosts: Mapping[int, list[Group]]) -> Group | None:
    anchor = group.anchor
    if anchor is None or not anchor.spec.accumulates:
        return None
    source = work.layouts[anchor.inputs[0].index].base
    for host in hosts.get(source.index, []):
        assert host.anchor is not None
        if anchor.attrs["axis"] == (0,) and _sums_over_rows(work, host.anchor, source):
            return host
    return None


def _sums_over_rows(work: Grouping, product: Node, source: Node) -> bool:
    """The product is A^T B, and `source` is all of A or all of B."""
    if len(source.shape) != 2:
        return False
    left, right = (work.layouts[i.index] for i in product.inputs)
    if left.base is source:
        return left.shape == source.shape[::-1] and left.strides == (1, source.shape[-1])
    by_columns = left.strides[-2] <= left.strides[-1]
    return by_columns and right.base is source and right.whole and right.shape == source.shape
