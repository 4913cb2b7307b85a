"""Which operations lead from a residual to the tensors it is put together from; see `piece.py`."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import torch
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.jacobian.piece import Piece, read_through, through, whole
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.points import of_points
from pinn_ntk.graph.walk import Edge, Graph

MANY = 16
"""Pieces up to which each may take a pass over the whole graph."""


def pieces(graph: Graph, device: torch.device) -> list[Piece]:
    """What a residual is put together from; the residual itself where that is nothing smaller."""
    if not _may_lead(graph):
        return [whole(graph, device)]
    points = of_points(graph)
    spread, laid_out = _leading(graph, points)
    opened = _reached(graph, spread | laid_out)
    merged = opened | _shared_ways(graph, opened, points)
    fewer = _reached(graph, spread)  # which leaves u and u.T apart
    for inner in dict.fromkeys(map(frozenset, (merged, opened, fewer))):
        found = read_through(graph, inner, device)
        if found and _is_cheap(graph, found):
            return found
    return [whole(graph, device)]


def _may_lead(graph: Graph) -> bool:
    """Whether anything but pointwise operations of operands of one shape follows the residual.

    This goes through little of the graph, and mostly settles it.
    """

    def following(node: Node) -> list[Node]:
        made_by = operation(node)
        through = made_by.pointwise or made_by.selects
        return [edge.node for _, edge in graph.edges(node)] if through else []

    return any(
        _lays_out(graph, node) or _differs(graph, node)
        for node in nodes.reachable(graph.order[:1], following)
        if graph.edges(node)
    )


def _differs(graph: Graph, node: Node) -> bool:
    """Whether a pointwise operation has an operand of another shape, or trained numbers for it."""
    if not operation(node).pointwise:
        return False
    out, edges = _shape(node), graph.edges(node)
    return any(edge.shape != out or edge.node in graph.names for _, edge in edges)


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
    parts = read_through(graph, _reached(graph, inner), device)
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
        if _spreads(graph, node, points) or any(edge.node in spread for edge in live):
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


def _spreads(graph: Graph, node: Node, points: set[Node]) -> bool:
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
