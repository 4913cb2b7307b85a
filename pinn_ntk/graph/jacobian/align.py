"""A proof from the graph alone that row i of every tensor belongs to row i of the residual.

Where it succeeds, one backward pass with a cotangent of ones gives all factors, and no pass is
needed to find out which row owns what. It succeeds for a network applied to a batch of points
on axis 0 and derivatives taken by `torch.autograd.grad`; anything else (slices of a larger batch,
permutations, masks, vmap) is not refuted, merely not proven, and is decoded instead.

A tensor is *aligned* when its axis 0 has one entry a residual row, in order. Each operation below
makes entry i of its output from entry i of its aligned inputs and from shared inputs only.
"""

from __future__ import annotations

from torch.autograd.graph import Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.walk import Edge, Graph, Use


def aligned_uses(graph: Graph, rows: int) -> list[tuple[Use, Edge]] | None:
    """Places where a shared tensor meets the points, as (use, tensor); None without a proof."""
    if rows < 2 or nodes.output_shape(graph.root)[:1] != (rows,):
        return None
    aligned: set[Node] = {graph.root}
    uses: list[tuple[Use, Edge]] = []
    for node in graph.order:
        if node not in aligned:
            continue
        shared = _shared_inputs(graph, node, rows)
        if shared is None:
            return None
        for position, edge in graph.edges(node):
            if position in shared:
                uses.append((Use(node, position), edge))
            else:
                aligned.add(edge.node)
    behind = set(graph.behind(*(edge.node for _, edge in uses)))
    if behind & aligned or not behind <= graph.parametric:
        return None
    return uses


def _shared_inputs(graph: Graph, node: Node, rows: int) -> set[int] | None:
    """Positions of the inputs that all points share; None where rows may mix."""
    made_by, edges, out = operation(node), graph.edges(node), nodes.output_shape(node)
    broadcasts = made_by.pointwise or made_by.rows_lead  # addmm broadcasts its first operand
    shapes = {p: edge.shape for p, edge in edges} if out[:1] == (rows,) else {}
    held = {p for p, shape in shapes.items() if shape[:1] == (rows,)}
    if broadcasts:
        held = {p for p in held if len(shapes[p]) == len(out)}
    if made_by.rows_lead:
        held.discard(max(made_by.partners))
    if broadcasts:
        return {position for position, _ in edges} - held
    keeps = made_by.keeps_axis or _keeps_rows(node)
    return set() if keeps and len(held) == len(edges) else None


def _keeps_rows(node: Node) -> bool:
    """Whether an operation works along axes, and axis 0 is none of them."""
    if "dim" not in nodes.SAVED.get(nodes.kind(node), ()) or nodes.missing(node):
        return False
    dims = nodes.saved(node, "dim")
    ranks = [len(nodes.output_shape(child, output)) for _, child, output in nodes.inputs(node)]
    rank = max(len(nodes.output_shape(node)), *ranks)
    signed = [nodes.signed(dim) % rank for dim in (dims if isinstance(dims, tuple) else (dims,))]
    return bool(signed) and 0 not in signed
