"""Which parameters are not served by pulling back the rows of a shared tensor: it would cost more.

A tensor that is computed from parameters by what has no rule, or by the network from points that
all rows share, is pulled back to its leaves a row at a time and written out (`pull_back.py`). Where
that takes too many passes or too much memory, a sample of the rows of the residual itself is
differentiated instead.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping

from pinn_ntk.graph import nodes
from pinn_ntk.graph.jacobian.mixing import mixed_results
from pinn_ntk.graph.walk import Edge, Graph
from pinn_ntk.kernel.bounds import EXACT

TOO_LARGE = "what it is computed to takes too much memory row by row"
"""Reason for a parameter of which a weight is computed, rows of which would be written out."""

Refuse = Callable[[Mapping[str, str]], Collection[str]]
"""Parameters that take a pass a row, and why -> those of them that are not to."""

_COPIES = 2  # of the rows at a shared tensor: by site, and their sum


class Affordable:
    """Asked before rows are written out, of one residual.

    Attributes:
        mixed: Parameter -> why its rows were pulled back one by one, see `mixing.py`.
        reasons: Parameter -> why they were not.
    """

    def __init__(self, refuse: Refuse = lambda _: (), held: int = EXACT.held) -> None:
        """``held`` is for all rows that are written out, in bytes."""
        self.mixed: dict[str, str] = {}
        self.reasons: dict[str, str] = {}
        self._refuse, self._left = refuse, held

    def __call__(self, graph: Graph, edge: Edge, started: Edge, rows: int) -> bool:
        """Whether ``rows`` gradients of a tensor may be pulled back to the leaves behind it.

        ``started`` is the shared tensor that they came from.
        """
        names = graph.names_behind(edge.node)
        mixed = mixed_results(graph, [started])
        size = rows * _entries(graph, edge) * nodes.output_dtype(edge.node, edge.output).itemsize
        refused = dict(mixed) if mixed and self._refuse(mixed) else {}
        if size > self._left:
            refused = dict.fromkeys(names, TOO_LARGE) | refused
        self.reasons |= refused
        if refused:
            return False
        self.mixed |= mixed
        self._left -= size
        return True


def _entries(graph: Graph, edge: Edge) -> int:
    """Numbers of a row that are held, at a shared tensor and at its leaves."""
    leaves = [nodes.leaf(k) for k in graph.behind(edge.node) if k in graph.names]
    return _COPIES * edge.shape.numel() + sum(x.numel() for x in leaves if x is not None)
