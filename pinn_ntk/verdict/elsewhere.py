"""The residual at other points than those of the step: between them, beyond them, and at old ones.

Fresh points lie between a point and its nearest neighbour, so that walls and initial lines keep
theirs; they are put in the place of the tensors that hold the points, if those are found: permuted,
they permute the residual, and nothing else does.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from torch import Tensor

from pinn_ntk.looks.rerun import Change
from pinn_ntk.verdict.calls import behind_any, columns, computed, points_behind
from pinn_ntk.verdict.moves import MADE, between, beyond, movable, outside_of, scattered
from pinn_ntk.verdict.points import Points
from pinn_ntk.verdict.quantity import CannotBeLookedAtError, nothing, quantity
from pinn_ntk.verdict.terms import rms

ELSEWHERE = 0.3
"""Share of old points outside of the new ones from which they lie elsewhere."""


class Elsewhere(Points):
    """Quantities of other points."""

    @quantity("tensors that hold the points", dict, lasts=bool)
    def holders(self) -> dict[str, list[str]]:
        """Equation -> names of the tensors whose rows are its points."""
        found = movable(self.rerun)
        return {term: names for term, names in found.items() if term in self.equations}

    @quantity("fresh points", dict)
    def fresh(self) -> dict[str, float]:
        """Equation -> mean square of its residual between the points, over that at the points."""
        return self._ratios(between)

    @quantity("points outside of those of the equation", dict)
    def outside(self) -> dict[str, float]:
        """The same where other terms have points and the equation has none; empty if nowhere."""
        return self._ratios(beyond)

    def _ratios(self, move: Any) -> dict[str, float]:
        _ = self.rerun
        if not self.equations:
            raise CannotBeLookedAtError("which term is the equation could not be told")
        if not self.holders:
            raise CannotBeLookedAtError("no tensor of batch or module holds its points")
        found = {}
        for term, names in self.holders.items():
            held = {name: self.base.tensors[name] for name in names}  # type: ignore[union-attr]
            moved = move(held, self._aligned(term, held))
            if moved is None:
                continue
            ran = self.rerun(Change(tensors=partial(_put, moved)))
            before = self.rms[term]
            if before > 0:
                found[term] = (rms(self.counted(term, ran.residuals[term])) / before) ** 2
        return found

    @quantity("old points", nothing)
    def forgotten(self) -> tuple[str, float] | None:
        """Term and ratio of its mean square at points of earlier measurements to that of now.

        Of points that lie elsewhere: those drawn anew from the same place are not old.
        """
        if not self.look.earlier or self.look.module is None:
            return None
        now = {name: p.detach() for name, p in self.look.module.named_parameters()}
        ratios: dict[str, float] = {}
        for old in self.look.earlier:
            ran = old.with_parameters(now)()
            old_points = points_behind(ran)
            for term in ran.residuals.keys() & self.rms.keys() & self.points.keys():
                x, new = old_points.get(term), self.points[term]
                if x is None or x.shape[1] != new.shape[1] or outside_of(x, new) < ELSEWHERE:
                    continue
                ratio = (rms(ran.residuals[term]) / self.rms[term]) ** 2
                ratios[term] = max(ratio, ratios.get(term, 0.0))
        worst = max(ratios, key=ratios.__getitem__, default=None)
        return None if worst is None else (worst, ratios[worst])

    @quantity("points that moved", dict)
    def moved(self) -> dict[str, float]:
        """Term -> share of its points of the last measurement that lie outside of those of now."""
        if not self.look.earlier:
            return {}
        before = points_behind(self.look.earlier[-1]())
        found = {}
        for term in before.keys() & self.points.keys():
            old, new = before[term], self.points[term]
            if old.shape[1] == new.shape[1]:
                found[term] = outside_of(old, new)
        return found

    @quantity("points that are drawn anew, and are the old ones", dict)
    def redrawn(self) -> dict[str, int]:
        """Equation whose points the step makes, scattered and equal to the last -> how many."""
        if not self.look.earlier:
            return {}
        before = points_behind(self.look.earlier[-1]())
        shaken = points_behind(self.rerun(Change(tensors=_shaken)))
        found = {}
        for term in self.equations:
            x, old, held = (each.get(term) for each in (self.points, before, shaken))
            if x is None or old is None or held is None:
                continue
            same = x.shape == old.shape == held.shape and bool(((x == old) & (x == held)).all())
            if same and scattered(x):
                found[term] = len(x)
        return found

    def _aligned(self, term: str, held: Mapping[str, Tensor]) -> list[Tensor]:
        """Points of other terms of the same networks, columns as in the tensors that are held.

        None where these differ.
        """
        own = self.points.get(term)
        columns = torch.cat([t.detach().reshape(len(t), -1) for t in held.values()], 1)
        if own is None or own.shape != columns.shape:
            return []
        order = []
        for column in columns.to(own).T:
            same = [k for k in range(own.shape[1]) if bool((own[:, k] == column).all())]
            order += same[:1]
        others = [x for t in self.rms if t != term for x in self._of_networks(t, term)]
        others = [x for x in others if x.shape[1] == own.shape[1]]
        return [x[:, order] for x in others] if len(set(order)) == own.shape[1] else []

    def _of_networks(self, term: str, equation: str) -> list[Tensor]:
        """Points at which a term calls the networks of an equation."""
        calls = behind_any(self.base, [term]) if self.base is not None else []
        own = [c for c in calls if c.name in self.networks[equation] and not computed(c)]
        return [x for call in own if (x := columns(call)) is not None]


def _put(moved: Mapping[str, Tensor], name: str, tensor: Tensor) -> Tensor:
    return moved.get(name, tensor)


def _shaken(name: str, tensor: Tensor) -> Tensor:
    """Another tensor in the place of one that is held."""
    held = tensor.is_floating_point() and not name.startswith(MADE)
    return tensor * 1.01 + 0.01 if held else tensor
