"""The tensors that a residual is put together from, entry by entry, seen in the graph.

| symbol | meaning | shape |
| --- | --- | --- |
| r | residual, flattened | (R,) |
| g | cotangent that enters at r | (R,) |
| p | a piece, flattened | (K,) |
| s_i, k(i) | d r_i / d p_k for the one entry k(i) of the piece that row i takes from | (R,) |

Components and terms joined by `cat` or `stack`, a target of another shape that spreads N rows over
(N, N), a mean that is taken off, rows that are repeated: all are joins, selections and pointwise
operations of smaller tensors whose Jacobians are cheap. The operations are gone through from the
residual on, each by its own backward formula. That is linear in g: a second derivative of
sum_k l_k (vjp g)_k by g is s_i l_k(i), for any labels l. So s and k are read in a few passes over
these operations alone, and random labels prove that a row takes from one entry of each piece.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.jacobian.decode import LOW_PRECISION, PRECISION
from pinn_ntk.graph.walk import Edge, Graph


class Piece(NamedTuple):
    """Rows (R_p,) of the residual that take from one tensor; its entries that count are (K,)."""

    edge: Edge
    entries: Tensor  # flat numbers, in order
    rows: Tensor
    source: Tensor | None = None  # which of the entries each row takes; in order where None
    scale: Tensor | None = None  # and times what

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the tensor."""
        return nodes.output_dtype(self.edge.node, self.edge.output)

    @property
    def is_row(self) -> bool:
        """Whether it is (1, ..., C), as the components of a single point are."""
        shape = self.edge.shape
        return len(shape) > 1 and shape[-1] == shape.numel()

    def taken(self) -> Tensor:
        """Flat number of the entry that each of the rows takes, (R_p,)."""
        return self.entries if self.source is None else self.entries[self.source]

    def counts(self) -> Tensor:
        """Which entries of the tensor count, flattened."""
        found = self.entries.new_zeros(self.edge.shape.numel(), dtype=torch.bool)
        found[self.entries] = True
        return found


def whole(graph: Graph, device: torch.device) -> Piece:
    """The residual itself."""
    rows = torch.arange(graph.result.shape.numel(), device=device)
    return Piece(graph.result, rows, rows)


def through(piece: Piece, part: Piece) -> Piece:
    """Rows of the residual that take from a piece, by what that piece takes from a part."""
    entries = part.rows.new_full((piece.edge.shape.numel(),), -1)
    entries[part.rows] = part.taken()
    taken = piece.taken()
    rows = (entries[taken] >= 0).nonzero().squeeze(1)
    scales = torch.ones(len(rows), dtype=piece.dtype, device=rows.device)
    if part.scale is not None:
        full = part.scale.new_zeros(len(entries))
        full[part.rows] = part.scale
        scales = scales * full[taken[rows]]
    if piece.scale is not None:
        scales = scales * piece.scale[rows]
    return _arranged(part.edge, piece.rows[rows], entries[taken[rows]], scales)


def read_through(graph: Graph, opened: Collection[Node], device: torch.device) -> list[Piece]:
    """The tensors behind some operations; none where a row takes from several entries of one."""
    if not opened:
        return []
    found = []
    with torch.enable_grad():
        dtype = nodes.output_dtype(graph.result.node, graph.result.output)
        g = torch.ones(graph.result.shape, dtype=dtype, device=device, requires_grad=True)
        for edge, gradient in _gradients(graph, opened, g).items():
            piece = _piece(edge, gradient, g)
            if piece is None:
                return []
            if len(piece.rows):
                found.append(piece)
    return found


def _gradients(graph: Graph, opened: Collection[Node], g: Tensor) -> Mapping[Edge, Tensor]:
    """What the cotangent g brings to each piece, differentiable by g."""
    flows = {graph.result: g}
    for node in graph.order:
        if node not in opened or Edge(node) not in flows:
            continue
        given = nodes.vjp(node, flows.pop(Edge(node)))
        for position, edge in graph.edges(node):
            part = given[position]
            if part is not None:
                flows[edge] = flows[edge] + part if edge in flows else part
    return flows


def _piece(edge: Edge, gradient: Tensor, g: Tensor) -> Piece | None:
    """The rows that take from one tensor; None where some take from several of its entries."""

    def labelled(labels: Tensor) -> Tensor:
        total = (gradient * labels.view(edge.shape).to(gradient)).sum()
        if not total.requires_grad:
            return torch.zeros(g.numel(), dtype=g.dtype, device=g.device)
        return torch.autograd.grad(total, g, retain_graph=True)[0].flatten()

    size = edge.shape.numel()
    generator = torch.Generator().manual_seed(0x1F123BB5)
    random = (torch.rand(size, generator=generator, dtype=torch.float64) + 0.5).to(g.device)
    scale, drawn = labelled(torch.ones_like(random)), labelled(random)
    rows = (drawn != 0).nonzero().squeeze(1)
    dtypes = gradient.dtype, g.dtype
    precision = min((PRECISION.get(d, LOW_PRECISION) for d in dtypes), key=lambda p: p.base)
    source = _sources(labelled, scale, rows, size, precision.base)
    drawn, scale = drawn[rows].double(), scale[rows]
    if not bool(((drawn - random[source] * scale).abs() <= precision.misfit * drawn.abs()).all()):
        return None
    return _arranged(edge, rows, source, scale)


def _sources(
    labelled: Callable[[Tensor], Tensor], scale: Tensor, rows: Tensor, size: int, radix: int
) -> Tensor:
    """Number of the entry that each row takes from, digit by digit."""
    numbers = torch.arange(size, device=scale.device)
    found, place = torch.zeros_like(rows), 1
    while place < size:
        digit = labelled(numbers // place % radix)[rows].double() / scale[rows].double()
        found += place * digit.nan_to_num(0.0, 0.0, 0.0).round().long().clamp(0, radix - 1)
        place *= radix
    return found.clamp(max=size - 1)


def _arranged(edge: Edge, rows: Tensor, source: Tensor, scale: Tensor) -> Piece:
    scaled = None if bool((scale == 1).all()) else scale
    entries, inverse = source.unique(return_inverse=True)
    if len(entries) < len(source):
        return Piece(edge, entries, rows, inverse, scaled)
    order = source.argsort()
    return Piece(edge, entries, rows[order], None, None if scaled is None else scaled[order])
