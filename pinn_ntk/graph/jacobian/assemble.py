"""Contributions of single sites -> one factor a parameter, in the order of the residual's rows.

A site has M slots. The members (R_c,) are the rows of the residual that one backward pass covered;
the owners (M,) say which of them each slot belongs to, -1 for none.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.jacobian.generic import MAX_CHUNK, batched_vjp
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.walk import Edge, Graph
from pinn_ntk.kernel.factors import Dense, Factor, Outer

_COPIES = 2  # of the rows at a shared tensor: by site, and their sum


class Contribution(NamedTuple):
    """Gradients of one shared tensor that one site gives, a slot each."""

    edge: Edge
    factor: Factor  # `Outer` with one (M, m) and one (M, n), or `Dense` with (M, numel)
    members: Tensor  # flat residual rows of the pass
    owners: Tensor | None  # None where slots go through the members in order


def assemble(graph: Graph, contributions: Sequence[Contribution], rows: int) -> dict[str, Factor]:
    """Add up contributions: parameter name -> factor over all R ``rows``.

    Weights that a site takes directly, or through transposes, stay in outer-product form. Other
    shared tensors are written out and pulled back to their leaves.
    """
    by_edge: dict[Edge, list[Contribution]] = {}
    for contribution in contributions:
        by_edge.setdefault(contribution.edge, []).append(contribution)
    parts: dict[str, list[Factor]] = {}
    for edge, group in by_edge.items():
        total = _total([_by_row(c, rows) for c in group])
        for name, factor in _at_leaves(graph, edge, total):
            parts.setdefault(name, []).append(factor)
    return {name: _total(factors) for name, factors in parts.items()}


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


def _total(factors: Sequence[Factor]) -> Factor:
    """Sum of factors of one parameter, in outer-product form if all are."""
    if len(factors) == 1:
        return factors[0]
    outers = [factor for factor in factors if isinstance(factor, Outer)]
    if len(outers) == len(factors):
        return _merged([site for f in outers for site in zip(f.left, f.right, strict=True)])
    total = factors[0].rows()
    for factor in factors[1:]:
        total = total + factor.rows()
    return Dense(total)


def _merged(sites: Sequence[tuple[Tensor, Tensor]]) -> Outer:
    """Sum of outer products in the widest of their dtypes; those that share a factor are joined."""
    dtype = functools.reduce(torch.promote_types, (left.dtype for left, _ in sites))
    lefts: list[Tensor] = []
    rights: list[Tensor] = []
    for left, right in ((a.to(dtype), b.to(dtype)) for a, b in sites):
        for i in range(len(lefts)):
            if _equal(right, rights[i]):
                lefts[i] = lefts[i] + left
                break
            if _equal(left, lefts[i]):
                rights[i] = rights[i] + right
                break
        else:
            lefts.append(left)
            rights.append(right)
    return Outer(tuple(lefts), tuple(rights))


def _equal(a: Tensor, b: Tensor) -> bool:
    return torch.equal(a[:1], b[:1]) and torch.equal(a, b)


def _at_leaves(graph: Graph, edge: Edge, factor: Factor) -> list[tuple[str, Factor]]:
    """Gradients of a shared tensor -> gradients of the leaves behind it."""
    node, transposed = edge.node, False
    while node not in graph.names:
        swaps = _swaps_axes(node)
        if swaps is None:
            return _pulled_back(graph, edge, factor.rows())
        transposed ^= swaps
        node = next(nodes.inputs(node))[1]
    if not transposed or node is edge.node:
        return [(graph.names[node], factor)]
    if isinstance(factor, Dense):
        return _pulled_back(graph, edge, factor.rows())
    return [(graph.names[node], Outer(factor.right, factor.left))]


def written_out(graph: Graph, edge: Edge) -> int:
    """Entries of a row that `_at_leaves` writes out, at a shared tensor and at its leaves."""
    node = edge.node
    while node not in graph.names:
        if _swaps_axes(node) is None:
            leaves = [nodes.leaf(k) for k in graph.behind(edge.node) if k in graph.names]
            return _COPIES * edge.shape.numel() + sum(x.numel() for x in leaves if x is not None)
        node = next(nodes.inputs(node))[1]
    return 0


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


def _pulled_back(graph: Graph, edge: Edge, rows: Tensor) -> list[tuple[str, Factor]]:
    """Cotangents (R, numel) of a shared tensor times its Jacobian by its leaves."""
    through_identity = rows.shape[1] < rows.shape[0]
    cotangents = torch.eye(rows.shape[1], dtype=rows.dtype, device=rows.device)
    cotangents = (cotangents if through_identity else rows).view(-1, *edge.shape)
    names, leaves = zip(*((n, nodes.leaf(k)) for k, n in graph.names.items()), strict=True)
    made = GradientEdge(edge.node, edge.output)
    chunks = [batched_vjp(made, leaves, chunk) for chunk in cotangents.split(MAX_CHUNK)]
    result: list[tuple[str, Factor]] = []
    for name, *gradients in zip(names, *chunks, strict=True):
        if gradients[0] is not None:
            jacobian = torch.cat([g.reshape(len(g), -1) for g in gradients])
            result.append((name, Dense(rows @ jacobian if through_identity else jacobian)))
    return result
