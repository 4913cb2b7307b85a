"""Bytes of what a graph makes, and of the cotangents that come back through it."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.walk import Edge, postorder

_LIVE = 1 / 3  # share of the results of a graph whose cotangents live at once; 0.28 to 0.37 seen


def output_bytes(node: Node, output: int = 0) -> int:
    """Bytes of a result in the graph."""
    return nodes.output_shape(node, output).numel() * nodes.output_dtype(node, output).itemsize


def live_bytes(residual: Tensor) -> int:
    """About what one backward pass of a residual holds at once."""
    behind = () if residual.grad_fn is None else postorder(residual.grad_fn)
    return int(_LIVE * sum(output_bytes(node) for node in behind if nodes.leaf(node) is None))


def in_groups(edges: Sequence[Edge], budget: int) -> list[list[Edge]]:
    """Results of a graph in groups whose cotangents take ``budget`` bytes, or of one each."""
    groups: list[list[Edge]] = []
    room = 0
    for edge in edges:
        size = output_bytes(edge.node, edge.output)
        if not groups or size > room:
            groups.append([])
            room = budget
        groups[-1].append(edge)
        room -= size
    return groups
