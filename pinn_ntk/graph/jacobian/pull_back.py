"""Gradients of tensors that points share -> gradients of the leaves that these are computed from.

A weight may be g v / abs(v), diag(exp s) V, M * W, W + A B, W / sigma, c W: the small graph between
the leaves and the weight is walked backwards with the gradients of all rows at once, in factors
wherever `weight_rules.py` here knows how. Anything else is written out, a row a residual row or a
row an entry of the weight, whichever are fewer, and differentiated in batches.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from pinn_ntk.errors import warn
from pinn_ntk.graph import nodes
from pinn_ntk.graph.jacobian.affordable import Affordable
from pinn_ntk.graph.jacobian.generic import MAX_CHUNK, batched_vjp
from pinn_ntk.graph.jacobian.sums import gather, total
from pinn_ntk.graph.jacobian.weight_probes import Step
from pinn_ntk.graph.jacobian.weight_rules import pulled
from pinn_ntk.graph.walk import Edge, Graph
from pinn_ntk.kernel.factors import Dense, Factor, Outer

CHUNK_BYTES = 2**26
"""Bytes of cotangents that are pulled back at a time."""
SAID_FROM = 2**28
"""Bytes of row gradients that are not written out without a word."""


def pulled_back(
    graph: Graph, cotangents: Mapping[Edge, Factor], affordable: Affordable
) -> dict[str, Factor]:
    """Leaf by name -> factor, from those of tensors of the graph, over the same rows.

    ``affordable`` is asked before gradients are written out on the way; leaves that it refuses are
    left out there.
    """
    walk = _PullBack(graph, cotangents, affordable)
    for node in graph.order:
        for edge in [Edge(node, output) for output in sorted(graph.outputs[node])]:
            if edge in walk.waiting:
                walk.step(edge)
    return {name: total(factors) for name, factors in walk.parts.items()}


class _PullBack:
    """What waits at each tensor while the graph is walked, and what has arrived at the leaves."""

    def __init__(
        self, graph: Graph, cotangents: Mapping[Edge, Factor], affordable: Affordable
    ) -> None:
        self.graph, self.affordable = graph, affordable
        self.waiting = {edge: [factor] for edge, factor in cotangents.items()}
        self.started = {edge: edge for edge in cotangents}  # the shared tensor it came from
        self.parts: dict[str, list[Factor]] = {}

    def step(self, edge: Edge) -> None:
        """Take what waits at one tensor to those it is computed from."""
        factor = _turned(total(self.waiting.pop(edge)), edge.shape)
        if edge.node in self.graph.names:
            name = self.graph.names[edge.node]
            gather(self.parts.setdefault(name, []), _as_leaf(factor, edge.shape))
            return
        through = _through(self.graph, edge, factor)
        asked = (self.graph, edge, self.started[edge], factor.count)
        if through is None and self.affordable(*asked):
            for name, written in _written_out(self.graph, edge, factor.rows()):
                gather(self.parts.setdefault(name, []), written)
        for child, part in through or ():
            gather(self.waiting.setdefault(child, []), part)
            self.started.setdefault(child, self.started[edge])


def _through(graph: Graph, edge: Edge, factor: Factor) -> list[tuple[Edge, Factor]] | None:
    """What one operation makes of a factor for each of its operands; None without a rule."""
    operands: dict[Edge, list[int]] = {}
    for position, child in graph.edges(edge.node):
        operands.setdefault(child, []).append(position)
    found: list[tuple[Edge, Factor]] = []
    for child, positions in operands.items():
        parts = pulled(Step(edge, child, tuple(positions)), factor)
        if parts is None:
            return None
        found += [(child, part) for part in parts]
    return found


def _turned(factor: Factor, shape: torch.Size) -> Factor:
    """The same numbers as a row where the tensor is one, or as a column."""
    if isinstance(factor, Outer) and 1 in shape and factor.shape == tuple(shape)[::-1]:
        return Outer(factor.right, factor.left)
    return factor


def _as_leaf(factor: Factor, shape: torch.Size) -> Factor:
    """The factor of a leaf, written out where its rows and columns are not those of the leaf."""
    if isinstance(factor, Dense) or len(shape) != 2 or factor.shape == tuple(shape):
        return factor
    return Dense(factor.rows())


def _written_out(graph: Graph, edge: Edge, rows: Tensor) -> list[tuple[str, Factor]]:
    """Cotangents (R, numel) of a shared tensor times its Jacobian by its leaves."""
    by_name = {graph.names[n]: nodes.leaf(n) for n in graph.behind(edge.node) if n in graph.names}
    leaves = {name: leaf for name, leaf in by_name.items() if leaf is not None}
    through_identity = rows.shape[1] < rows.shape[0]
    _say(edge, leaves, rows)
    cotangents = torch.eye(rows.shape[1]).to(rows) if through_identity else rows
    size = max(1, min(MAX_CHUNK, CHUNK_BYTES // max(1, rows.shape[1] * rows.element_size())))
    made = GradientEdge(edge.node, edge.output)
    chunks = [
        batched_vjp(made, list(leaves.values()), chunk.view(-1, *edge.shape))
        for chunk in cotangents.split(size)
    ]
    result: list[tuple[str, Factor]] = []
    for name, *gradients in zip(leaves, *chunks, strict=True):
        flat = _flattened(gradients)
        if flat is not None:
            result.append((name, Dense(rows @ flat if through_identity else flat)))
    return result


def _flattened(gradients: Sequence[Tensor | None]) -> Tensor | None:
    parts = [g.reshape(len(g), -1) for g in gradients if g is not None]
    return torch.cat(parts) if parts else None


def _say(edge: Edge, leaves: Mapping[str, Tensor], rows: Tensor) -> None:
    entries = len(rows) * sum(leaf.numel() for leaf in leaves.values())
    size = entries * rows.element_size()
    if size > SAID_FROM:
        passes = min(rows.shape)
        warn(
            f"{math.prod(edge.shape)} numbers that {_named(leaves)} are made into by "
            f"{nodes.kind(edge.node)} have no factors: {passes} vector-Jacobian products, "
            f"{size / 2**20:.0f} MiB of rows written out, {len(rows)} of them.",
            stacklevel=2,
        )


def _named(leaves: Mapping[str, Tensor]) -> str:
    first = list(leaves)[:3]
    more = len(leaves) - len(first)
    return ", ".join(first) + (f" and {more} more" if more else "")
