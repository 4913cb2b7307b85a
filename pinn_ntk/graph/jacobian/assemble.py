"""Contributions of single sites -> one factor a parameter, in the order of the rows of a component.

A site has M slots. The owners (M,) say which of the R rows, which one backward pass covered, each
slot belongs to, -1 for none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.jacobian.affordable import Affordable
from pinn_ntk.graph.jacobian.placed import Made, Placed
from pinn_ntk.graph.jacobian.pull_back import pulled_back
from pinn_ntk.graph.jacobian.sums import FEW_SITES, gather, total
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.walk import Edge, Graph
from pinn_ntk.kernel.factors import Dense, Factor, Outer


class Contribution(NamedTuple):
    """Gradients of one shared tensor that one site gives, a slot each."""

    edge: Edge
    factor: Outer | Placed | Made | Dense  # one (M, m) and one (M, n), or (M, numel)
    owners: Tensor | None  # None where slots go through the rows in order


def assemble(
    graph: Graph,
    contributions: Sequence[Contribution],
    rows: int,
    affordable: Affordable | None = None,
) -> dict[str, Factor]:
    """Add up contributions: parameter name -> factor over all R ``rows``.

    Weights that a site takes directly, or through transposes, stay as they are; other shared
    tensors are pulled back to their leaves (`pull_back.py`), where that is ``affordable``.
    """
    found: dict[Edge, list[Factor]] = {}
    for contribution in contributions:
        edge, factor = _unturned(graph, contribution.edge, _by_row(contribution, rows))
        gather(found.setdefault(edge, []), factor)
    totals = {edge: total(factors) for edge, factors in found.items()}
    return pulled_back(graph, totals, affordable or Affordable())


def _by_row(contribution: Contribution, rows: int) -> Outer | Dense:
    """Slots -> rows; rows without a slot are zero, those of many are written out."""
    factor, owners = contribution.factor, contribution.owners
    if isinstance(factor, Dense):
        return Dense(_sum_slots(factor.gradients, owners, rows))
    if owners is None:
        if isinstance(factor, Outer):
            return factor
        owners = torch.arange(rows, device=factor.device)
    slots, filled = _slot_table(owners, rows)
    if isinstance(factor, Placed | Made):
        return factor.by_row(slots, filled)
    left = torch.where(filled[..., None], factor.left[0][slots], 0)  # (S, R, m)
    right = factor.right[0][slots]
    many = len(slots) > max(FEW_SITES, min(factor.shape))
    if many and factor.dtype.itemsize >= 4:  # sums in half precision would round
        return Dense((left.permute(1, 2, 0) @ right.transpose(0, 1)).flatten(1))
    return Outer(tuple(left), tuple(right))


def taken(factor: Outer | Placed | Made | Dense, kept: Tensor) -> Outer | Placed | Made | Dense:
    """The rows ``kept`` of slots that go through all rows in order, several a row maybe; (R,)."""
    if isinstance(factor, Dense):
        factor = Dense(_sum_slots(factor.gradients, None, len(kept)))
    return factor.slice(kept)


def _sum_slots(gradients: Tensor, owners: Tensor | None, rows: int) -> Tensor:
    if owners is None:
        several = len(gradients) > rows
        return gradients.view(rows, -1, gradients.shape[1]).sum(1) if several else gradients
    out = torch.zeros(rows, gradients.shape[1], dtype=gradients.dtype, device=gradients.device)
    return out.index_add_(0, owners[owners >= 0], gradients[owners >= 0])


def _slot_table(owners: Tensor, rows: int) -> tuple[Tensor, Tensor]:
    """(S, R) numbers of the slots of each row, and whether the place is filled."""
    live = (owners >= 0).nonzero().squeeze(1)
    order = owners[live].argsort(stable=True)
    live = live[order]
    target = owners[live]
    counts = torch.bincount(target, minlength=rows)
    starts = counts.cumsum(0) - counts
    place = torch.arange(len(live), device=live.device) - starts[target]
    depth = int(counts.max()) if len(live) else 1
    slots = torch.zeros(depth, rows, dtype=torch.long, device=owners.device)
    filled = torch.zeros(depth, rows, dtype=torch.bool, device=owners.device)
    slots[place, target] = live
    filled[place, target] = True
    return slots, filled


def _unturned(graph: Graph, edge: Edge, factor: Factor) -> tuple[Edge, Factor]:
    """The tensor that a shared one is the transpose of, or an alias, and its gradients."""
    turned, first = False, edge
    while edge.node not in graph.names:
        swaps = _swaps_axes(edge.node)
        if swaps is None:
            break
        turned ^= swaps
        _, node, output = next(nodes.inputs(edge.node))
        edge = Edge(node, output)
    if not turned:
        return edge, factor
    return (
        (edge, Outer(factor.right, factor.left)) if isinstance(factor, Outer) else (first, factor)
    )


def _swaps_axes(node: Node) -> bool | None:
    """Whether a view of a matrix, axes of length 1 aside, transposes it; None for anything else."""
    kind = nodes.kind(node)
    if kind == "TBackward0" or operation(node).copies:
        return kind == "TBackward0"
    if nodes.missing(node) or not (operation(node).view or kind == "SliceBackward0"):
        return None
    _, child, output = next(nodes.inputs(node))
    before, after = nodes.output_shape(child, output), nodes.output_shape(node)
    if kind not in {"TransposeBackward0", "PermuteBackward0"}:  # older torch: w[:] is a slice
        return False if _wide(before) == _wide(after) and len(_wide(before)) <= 2 else None
    order = [axis for axis in _order(node, len(before)) if before[axis] != 1]
    if len(before) == 2 and 1 in before:
        return _order(node, 2) == [1, 0]
    return order != sorted(order) if len(order) <= 2 else None


def _wide(shape: torch.Size) -> list[int]:
    """Lengths of the axes, but for those of length 1."""
    return [size for size in shape if size != 1]


def _order(node: Node, rank: int) -> list[int]:
    """Which axis of its operand each axis of a transposed tensor was."""
    if nodes.kind(node) == "PermuteBackward0":
        return [nodes.signed(axis) % rank for axis in nodes.saved(node, "dims")]
    first, second = (nodes.signed(nodes.saved(node, f"dim{k}")) % rank for k in (0, 1))
    order = list(range(rank))
    order[first], order[second] = second, first
    return order
