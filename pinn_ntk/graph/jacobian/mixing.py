"""Results of the network that rows share as a whole, as in ``A @ net(x)`` with a fixed matrix A.

Such a result is a shared tensor like a weight: the rows with respect to it are exact, and are then
pulled back through the network, one vector-Jacobian product a row or an entry. That is what the
fallback costs, so it is said as a fallback is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch.autograd.graph import Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.walk import Edge, Graph

if TYPE_CHECKING:
    from pinn_ntk.graph.jacobian.assemble import Contribution

FEW = 256
"""Entries up to which a shared tensor is pulled back without a word."""

MATRICES = {"AddmmBackward0": {1, 2}, "MmBackward0": {0, 1}, "BmmBackward0": {0, 1}}
"""Matrix products, and the positions of their matrices."""

NONLINEAR = {
    f"{name}Backward0"
    for name in (
        *("Cos", "Cosh", "Elu", "Erf", "Exp", "Gelu", "LeakyRelu", "Mish", "Relu", "Selu"),
        *("Sigmoid", "Silu", "Sin", "Sinh", "Softplus", "Tan", "Tanh"),
    )
}
"""Activations; a constant times a weight with none behind it may be a weight itself."""


def mixed_results(graph: Graph, contributions: Sequence[Contribution]) -> dict[str, str]:
    """Parameters whose rows were pulled back from a large result of the network.

    A weight that another network makes from fixed inputs looks the same, and costs the same.

    Args:
        graph: Graph behind the residual.
        contributions: What the sites gave.

    Returns:
        Parameter name -> reason.
    """
    reasons: dict[str, str] = {}
    for edge in dict.fromkeys(contribution.edge for contribution in contributions):
        size = math.prod(edge.shape)
        if size <= FEW or edge.node in graph.names:
            continue
        names, kinds, holds_data = _behind(graph, edge)
        if holds_data and kinds & NONLINEAR:
            reason = f"all rows share {size} entries that the network computes from data"
            reasons |= dict.fromkeys(names, reason)
    return reasons


def _behind(graph: Graph, edge: Edge) -> tuple[list[str], set[str], bool]:
    """Parameters and kinds of operations behind a tensor, and whether data meets a weight there."""
    names, kinds, holds_data = [], set(), False
    seen: set[Node] = {edge.node}
    stack = [edge.node]
    while stack:
        node = stack.pop()
        kind = nodes.kind(node)
        if node in graph.names:
            names.append(graph.names[node])
        trained = {position for position, _ in graph.edges(node)}
        kinds.add(kind)
        holds_data |= len(trained & MATRICES.get(kind, set())) == 1
        fresh = {child.node for _, child in graph.edges(node)} - seen
        seen |= fresh
        stack += fresh
    return names, kinds, holds_data
