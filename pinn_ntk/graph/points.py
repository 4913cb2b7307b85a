"""Which tensors of a graph belong to points: those that are no weights, nor computed from weights.

Points that need no gradient leave no node of their own. They show as the other factor of a product.
"""

from __future__ import annotations

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.walk import Graph


def of_points(graph: Graph) -> set[Node]:
    """Nodes that depend on something that is no parameter."""
    found: set[Node] = set()
    for node in reversed(graph.order):
        inside = any(edge.node in found for _, edge in graph.edges(node))
        if inside or node not in graph.parametric or holds_data(graph, node):
            found.add(node)
    return found


def holds_data(graph: Graph, node: Node) -> bool:
    """Whether one of two factors depends on a weight, and the other does not."""
    made_by = operation(node)
    live = [position for position, _ in graph.edges(node) if position in made_by.partners]
    if len(made_by.partners) != 2 or len(live) != 1:
        return False
    if made_by.matrix:
        return True
    if nodes.missing(node):
        return False
    other = nodes.saved(node, made_by.partners[live[0]])
    return isinstance(other, Tensor) and other.numel() > 1


def of_one_point(graph: Graph) -> bool:
    """Whether all that depends on points is (1, ..., C): components of a single one."""
    shapes = [nodes.output_shape(node) for node in of_points(graph) - graph.names.keys()]
    single = all(shape.numel() == shape[-1:].numel() for shape in shapes)
    return single and any(len(shape) > 1 for shape in shapes)
