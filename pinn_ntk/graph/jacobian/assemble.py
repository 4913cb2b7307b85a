"""Contributions of single sites -> one factor a parameter, in the order of the residual's rows.

A site has M slots. The members (R_c,) are the rows of the residual that one backward pass covered;
the owners (M,) say which of them each slot belongs to, -1 for none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.jacobian.pull_back import pulled_back
from pinn_ntk.graph.jacobian.sums import total
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.walk import Edge, Graph
from pinn_ntk.kernel.factors import Dense, Factor, Outer


class Contribution(NamedTuple):
    """Gradients of one shared tensor that one site gives, a slot each."""

    edge: Edge
    factor: Factor  # `Outer` with one (M, m) and one (M, n), or `Dense` with (M, numel)
    members: Tensor  # flat residual rows of the pass
    owners: Tensor | None  # None where slots go through the members in order


def assemble(graph: Graph, contributions: Sequence[Contribution], rows: int) -> dict[str, Factor]:
    """Add up contributions: parameter name -> factor over all R ``rows``.

    Weights that a site takes directly, or through transposes, stay as they are; other shared
    tensors are pulled back to their leaves (`pull_back.py`).
    """
    by_edge: dict[Edge, list[Contribution]] = {}
    for contribution in contributions:
        by_edge.setdefault(contribution.edge, []).append(contribution)
    parts: dict[str, list[Factor]] = {}
    computed: dict[Edge, Factor] = {}
    for edge, group in by_edge.items():
        factor = total([_by_row(c, rows) for c in group])
        found = _at_leaf(graph, edge, factor)
        if found is None:
            computed[edge] = factor
        else:
            parts.setdefault(found[0], []).append(found[1])
    for name, factor in pulled_back(graph, computed).items():
        parts.setdefault(name, []).append(factor)
    return {name: total(factors) for name, factors in parts.items()}


def _by_row(contribution: Contribution, rows: int) -> Factor:
    """Slots -> residual rows; rows without a slot are zero."""
    factor, members, owners = contribution.factor, contribution.members, contribution.owners
    if isinstance(factor, Dense):
        return Dense(_sum_slots(factor.gradients, members, owners, rows))
    if owners is None and len(members) == rows:
        return factor
    if owners is None:
        owners = torch.arange(len(members), device=members.device)
    slots, filled = _slot_table(members, owners, rows)
    left = torch.where(filled[..., None], factor.left[0][slots], 0)  # (S, R, m)
    return Outer(tuple(left), tuple(factor.right[0][slots]))


def _sum_slots(gradients: Tensor, members: Tensor, owners: Tensor | None, rows: int) -> Tensor:
    if owners is None:
        if len(gradients) > len(members):
            gradients = gradients.view(len(members), -1, gradients.shape[1]).sum(1)
        if len(members) == rows:
            return gradients
        target = members
    else:
        gradients, target = gradients[owners >= 0], members[owners[owners >= 0]]
    out = torch.zeros(rows, gradients.shape[1], dtype=gradients.dtype, device=gradients.device)
    return out.index_add_(0, target, gradients)


def _slot_table(members: Tensor, owners: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """(S, R) numbers of the slots of each row, and whether the place is filled."""
    live = (owners >= 0).nonzero().squeeze(1)
    target = members[owners[live]]
    order = target.argsort(stable=True)
    live, target = live[order], target[order]
    counts = torch.bincount(target, minlength=rows)
    starts = counts.cumsum(0) - counts
    place = torch.arange(len(live), device=live.device) - starts[target]
    depth = int(counts.max()) if len(live) else 1
    slots = torch.zeros(depth, rows, dtype=torch.long, device=members.device)
    filled = torch.zeros(depth, rows, dtype=torch.bool, device=members.device)
    slots[place, target] = live
    filled[place, target] = True
    return slots, filled


def _at_leaf(graph: Graph, edge: Edge, factor: Factor) -> tuple[str, Factor] | None:
    """The leaf that a shared tensor is, itself or transposed; None where it is computed."""
    node, transposed = edge.node, False
    while node not in graph.names:
        swaps = _swaps_axes(node)
        if swaps is None:
            return None
        transposed ^= swaps
        node = next(nodes.inputs(node))[1]
    if not transposed or node is edge.node:
        return graph.names[node], factor
    return (graph.names[node], Outer(factor.right, factor.left)) if isinstance(factor, Outer) else None


def _swaps_axes(node: Node) -> bool | None:
    """Whether a view of a matrix transposes it; None for any other operation."""
    kind = nodes.kind(node)
    if kind == "TBackward0" or operation(node).copies:
        return kind == "TBackward0"
    if len(nodes.output_shape(node)) != 2 or nodes.missing(node):
        return None
    if kind == "SliceBackward0":  # older torch: w[:] is a slice of everything
        _, child, output = next(nodes.inputs(node))
        return False if nodes.output_shape(child, output) == nodes.output_shape(node) else None
    if kind == "TransposeBackward0":
        dims = [nodes.signed(nodes.saved(node, operand)) for operand in ("dim0", "dim1")]
        return (dims[0] - dims[1]) % 2 == 1
    if kind == "PermuteBackward0":
        return nodes.signed(nodes.saved(node, "dims")[0]) % 2 == 1
    return None
