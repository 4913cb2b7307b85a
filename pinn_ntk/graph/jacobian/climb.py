"""One component of a piece: from the leaves to the first consumers whose cotangents are rows."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge, Node

from pinn_ntk.graph import nodes
from pinn_ntk.graph.jacobian.assemble import Contribution
from pinn_ntk.graph.jacobian.decode import RowCode
from pinn_ntk.graph.jacobian.piece import Piece
from pinn_ntk.graph.jacobian.rules import find_rules, has_effect
from pinn_ntk.graph.jacobian.site_rule import SiteRule
from pinn_ntk.graph.jacobian.sizes import in_groups
from pinn_ntk.graph.jacobian.thinned import Cotangent, full, thinned
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.subclasses import dense
from pinn_ntk.graph.walk import Edge, Graph, Use

INTERACTING = "points interact, its rows do not decode"
"""Reason for a parameter whose cotangents mix several rows."""


class Component(NamedTuple):
    """Entries of a piece that one backward pass covered, and what its sites gave for them."""

    members: Tensor  # flat numbers (M,)
    contributions: list[Contribution]  # to M rows


@dataclass
class Reading:
    """What was read off the graph of one piece, and parameter name -> why it has no factors."""

    components: list[Component] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    mixed: bool = False  # rows share a slot for some reason, which another partition may mend
    shared: set[Edge] = field(default_factory=set)  # where rows were found to share slots


class Decoder:
    """Climbs from the leaves to the first consumers whose cotangents fall into rows.

    With ``points`` it stops at the first of these nodes that rows share, for a sign that they do;
    and once ``enough`` parameters have reasons. ``room`` is for cotangents that are read and let
    go, in bytes.
    """

    def __init__(
        self,
        graph: Graph,
        piece: Piece,
        members: Tensor,
        points: set[Node],
        reading: Reading,
        room: int,
        enough: int,
    ) -> None:
        self.graph, self.piece, self.reading, self.members = graph, piece, reading, members
        self.points, self.room, self.enough = points, room, enough
        self.climbed = False
        self.behind: dict[Node, frozenset[str]] = {}
        self.code = RowCode(len(members), piece.dtype, members.device, graph.coarsest)
        self.contributions: list[Contribution] = []
        reading.components.append(Component(members, self.contributions))

    def read(self) -> None:
        """Record what is found in the reading."""
        frontier = [Edge(leaf) for leaf in self.graph.names]
        seen: set[Edge] = set(frontier)
        while frontier and len(self.reading.reasons) < self.enough:
            uses = list(self._uses(frontier, seen))
            outputs = {Edge(u.node, o): None for u, _ in uses for o in self.graph.outputs[u.node]}
            codes, frontier = self.code.passes(), []
            for targets in in_groups(list(outputs), self.room // len(codes)):
                here = {target.node for target in targets}
                met = [use for use in uses if use[0].node in here]
                frontier += self._new(met, [self._pass(code, targets) for code in codes], seen)
                if self.points and self.reading.mixed:
                    return
            self.climbed = True  # rows were mixed below: another partition may mend that

    def _new(
        self,
        uses: Sequence[tuple[Use, Edge]],
        passes: Sequence[Mapping[Edge, Cotangent]],
        seen: set[Edge],
    ) -> list[Edge]:
        """Where to go on from some consumers, recorded in ``seen``."""
        found = []
        for use, edge in uses:
            if self.points and self.reading.mixed:
                break
            for mixed in self._place(use, edge, passes):
                if mixed not in seen and not self._is_refused(mixed):
                    seen.add(mixed)
                    found.append(mixed)
        return found

    def _pass(self, code: Tensor, targets: Sequence[Edge]) -> dict[Edge, Cotangent]:
        found = cotangents_at(self.piece, self.members, code, set(targets))
        return {edge: thinned(found.pop(edge)) for edge in list(found)}

    def _uses(self, frontier: Sequence[Edge], seen: set[Edge]) -> Iterator[tuple[Use, Edge]]:
        """Consumers of shared tensors, seen through views."""
        stack = list(frontier)
        while stack:
            edge = stack.pop()
            for use in self.graph.uses.get(edge, []):
                if operation(use.node).view and use.node is not self.graph.root:
                    view = Edge(use.node)
                    if view not in seen:
                        seen.add(view)
                        stack.append(view)
                else:
                    yield use, edge

    def _is_refused(self, edge: Edge) -> bool:
        """Whether all parameters behind a tensor have reasons, so that there is nothing to gain."""
        if edge.node not in self.behind:
            self.behind[edge.node] = frozenset(self.graph.names_behind(edge.node))
        return self.behind[edge.node] <= self.reading.reasons.keys()

    def _place(
        self, use: Use, edge: Edge, passes: Sequence[Mapping[Edge, Cotangent]]
    ) -> Iterator[Edge]:
        """Record what one consumer contributes, or yield its outputs where they are shared."""
        for output in sorted(self.graph.outputs[use.node]):
            out = Edge(use.node, output)
            if out not in passes[0] or not has_effect(use.node, use.position, output):
                continue
            found = [p[out] if out in p else torch.zeros_like(full(passes[0][out])) for p in passes]
            rules = find_rules(use.node, use.position, edge.shape) if output == 0 else []
            if self._recorded(edge, rules, found):
                continue
            apart = self.code.apart(found)
            if rules or not apart:
                self.reading.shared.add(out)
            if apart:
                mixed = bool(rules) or self.climbed
                self._refuse(edge, INTERACTING if rules else no_rule(use), mixed=mixed)
            elif use.node not in self.points and self._is_shared(use.node):
                yield out
            else:
                is_complex = nodes.output_dtype(use.node, output).is_complex
                self._refuse(edge, no_rule(use) if is_complex else INTERACTING, mixed=True)

    def _is_shared(self, node: Node) -> bool:
        return node in self.graph.parametric and node is not self.graph.root

    def _refuse(self, edge: Edge, reason: str, *, mixed: bool) -> None:
        self.reading.reasons |= dict.fromkeys(self.graph.names_behind(edge.node), reason)
        self.reading.mixed |= mixed

    def _recorded(self, edge: Edge, rules: Sequence[SiteRule], found: Sequence[Cotangent]) -> bool:
        """Keep what the first rule gives under which every slot belongs to one row."""
        for rule in rules:
            owners = self.code.owners(found, rule.arrange)
            if owners is not None:
                scale = torch.where(owners < 0, 0, self.code.base.reciprocal()[owners])
                factor = rule.contribute(rule.arrange(full(found[0])) * scale[:, None])
                self.contributions.append(_live(Contribution(edge, factor, owners), owners))
                return True
        return False


def _live(contribution: Contribution, owners: Tensor) -> Contribution:
    """Without slots that belong to no row, where these are many."""
    kept = (owners >= 0).nonzero().squeeze(1)
    if 2 * len(kept) > len(owners):
        return contribution
    factor = contribution.factor.slice(kept)
    return contribution._replace(factor=factor, owners=owners[kept])


def cotangents_at(
    piece: Piece, members: Tensor, values: Tensor, targets: set[Edge]
) -> dict[Edge, Tensor]:
    """What a backward pass with ``values`` at the entries ``members`` brings to each target."""
    if not targets:
        return {}
    shape = piece.edge.shape
    cotangent = torch.zeros(shape.numel(), dtype=piece.dtype, device=values.device)
    cotangent[members] = values.to(cotangent)
    wanted = list(targets)
    gradients = torch.autograd.grad(
        GradientEdge(piece.edge.node, piece.edge.output),
        [GradientEdge(edge.node, edge.output) for edge in wanted],
        cotangent.view(shape),
        retain_graph=True,
        allow_unused=True,
    )
    pairs = zip(wanted, gradients, strict=True)
    cotangents = ((edge, dense(g.detach())) for edge, g in pairs if g is not None)
    return {edge: g for edge, g in cotangents if _any(g)}


def _any(tensor: Tensor) -> bool:
    first = tensor[:1] if tensor.ndim else tensor
    return bool(first.any()) or bool(tensor.any())


def no_rule(use: Use) -> str:
    """Reason for a parameter that enters in a way that is not known."""
    return f"no rule for a parameter at input {use.position} of {nodes.kind(use.node)}"
