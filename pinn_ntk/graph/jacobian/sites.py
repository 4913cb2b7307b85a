"""Sites of one piece of a residual: which of its rows share points, and what each site gives.

A *site* is a place where a tensor that all points share (a parameter, or something computed from
parameters alone) meets the points. The cotangent that a backward pass brings to a site holds all
points at once, because rows do not interact; a rule (`rules.py` here) turns it into factors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.graph.jacobian import partitions
from pinn_ntk.graph.jacobian.align import aligned_uses
from pinn_ntk.graph.jacobian.assemble import Contribution, taken
from pinn_ntk.graph.jacobian.climb import (
    INTERACTING,
    Component,
    Decoder,
    Reading,
    cotangents_at,
    no_rule,
)
from pinn_ntk.graph.jacobian.piece import Piece
from pinn_ntk.graph.jacobian.reach import most_apart
from pinn_ntk.graph.jacobian.rules import find_rules
from pinn_ntk.graph.jacobian.sizes import in_groups
from pinn_ntk.graph.points import of_points
from pinn_ntk.graph.walk import Edge, Graph, Use
from pinn_ntk.kernel.bounds import EXACT
from pinn_ntk.kernel.factors import Dense


def read_sites(
    graph: Graph, piece: Piece, room: int = EXACT.temporary, *, all_or_none: bool = False
) -> Reading:
    """Contributions of all sites of one piece, a component of it at a time.

    ``room`` is for cotangents that are read and let go, in bytes. With ``all_or_none`` a reading is
    given up once a parameter has no factors.
    """
    if piece.edge.node in graph.names:
        return _read_leaf(piece)
    return _read_aligned(graph, piece, room) or _read_decoded(graph, piece, room, all_or_none)


def _read_leaf(piece: Piece) -> Reading:
    entries, size = piece.entries, piece.edge.shape.numel()
    identity = torch.zeros(len(entries), size, dtype=piece.dtype, device=entries.device)
    identity.scatter_(1, entries[:, None], 1)
    contribution = Contribution(piece.edge, Dense(identity), None)
    return Reading([Component(piece.entries, [contribution])])


def _read_aligned(graph: Graph, piece: Piece, room: int) -> Reading | None:
    """One pass a component, where the graph proves what belongs where."""
    shape = piece.edge.shape
    rows = shape[0] if len(shape) else 1
    components = shape.numel() // rows
    uses = aligned_uses(graph, rows) if components <= partitions.MAX_COMPONENTS else None
    if uses is None:
        return None
    reading = Reading()
    for use, edge in uses:
        if not find_rules(use.node, use.position, edge.shape):
            reading.reasons |= dict.fromkeys(graph.names_behind(edge.node), no_rule(use))
    places, counts = torch.arange(rows, device=piece.entries.device), piece.counts()
    for component in range(components):
        members = places * components + component
        kept = counts[members]
        if bool(kept.any()):
            found = _aligned(piece, uses, members, kept, room)
            reading.components.append(Component(members[kept], found))
    return reading


def _aligned(
    piece: Piece, uses: Sequence[tuple[Use, Edge]], members: Tensor, kept: Tensor, room: int
) -> list[Contribution]:
    """What the sites give to one component, to those of its rows alone that are ``kept``."""
    targets = [*dict.fromkeys(Edge(use.node) for use, _ in uses)]
    if bool(kept.all()):
        return _met(piece, uses, members, kept, targets)
    found: list[Contribution] = []
    for group in in_groups(targets, room):
        found += [
            contribution._replace(factor=taken(contribution.factor, kept))
            for contribution in _met(piece, uses, members, kept, group)
        ]
    return found


def _met(
    piece: Piece,
    uses: Sequence[tuple[Use, Edge]],
    members: Tensor,
    counts: Tensor,
    targets: Sequence[Edge],
) -> list[Contribution]:
    """What those of the sites give that are ``targets``, by one pass."""
    cotangents, found = cotangents_at(piece, members, counts, set(targets)), []
    for use, edge in uses:
        rules = find_rules(use.node, use.position, edge.shape)
        if rules and Edge(use.node) in cotangents:
            arranged = rules[0].arrange(cotangents[Edge(use.node)])
            found.append(Contribution(edge, rules[0].contribute(arranged), None))
    return found


def _read_decoded(graph: Graph, piece: Piece, room: int, all_or_none: bool) -> Reading:
    """Labelled passes, one set a component; which rows share points is found by trying.

    A try that would go on to results of the network is given up first, as long as others are left.
    """
    shape, device = piece.edge.shape, piece.entries.device
    candidates = list(partitions.along_axes(shape, device))
    points = of_points(graph) if len(candidates) > 1 else set()
    for partition in candidates if points else []:
        reading = _try(graph, piece, partition, points, len(graph.names), room)
        if not reading.reasons:
            return reading
        if not reading.mixed:
            break
    together, *others = partitions.partitions(shape, device)
    enough = 1 if all_or_none else len(graph.names)
    best, counts = _try(graph, piece, together, set(), enough, room), piece.counts()
    most = most_apart(piece, best.shared, room) if best.mixed and others else math.inf
    for partition in others:
        if not best.mixed:
            break
        if int(counts[partition].sum(1).max()) <= most:
            enough = 1 if all_or_none else len(best.reasons)
            reading = _try(graph, piece, partition, set(), enough, room)
            best = min(best, reading, key=lambda r: len(r.reasons))
    return best


def _try(
    graph: Graph,
    piece: Piece,
    partition: Tensor,
    points: set[Node],
    enough: int,
    room: int,
) -> Reading:
    """One partition, until ``enough`` parameters have no factors; see `Decoder` for ``points``.

    One of many parts is given up where it leaves any parameter out: that takes passes of its own.
    """
    reading, counts = Reading(), piece.counts()
    many = len(partition) > partitions.FEW and not points
    enough = 1 if many else enough
    for members in partition:
        wanted = members[counts[members]]
        if len(wanted):
            Decoder(graph, piece, wanted, points, reading, room, enough).read()
        if len(reading.reasons) >= enough or (points and reading.mixed):
            break
    if many and reading.reasons:
        return Reading(reasons=dict.fromkeys(graph.names.values(), INTERACTING))
    return reading
