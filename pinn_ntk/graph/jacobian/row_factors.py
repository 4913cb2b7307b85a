"""Residual -> per-parameter factors of its Jacobian: those of its pieces, put together.

A residual is one piece or several (`pieces.py` here), a piece has one component or several
(`sites.py`): each covers some rows, with sites of its own. What they give is kept apart, so that a
residual of C components costs what C residuals do.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch.autograd.graph import GradientEdge
from torch.nn.functional import one_hot

from pinn_ntk.graph.jacobian.affordable import Affordable, Refuse
from pinn_ntk.graph.jacobian.assemble import Contribution, assemble
from pinn_ntk.graph.jacobian.climb import Component, Reading
from pinn_ntk.graph.jacobian.generic import batched_vjp, is_freed
from pinn_ntk.graph.jacobian.piece import Piece, through
from pinn_ntk.graph.jacobian.pieces import operands, pieces
from pinn_ntk.graph.jacobian.sites import read_sites
from pinn_ntk.graph.points import of_one_point
from pinn_ntk.graph.walk import Graph
from pinn_ntk.kernel.bounds import EXACT
from pinn_ntk.kernel.factors import Dense, Factor, Outer
from pinn_ntk.kernel.parts import Part, Parts, RowFactor

FEW = 16
"""Rows of a piece, or of one point, up to which a pass a row is taken without a word, and pieces of
one row."""

UNREADABLE = "torch cannot stop a backward pass where it is used"
"""Reason for parameters of a graph that torch goes through as a whole only, as behind irfft."""

ONE_POINT = "its rows are many components of one point, a backward pass each"
"""Reason for parameters whose gradients all components of a single point share."""

SMALL = 16  # rows of a part up to which it is joined with others of as many sites


class RowFactors(NamedTuple):
    """Factors of the Jacobian of one residual, by parameter name."""

    factors: dict[str, RowFactor]
    reasons: dict[str, str]  # why there is no factor
    mixed: dict[str, str]  # why a factor took a pass a row: see `mixing.py`
    coarsest: torch.dtype  # the lowest precision in the graph
    components: int  # sets of rows that took passes of their own


def row_factors(
    residual: Tensor,
    leaves: Mapping[str, Tensor],
    refuse: Refuse = lambda _: (),
    room: int = EXACT.temporary,
    held: int = EXACT.held,
) -> RowFactors:
    """Factors of the Jacobian of one residual; one row is left to the backward pass it takes.

    ``refuse`` is asked before results that all rows share are pulled back; ``room`` is for
    cotangents that are read and let go, ``held`` for rows that are written out, in bytes.
    """
    if residual.grad_fn is None:
        with torch.enable_grad():
            residual = residual.view_as(residual)
    graph = Graph(residual, leaves)
    if residual.numel() == 1:
        return RowFactors({}, dict.fromkeys(graph.names.values(), "one row"), {}, graph.coarsest, 1)
    rows = _Rows(leaves, residual.device, room, Affordable(refuse, held))
    found = pieces(graph, residual.device)
    by_passes = sum(len(piece.entries) == 1 for piece in found) <= FEW
    for piece in found:
        whole = piece.edge == graph.result
        rows.add(piece, graph if whole else Graph(piece.edge, leaves), by_passes, whole)
    reasons = rows.affordable.reasons | rows.reasons
    known = {name: parts for name, parts in rows.parts.items() if name not in reasons}
    factors = {name: joined(parts, residual.numel()) for name, parts in known.items()}
    mixed = {name: why for name, why in rows.affordable.mixed.items() if name in factors}
    return RowFactors(factors, reasons, mixed, graph.coarsest, rows.components)


class _Rows:
    """Rows found so far, by parameter name."""

    def __init__(
        self,
        leaves: Mapping[str, Tensor],
        device: torch.device,
        room: int,
        affordable: Affordable,
    ) -> None:
        self.leaves, self.device = leaves, device
        self.room, self.affordable = room, affordable
        self.parts: dict[str, list[Part]] = {}
        self.reasons: dict[str, str] = {}
        self.components = 0

    def add(self, piece: Piece, graph: Graph, by_passes: bool, whole: bool) -> None:
        """The rows of one piece; of few, what has no factors is found by a pass a row."""
        if by_passes and len(piece.entries) == 1:
            reading = Reading(reasons=dict.fromkeys(graph.names.values(), "one row"))
        else:
            reading = _read(graph, piece, self.room)
        if reading.mixed and self._add_operands(graph, piece):
            return
        self._keep(graph, piece, reading)
        few = len(piece.entries) <= FEW
        single = bool(reading.reasons) and of_one_point(graph)
        if not few or (whole and not single and not piece.is_row):
            self.reasons |= {n: ONE_POINT if single else why for n, why in reading.reasons.items()}
            return
        for name, part in _rows_of(piece, {n: self.leaves[n] for n in reading.reasons}):
            self.parts.setdefault(name, []).append(part)

    def _add_operands(self, graph: Graph, piece: Piece) -> bool:
        """Whether rows that do not decode do so by the operands of their last operations."""
        done = []
        for operand in operands(graph, piece, self.device):
            of_operand = Graph(operand.edge, self.leaves)
            for part in pieces(of_operand, self.device):
                behind = Graph(part.edge, self.leaves)
                taken = through(operand, part)
                reading = _read(behind, taken, self.room, all_or_none=True)
                if reading.reasons:
                    return False
                done.append((behind, taken, reading))
        for found in done:
            self._keep(*found)
        return bool(done)

    def _keep(self, graph: Graph, piece: Piece, reading: Reading) -> None:
        self.components += len(reading.components)
        for component in reading.components:
            rows = len(component.members)
            factors = assemble(graph, self._wanted(graph, component), rows, self.affordable)
            for name, part in _parts(factors, piece, component.members):
                if name not in reading.reasons:
                    self.parts.setdefault(name, []).append(part)

    def _wanted(self, graph: Graph, component: Component) -> list[Contribution]:
        """Contributions to parameters that are not refused yet."""
        refused = self.affordable.reasons.keys()
        return [
            c
            for c in component.contributions
            if not refused >= set(graph.names_behind(c.edge.node))
        ]


def _read(graph: Graph, piece: Piece, room: int, *, all_or_none: bool = False) -> Reading:
    """`read_sites`, or what it takes to go on where torch cannot stop a pass at its sites."""
    try:
        return read_sites(graph, piece, room, all_or_none=all_or_none)
    except RuntimeError as error:
        if is_freed(error):
            raise
        return Reading(reasons=dict.fromkeys(graph.names.values(), UNREADABLE))


def _parts(
    factors: Mapping[str, Factor], piece: Piece, members: Tensor
) -> Iterator[tuple[str, Part]]:
    """What one component gives to the rows of the residual, by parameter name."""
    place = members.new_full((piece.edge.shape.numel(),), -1)
    place[members] = torch.arange(len(members), device=members.device)
    place = place[piece.entries]  # (K,)
    if piece.source is None:
        counted = (place >= 0).nonzero().squeeze(1)
        all_count = len(counted) == len(members)
        for name, factor in factors.items():
            kept = factor if all_count else factor.slice(place[counted])
            yield name, Part(kept, piece.rows[counted], None, _some(piece.scale, counted))
        return
    source = place[piece.source]
    counted = (source >= 0).nonzero().squeeze(1)
    scale = _some(piece.scale, counted)
    for name, factor in factors.items():
        yield name, Part(factor, piece.rows[counted], source[counted], scale)


def _some(scale: Tensor | None, places: Tensor) -> Tensor | None:
    return None if scale is None else scale[places]


def _rows_of(piece: Piece, leaves: Mapping[str, Tensor]) -> Iterator[tuple[str, Part]]:
    """Rows of a piece that hardly has any, a backward pass each."""
    if not leaves:
        return
    basis = one_hot(piece.entries, piece.edge.shape.numel()).to(piece.dtype)
    made = GradientEdge(piece.edge.node, piece.edge.output)
    shaped = basis.view(-1, *piece.edge.shape)
    gradients = batched_vjp(made, list(leaves.values()), shaped)
    for name, gradient in zip(leaves, gradients, strict=True):
        if gradient is not None:
            rows = Dense(gradient.reshape(len(basis), -1))
            yield name, Part(rows, piece.rows, piece.source, piece.scale)


def joined(parts: Sequence[Part], count: int) -> RowFactor:
    """One factor over all ``count`` rows; parts stay apart where that is cheaper."""
    first = parts[0]
    everything = torch.arange(count, device=first.rows.device)
    plain = first.source is None and first.scale is None
    if len(parts) == 1 and plain and torch.equal(first.rows, everything):
        return first.factor
    if all(isinstance(part.factor, Dense) and part.source is None for part in parts):
        return Dense(Parts(tuple(parts), count).rows())
    return Parts(tuple(_small_joined(parts)), count)


def _small_joined(parts: Sequence[Part]) -> Iterator[Part]:
    """Parts of few rows, as many sites and one shape each in one, as long as their rows differ."""
    groups: dict[tuple[int, ...], list[Part]] = {}
    for part in parts:
        small = part.source is None and len(part.rows) <= SMALL
        if isinstance(part.factor, Outer) and small:
            groups.setdefault((len(part.factor.left), *part.factor.shape), []).append(part)
        else:
            yield part
    for group in groups.values():
        rows = torch.cat([part.rows for part in group])
        if len(group) == 1 or len(rows.unique()) < len(rows):
            yield from group
        else:
            yield Part(_side_by_side(group), rows, None, torch.cat([_scales(p) for p in group]))


def _side_by_side(parts: Sequence[Part]) -> Outer:
    factors = [part.factor for part in parts if isinstance(part.factor, Outer)]
    left = zip(*(factor.left for factor in factors), strict=True)
    right = zip(*(factor.right for factor in factors), strict=True)
    return Outer(tuple(map(torch.cat, left)), tuple(map(torch.cat, right)))


def _scales(part: Part) -> Tensor:
    ones = torch.ones(len(part.rows), dtype=part.factor.dtype, device=part.rows.device)
    return ones if part.scale is None else part.scale
