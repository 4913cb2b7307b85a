"""Which parameters are not served by pulling back the rows of a shared tensor: it would cost more.

A tensor that is computed from parameters, or by the network from points that all rows share, is
pulled back to its leaves a row at a time and written out (`assemble.py`). Where that takes too many
passes or too much memory, a sample of the rows of the residual itself is differentiated instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence

from torch import Tensor

from pinn_ntk.graph.jacobian.assemble import Contribution, written_out
from pinn_ntk.graph.walk import Graph

TOO_LARGE = "what it is computed to takes too much memory row by row"
"""Reason for a parameter of which a weight is computed, rows of which would be written out."""

Refuse = Callable[[Mapping[str, str]], Collection[str]]
"""Parameters that take a pass a row, and why -> those of them that are not to."""


def refused(
    graph: Graph,
    contributions: Sequence[Contribution],
    residual: Tensor,
    mixed: Mapping[str, str],
    refuse: Refuse,
    held: int,
) -> dict[str, str]:
    """Parameter -> reason; ``mixed`` as of `mixing.py`, rows written out are to fit ``held``."""
    slow = {name: mixed[name] for name in (refuse(mixed) if mixed else ())}
    return slow | dict.fromkeys(_too_large(graph, contributions, residual, held), TOO_LARGE)


def without(
    graph: Graph, contributions: Sequence[Contribution], names: Collection[str]
) -> list[Contribution]:
    """Contributions to other parameters."""
    unwanted = set(names)
    return [c for c in contributions if unwanted.isdisjoint(graph.names_behind(c.edge.node))]


def _too_large(
    graph: Graph, contributions: Sequence[Contribution], residual: Tensor, held: int
) -> list[str]:
    """Parameters behind shared tensors whose rows do not fit, the largest first."""
    row = residual.numel() * residual.element_size()
    edges = dict.fromkeys(contribution.edge for contribution in contributions)
    sizes = sorted(((row * written_out(graph, edge), edge) for edge in edges), key=lambda x: -x[0])
    total, names = sum(size for size, _ in sizes), []
    for size, edge in sizes:
        if total > held:
            names += graph.names_behind(edge.node)
            total -= size
    return names
