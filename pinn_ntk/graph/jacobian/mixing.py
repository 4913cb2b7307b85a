"""Results of the network that rows share as a whole, as in ``A @ net(x)`` with a fixed matrix A.

Such a result is a shared tensor like a weight: the rows with respect to it are exact, and are then
pulled back through the network, one vector-Jacobian product a row or an entry. That is what the
fallback costs, so it is said as a fallback is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.points import holds_data
from pinn_ntk.graph.walk import Edge, Graph

FEW = 256  # entries up to which a shared tensor is pulled back without a word


def mixed_results(graph: Graph, written_out: Sequence[Edge]) -> dict[str, str]:
    """Parameter name -> reason, where its rows were pulled back from a large result of the network.

    A weight that another network makes from fixed inputs looks the same, and costs the same.
    """
    reasons: dict[str, str] = {}
    for edge in written_out:
        size = math.prod(edge.shape)
        is_leaf = edge.node in graph.names
        if size > FEW and not is_leaf and _computes_from_data(graph, edge):
            reason = f"all rows share {size} entries that the network computes from data"
            reasons |= dict.fromkeys(graph.names_behind(edge.node), reason)
    return reasons


def _computes_from_data(graph: Graph, edge: Edge) -> bool:
    """Whether behind a tensor data is multiplied with a weight, and there is an activation."""
    behind = list(graph.behind(edge.node))
    bends = any(operation(node).bends for node in behind)
    return bends and any(operation(node).matrix and holds_data(graph, node) for node in behind)
