"""Residual -> per-parameter factors of its Jacobian, by one backward pass a component.

A *site* is a place where a tensor that all points share (a parameter, or something computed from
parameters alone) meets the points. The cotangent that a backward pass brings to a site holds all
points at once, because rows do not interact; a rule (`rules.py` here) turns it into factors.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge

from pinn_ntk.graph import nodes
from pinn_ntk.graph.jacobian import partitions
from pinn_ntk.graph.jacobian.affordable import Refuse, refused, without
from pinn_ntk.graph.jacobian.align import aligned_uses
from pinn_ntk.graph.jacobian.assemble import Contribution, assemble
from pinn_ntk.graph.jacobian.decode import RowCode, elementwise
from pinn_ntk.graph.jacobian.mixing import mixed_results
from pinn_ntk.graph.jacobian.rules import SiteRule, find_rules
from pinn_ntk.graph.jacobian.sizes import in_groups
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.walk import Edge, Graph, Use
from pinn_ntk.kernel.bounds import EXACT
from pinn_ntk.kernel.factors import Factor

INTERACTING = "points interact, its rows do not decode"
"""Reason for a parameter whose cotangents mix several rows."""


@dataclass
class Reading:
    """Contributions read off the graph, and parameter name -> why it has no factors."""

    contributions: list[Contribution] = field(default_factory=list)
    reasons: dict[str, str] = field(default_factory=dict)
    mixed: bool = False  # rows share a slot for some reason, which another partition may mend


class Sites(NamedTuple):
    """What the sites of one residual gave, by parameter name."""

    factors: dict[str, Factor]
    reasons: dict[str, str]  # why there is no factor
    mixed: dict[str, str]  # why a factor took a pass a row: see `mixing.py`
    coarsest: torch.dtype  # the lowest precision in the graph


def site_factors(
    residual: Tensor,
    leaves: Mapping[str, Tensor],
    refuse: Refuse = lambda _: (),
    room: int = EXACT.temporary,
    held: int = EXACT.held,
) -> Sites:
    """Factors of the Jacobian of one residual; one row is left to the backward pass it takes.

    ``refuse`` is asked before results that all rows share are pulled back; ``room`` is for
    cotangents that are read and let go, ``held`` for rows that are written out, in bytes.
    """
    if residual.grad_fn is None:
        with torch.enable_grad():
            residual = residual.view_as(residual)
    graph = Graph(residual, leaves)
    if residual.numel() == 1:
        return Sites({}, dict.fromkeys(graph.names.values(), "one row"), {}, graph.coarsest)
    reading = _read_aligned(graph, residual)
    if reading is None:
        reading = _read_decoded(graph, residual, room)
    mixed = mixed_results(graph, reading.contributions)
    reasons = refused(graph, reading.contributions, residual, mixed, refuse, held)
    wanted = without(graph, reading.contributions, reasons)
    reasons |= reading.reasons
    factors = assemble(graph, wanted, residual.numel())
    read = {n: f for n, f in factors.items() if n not in reasons}
    return Sites(read, reasons, {n: r for n, r in mixed.items() if n in read}, graph.coarsest)


def _read_aligned(graph: Graph, residual: Tensor) -> Reading | None:
    """One pass a component with a cotangent of ones, where the graph proves what belongs where."""
    rows = residual.shape[0] if residual.ndim else 1
    components = residual.numel() // rows
    uses = aligned_uses(graph, rows) if components <= partitions.MAX_COMPONENTS else None
    if uses is None:
        return None
    rules = [(use, edge, find_rules(use.node, use.position, edge.shape)) for use, edge in uses]
    reading = Reading()
    for component in range(components):
        members = torch.arange(rows, device=residual.device) * components + component
        ones = torch.ones(rows, dtype=residual.dtype, device=residual.device)
        cotangents = _cotangents(residual, members, ones, {Edge(use.node) for use, _ in uses})
        for use, edge, fitting in rules:
            if not fitting:
                reading.reasons |= dict.fromkeys(graph.names_behind(edge.node), _no_rule(use))
            elif Edge(use.node) in cotangents:
                rule = fitting[0]
                factor = rule.contribute(rule.arrange(cotangents[Edge(use.node)]))
                reading.contributions.append(Contribution(edge, factor, members, None))
    return reading


def _read_decoded(graph: Graph, residual: Tensor, room: int) -> Reading:
    """Labelled passes, one set a component; which rows share points is found by trying."""
    best: Reading | None = None
    for partition in partitions.partitions(residual):
        reading = Reading()
        for members in partition:
            _Decoder(graph, residual, members, reading, room).read()
            if best is not None and len(reading.reasons) >= len(best.reasons):
                break
        if best is None or len(reading.reasons) < len(best.reasons):
            best = reading
        if not best.mixed:
            break
    return best or Reading()


class _Decoder:
    """Climbs from the leaves to the first consumers whose cotangents fall into rows."""

    def __init__(
        self, graph: Graph, residual: Tensor, members: Tensor, reading: Reading, room: int
    ) -> None:
        self.graph, self.residual, self.members, self.reading = graph, residual, members, reading
        self.room = room
        self.climbed = False
        self.code = RowCode(len(members), residual.dtype, residual.device, graph.coarsest)

    def read(self) -> None:
        frontier = [Edge(leaf) for leaf in self.graph.names]
        seen: set[Edge] = set(frontier)
        while frontier:
            uses = list(self._uses(frontier, seen))
            outputs = {Edge(u.node, o): None for u, _ in uses for o in self.graph.outputs[u.node]}
            codes, frontier = self.code.passes(), []
            for targets in in_groups(list(outputs), self.room // len(codes)):
                nodes_here = {target.node for target in targets}
                passes = [
                    _cotangents(self.residual, self.members, code, set(targets)) for code in codes
                ]
                for use, edge in (use for use in uses if use[0].node in nodes_here):
                    for mixed in self._place(use, edge, passes):
                        if mixed not in seen:
                            seen.add(mixed)
                            frontier.append(mixed)
            self.climbed = True  # rows were mixed below: another partition may mend that

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

    def _place(
        self, use: Use, edge: Edge, passes: Sequence[Mapping[Edge, Tensor]]
    ) -> Iterator[Edge]:
        """Record what one consumer contributes, or yield its outputs where they are shared."""
        for output in sorted(self.graph.outputs[use.node]):
            out = Edge(use.node, output)
            if out not in passes[0]:
                continue
            nothing = torch.zeros_like(passes[0][out])
            found = [p.get(out, nothing) for p in passes]
            rules = find_rules(use.node, use.position, edge.shape) if output == 0 else []
            if self._recorded(edge, rules, found):
                continue
            if self.code.owners(found, elementwise) is not None:
                mixed = bool(rules) or self.climbed
                self._refuse(edge, INTERACTING if rules else _no_rule(use), mixed=mixed)
            elif use.node in self.graph.parametric and use.node is not self.graph.root:
                yield out
            else:
                self._refuse(edge, INTERACTING, mixed=True)

    def _refuse(self, edge: Edge, reason: str, *, mixed: bool) -> None:
        self.reading.reasons |= dict.fromkeys(self.graph.names_behind(edge.node), reason)
        self.reading.mixed |= mixed

    def _recorded(self, edge: Edge, rules: Sequence[SiteRule], found: Sequence[Tensor]) -> bool:
        """Keep what the first rule gives under which every slot belongs to one row."""
        for rule in rules:
            owners = self.code.owners(found, rule.arrange)
            if owners is not None:
                scale = torch.where(owners < 0, 0, self.code.base.reciprocal()[owners])
                factor = rule.contribute(rule.arrange(found[0]) * scale[:, None])
                self.reading.contributions.append(Contribution(edge, factor, self.members, owners))
                return True
        return False


def _cotangents(
    residual: Tensor, members: Tensor, values: Tensor, targets: set[Edge]
) -> dict[Edge, Tensor]:
    """What a backward pass with ``values`` at the rows ``members`` brings to each target."""
    if not targets:
        return {}
    cotangent = torch.zeros(residual.numel(), dtype=residual.dtype, device=residual.device)
    cotangent[members] = values
    wanted = list(targets)
    gradients = torch.autograd.grad(
        residual,
        [GradientEdge(edge.node, edge.output) for edge in wanted],
        cotangent.view(residual.shape),
        retain_graph=True,
        allow_unused=True,
    )
    pairs = zip(wanted, gradients, strict=True)
    return {edge: g.detach() for edge, g in pairs if g is not None and _any(g)}


def _any(tensor: Tensor) -> bool:
    first = tensor[:1] if tensor.ndim else tensor
    return bool(first.any()) or bool(tensor.any())


def _no_rule(use: Use) -> str:
    return f"no rule for a parameter at input {use.position} of {nodes.kind(use.node)}"
