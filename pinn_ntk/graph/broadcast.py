"""Residuals (N, N) that nobody wanted: a column (N, 1) against a row (N,), seen by their shapes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.points import of_points
from pinn_ntk.graph.walk import Graph

SMALLEST = 3
"""Side from which a residual may be called broadcast; smaller ones may be anything."""


def by_accident(n: int, m: int) -> str:
    """What happened to a difference of shape (n, m), to end a sentence.

    >>> by_accident(9, 9)
    'broadcast to (9, 9) by accident, likely (N,) - (N, 1); check shapes of prediction and target'
    """
    parts = "(N,) - (N, 1)" if n == m else f"({m},) - ({n}, 1)"
    check = "check shapes of prediction and target"
    return f"broadcast to ({n}, {m}) by accident, likely {parts}; {check}"


def spread_by_accident(term: str, residual: Tensor, leaves: Mapping[str, Tensor]) -> str | None:
    """A sentence about a square residual whose rows all come of N points; None for any other.

    Nothing is computed: the shapes of the operands stand in the graph.
    """
    long = [size for size in residual.shape if size > 1]
    square = len(long) == 2 and long[0] == long[1] >= SMALLEST
    if not square or residual.grad_fn is None:
        return None
    graph, n = Graph(residual, leaves), long[0]
    points = of_points(graph)
    for node in _on_the_way(graph, residual.numel()):
        shapes = _columns_and_rows(graph, node, n, points)
        if shapes:
            column, row = shapes.get(0, (n, 1)), shapes.get(1, (n,))
            return (
                f"term {term!r} of {n * n} rows is made of tensors of shapes {column} and {row}, "
                f"{by_accident(n, n)}. So each point counts {n} times; its kernel is that of all "
                f"{n * n} rows. Write f[:, None] for a target f of shape ({n},)."
            )
    return None


def _on_the_way(graph: Graph, size: int) -> Iterator[Node]:
    """Pointwise operations and views of all entries, from the residual on."""

    def following(node: Node) -> list[Node]:
        return [edge.node for _, edge in graph.edges(node) if _whole(edge.node, size)]

    starts = [node for node in graph.order[:1] if _whole(node, size)]
    return nodes.reachable(starts, following)


def _whole(node: Node, size: int) -> bool:
    made_by = operation(node)
    known = made_by.pointwise or made_by.view
    return known and nodes.output_shape(node).numel() == size


def _columns_and_rows(
    graph: Graph, node: Node, n: int, points: set[Node]
) -> dict[int, tuple[int, ...]]:
    """Axis of the result -> shape of an operand with n points along it; empty for other shapes."""
    out = nodes.output_shape(node)
    axes = [axis for axis, size in enumerate(out) if size == n]
    found: dict[int, tuple[int, ...]] = {}
    if not operation(node).pointwise or len(axes) != 2:
        return found
    for _, edge in graph.edges(node):
        padded = (1,) * (len(out) - len(edge.shape)) + tuple(edge.shape)
        if edge.node not in points or edge.shape.numel() == 1:
            continue
        if edge.shape.numel() != n:
            return {}
        found[axes.index(padded.index(n))] = tuple(edge.shape)
    return found
