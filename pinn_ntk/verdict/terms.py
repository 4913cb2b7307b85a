"""Each term: how large its residual is, how hard it is trained, and in which modes the rest lies.

| symbol | meaning |
| --- | --- |
| rms | root mean square of the residual of a term |
| align | r^T K r / (lambda_max r^T r): 1 where r lies in the fastest mode of its own kernel |
| slow | share of r^2 in modes below 1e-3 lambda_max of its own kernel |
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from pinn_ntk.graph.broadcast import spread_by_accident
from pinn_ntk.looks.look import Look
from pinn_ntk.verdict.quantity import Measured, nothing, quantity

SLOW = 1e-3
"""Eigenvalue over the largest below which a mode is slow."""


class Terms(Measured):
    """Quantities of the terms, read off a look."""

    look: Look
    previous: Sequence[Mapping[str, Any]]

    def remembered(self, name: str) -> Any:
        """What the last measurement of the same terms found."""
        same = (
            one for one in reversed(self.previous) if one.get("rms", {}).keys() == set(self.rms)
        )
        return next((one[name] for one in same if one.get(name)), None)

    @quantity("residuals", dict)
    def rms(self) -> dict[str, float]:
        """Term -> root mean square of its residual; finite ones only."""
        return {term: rms(self.counted(term, r)) for term, r in self.look.residuals.items()}

    def counted(self, term: str, residual: Tensor) -> Tensor:
        """Entries of a residual that count in the loss: where a mask is 0 they may be anything."""
        weights = (self.look.curvature or {}).get(term)
        if weights is None or weights.numel() != residual.numel():
            return residual
        held = weights.flatten() > 0
        return residual if held.all() or not held.any() else residual.flatten()[held]

    @quantity("number of rows", dict)
    def rows(self) -> dict[str, int]:
        """Term -> number of rows."""
        return {term: r.numel() for term, r in self.look.residuals.items()}

    @quantity("shapes", dict)
    def shapes(self) -> dict[str, list[int]]:
        """Term -> shape of its residual."""
        return {term: list(r.shape) for term, r in self.look.residuals.items()}

    @quantity("broadcast residuals", dict)
    def accidents(self) -> dict[str, str]:
        """Term -> what was broadcast by accident, in words."""
        look = self.look
        said = {t: spread_by_accident(t, r, look.trained) for t, r in look.residuals.items()}
        return {term: sentence for term, sentence in said.items() if sentence}

    @quantity("what has no gradient", str)
    def untrained(self) -> str:
        """What of the loss has no gradient, in words."""
        return self.look.untrained

    @quantity("undefined terms", list)
    def undefined(self) -> list[str]:
        """Terms that hold NaN or inf."""
        return list(self.look.undefined)

    @quantity("weights", dict)
    def weights(self) -> dict[str, float]:
        """Term -> its weight in the loss in force, 1 for a plain mean."""
        return dict(self.look.effective_weights)

    @quantity("traces", dict)
    def rates(self) -> dict[str, float]:
        """Term -> mean of K_ii over its rows."""
        rows = {term: self.look.kernel.sampled(term)[1] for term in self.look.kernel.terms}
        return {term: self.look.traces[term] / rows[term] for term in rows}

    @quantity("gradients of the terms", dict)
    def gradients(self) -> dict[str, float]:
        """Term -> norm of the gradient of its part of the loss, weights in force."""
        return {term: float(g.norm()) for term, g in self.look.gradients.items()}

    @quantity("sum of the gradients", nothing)
    def cancelling(self) -> float | None:
        """|sum of gradients| over sum of |gradients|: 0 where terms pull against each other."""
        each = list(self.look.gradients.values())
        total = sum(float(g.norm()) for g in each)
        return float(torch.stack(each).sum(0).norm()) / total if total and each[1:] else None

    @quantity("modes of the residuals", dict)
    def modes(self) -> dict[str, tuple[float, float]]:
        """Term -> align and slow; terms without kernel or residual are left out."""
        found = {}
        for term in self.look.sampled.terms:
            r = self.look.residuals[term].detach().flatten()
            if r.is_complex() or term in self.look.left_out:
                continue
            r = r[self.look.rows_kept[term].to(r.device)].double()
            lying = _lying(self.look.sampled[term].double(), r)
            if lying is not None:
                found[term] = lying
        return found

    @property
    def align(self) -> dict[str, float]:
        """Term -> r^T K r / (lambda_max r^T r)."""
        return {term: align for term, (align, _) in self.modes.items()}

    @property
    def slow(self) -> dict[str, float]:
        """Term -> share of r^2 in slow modes."""
        return {term: slow for term, (_, slow) in self.modes.items()}


def rms(residual: Tensor) -> float:
    """Root mean square of a tensor; NaN where it is empty."""
    flat = residual.detach().abs().double()
    return math.sqrt(float(flat.square().mean())) if flat.numel() else math.nan


def _lying(block: Tensor, r: Tensor) -> tuple[float, float] | None:
    """Align and slow of a residual r, (R,), in a block K, (R, R)."""
    total = float(r @ r)
    values, vectors = torch.linalg.eigh(block.cpu())
    top = float(values[-1])
    if not total > 0 or not top > 0:
        return None
    energy = (vectors.mT @ r.cpu()).square() / total
    align = float((energy * values.clamp(min=0)).sum()) / top
    return align, float(energy[values < SLOW * top].sum())
