"""Bytes of what a graph makes, and of the cotangents that come back through it."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.points import of_points
from pinn_ntk.graph.walk import Edge, Graph, postorder

_LIVE = 1 / 3  # share of the results of a graph whose cotangents live at once; 0.28 to 0.37 seen
_ADDED = 3  # copies of written-out rows while they are added up


def output_bytes(node: Node, output: int = 0) -> int:
    """Bytes of a result in the graph."""
    return nodes.output_shape(node, output).numel() * nodes.output_dtype(node, output).itemsize


def live_bytes(residual: Tensor) -> int:
    """About what one backward pass of a residual holds at once."""
    behind = () if residual.grad_fn is None else postorder(residual.grad_fn)
    return int(_LIVE * sum(output_bytes(node) for node in behind if nodes.leaf(node) is None))


def block_bytes(graph: Graph, rows: int) -> int:
    """About what gradients by blocks of weights take (`placed.py`), and by what is no matrix.

    Where a weight is cut out of a larger one, as the levels of a latent grid, they go on to that.
    """
    points = of_points(graph)
    numbers: dict[Edge, int] = {}
    for node in graph.order:
        for position, edge in graph.edges(node):
            each = _numbers(node, position, edge.shape, rows)
            if each and edge.node not in points:
                numbers[edge] = numbers.get(edge, each) + each  # all sites, and their sum
    total = sum(
        min(number, _ADDED * edge.shape.numel()) * _itemsize(edge)
        for edge, number in numbers.items()
    )
    wholes = {
        name: leaf.numel() * leaf.element_size()
        for edge in numbers
        for name, leaf in _leaves(graph, edge)
        if leaf.numel() > edge.shape.numel()
    }
    return rows * (total + _ADDED * sum(wholes.values()))


def _leaves(graph: Graph, edge: Edge) -> Iterator[tuple[str, Tensor]]:
    for node in graph.behind(edge.node):
        leaf = nodes.leaf(node) if node in graph.names else None
        if leaf is not None:
            yield graph.names[node], leaf


def _itemsize(edge: Edge) -> int:
    return nodes.output_dtype(edge.node, edge.output).itemsize


def _numbers(node: Node, position: int, shape: torch.Size, rows: int) -> int:
    """Numbers that one operation gives each of some rows for such an operand."""
    name, out = operation(node).name, nodes.output_shape(node)
    if name in {"Trilinear", "Convolution"}:
        return 2 * shape.numel() if position == 1 and out[0] >= rows else 0
    if name in {"Embedding", "Index", "IndexSelect"}:
        of_slot, width, height = shape[1:].numel(), shape[1:].numel(), shape[0]
    elif name in {"Bmm", "Baddbmm"} and len(shape) == 3 and shape[0] > 1:
        is_left = position == (0 if name == "Bmm" else 1)
        of_slot, width, height = shape[1 if is_left else 2], shape[2], math.prod(shape[:-1])
    else:
        return 0
    return math.ceil(out.numel() / max(1, of_slot) / max(1, rows)) * (height + width)


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
