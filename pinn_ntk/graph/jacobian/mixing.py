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

from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.walk import Edge, Graph

if TYPE_CHECKING:
    from pinn_ntk.graph.jacobian.assemble import Contribution

FEW = 256
"""Entries up to which a shared tensor is pulled back without a word."""


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
        names, bends, holds_data = _behind(graph, edge)
        if holds_data and bends:
            reason = f"all rows share {size} entries that the network computes from data"
            reasons |= dict.fromkeys(names, reason)
    return reasons


def _behind(graph: Graph, edge: Edge) -> tuple[list[str], bool, bool]:
    """Parameters behind a tensor, and whether an activation, and data times a weight, are there."""
    names, bends, holds_data = [], False, False
    seen: set[Node] = {edge.node}
    stack = [edge.node]
    while stack:
        node = stack.pop()
        if node in graph.names:
            names.append(graph.names[node])
        made_by = operation(node)
        bends |= made_by.bends
        if made_by.matrix and len(made_by.partners) == 2:
            holds_data |= sum(i in made_by.partners for i, _ in graph.edges(node)) == 1
        fresh = {child.node for _, child in graph.edges(node)} - seen
        seen |= fresh
        stack += fresh
    return names, bends, holds_data
