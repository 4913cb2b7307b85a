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

import itertools
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.jacobian.decode import LOW_PRECISION, PRECISION
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.points import of_points
from pinn_ntk.graph.walk import Edge, Graph

MANY = 16
"""Pieces up to which each may take a pass over the whole graph."""


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


def pieces(graph: Graph, device: torch.device) -> list[Piece]:
    """What a residual is put together from; the residual itself where that is nothing smaller."""
    points = of_points(graph)
    spread, laid_out = _leading(graph, points)
    opened = _reached(graph, spread | laid_out)
    merged = opened | _shared_ways(graph, opened, points)
    fewer = _reached(graph, spread)  # which leaves u and u.T apart
    for through in dict.fromkeys(map(frozenset, (merged, opened, fewer))):
        found = _read_through(graph, through, device)
        if found and _is_cheap(graph, found):
            return found
    return [whole(graph, device)]


def _is_cheap(graph: Graph, found: Sequence[Piece]) -> bool:
    """Whether the graphs of many pieces have little in common: each takes passes of its own."""
    if len(found) <= MANY:
        return True
    sizes = (sum(1 for _ in graph.behind(piece.edge.node)) for piece in found)
    most = 4 * len(graph.order)
    return all(size <= most for size in itertools.accumulate(sizes))


def operands(graph: Graph, piece: Piece, device: torch.device) -> list[Piece]:
    """What the last pointwise operations of a piece, whose graph this is, were applied to.

    Empty if there is nothing to go through. Each operand takes passes of its own, so this is for
    rows that do not decode together: the rows of u[1:] - u[:-1] share points, those of each do not.
    """
    points = of_points(graph)
    inner = {node for node in graph.order if _goes_through(graph, node, points) and not _cuts(node)}
    parts = _read_through(graph, _reached(graph, inner), device)
    return [through(piece, part) for part in parts]


def _leading(graph: Graph, points: set[Node]) -> tuple[set[Node], set[Node]]:
    """Operations that lead to one that spreads its operands, and to one that lays out or joins.

    To the latter only operations of one operand lead.
    """
    spread: set[Node] = set()
    laid_out: set[Node] = set()
    for node in reversed(graph.order):
        if not _goes_through(graph, node, points):
            continue
        live = [edge for _, edge in graph.edges(node) if edge.node in points]
        if spreads(graph, node, points) or any(edge.node in spread for edge in live):
            spread.add(node)
        elif _lays_out(graph, node) or (len(live) == 1 and live[0].node in laid_out):
            laid_out.add(node)
    return spread, laid_out


def _shared_ways(graph: Graph, opened: set[Node], points: set[Node]) -> set[Node]:
    """Operations of one operand that lead from several pieces to the same tensor."""
    ways: dict[Edge, list[list[Node]]] = {}
    ends = {e for node in opened for _, e in graph.edges(node) if e.node not in opened}
    for end in ends:
        way: list[Node] = []
        edge = end
        while _goes_through(graph, edge.node, points) and len(graph.edges(edge.node)) == 1:
            way.append(edge.node)
            edge = graph.edges(edge.node)[0][1]
        ways.setdefault(edge, []).append(way)
    return {node for group in ways.values() if len(group) > 1 for way in group for node in way}


def _reached(graph: Graph, through: set[Node]) -> set[Node]:
    def following(node: Node) -> list[Node]:
        return [edge.node for _, edge in graph.edges(node) if edge.node in through]

    return set(nodes.reachable([graph.root], following)) if graph.root in through else set()


def _read_through(graph: Graph, opened: Collection[Node], device: torch.device) -> list[Piece]:
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


def _goes_through(graph: Graph, node: Node, points: set[Node]) -> bool:
    made_by = operation(node)
    known = made_by.pointwise or made_by.selects
    single = graph.outputs[node] == {0} and not nodes.output_dtype(node).is_complex
    return known and single and node in points


def _cuts(node: Node) -> bool:
    return operation(node).selects and not operation(node).view


def _lays_out(graph: Graph, node: Node) -> bool:
    """Whether an operation joins tensors or lays out their entries anew, other than by a slice."""
    made_by, edges = operation(node), graph.edges(node)
    if not made_by.view:
        return _cuts(node) and made_by.name not in {"Slice", "Select"}
    shapes = edges[0][1].shape, _shape(node)
    before, after = ([n for n in shape if n > 1] for shape in shapes)
    turned = len(after) > 1 and not made_by.keeps_numbers and not made_by.copies
    return turned or before != after or shapes[0][:1] != shapes[1][:1]


def spreads(graph: Graph, node: Node, points: set[Node]) -> bool:
    """Whether a pointwise operation repeats entries of what depends on the points.

    Either all that depends on them is smaller than the result, or some of it is the same along the
    longest axis, like a mean. The trained numbers of a layer are spread, too, and do not count;
    those of the points, a number each, do.
    """
    out = _shape(node)
    live = [e.shape for _, e in graph.edges(node) if e.node in points]
    if not operation(node).pointwise or not live or max(out, default=1) < 2:
        return False
    if any(e.node in graph.names and e.shape == out for _, e in graph.edges(node)):
        return True
    if all(shape.numel() < out.numel() for shape in live):
        return True
    longest = len(out) - out.index(max(out))
    return any(len(shape) < longest or shape[-longest] == 1 for shape in live)


_shape = nodes.output_shape


def _gradients(graph: Graph, opened: Collection[Node], g: Tensor) -> Mapping[Edge, Tensor]:
    """What the cotangent g brings to each piece, differentiable by g."""
    flows = {graph.result: g}
    for node in graph.order:
        if node not in opened:
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


def _arranged(edge: Edge, rows: Tensor, source: Tensor, scale: Tensor) -> Piece:
    scaled = None if bool((scale == 1).all()) else scale
    entries, inverse = source.unique(return_inverse=True)
    if len(entries) < len(source):
        return Piece(edge, entries, rows, inverse, scaled)
    order = source.argsort()
    return Piece(edge, entries, rows[order], None, None if scaled is None else scaled[order])
