"""Whether what is left of data looks like noise: its rows say nothing of their neighbours.

Each row is fitted by the mean of its two nearest neighbours and that of the next two, as a sine is
on a grid at whatever frequency; R^2 is the share of the variance that this explains. What data ask
for between few points is told by straight lines instead: a sine with 4 points a period, R^2 = 0.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pinn_ntk.looks.networks import zero
from pinn_ntk.looks.rerun import Change
from pinn_ntk.verdict.points import Points
from pinn_ntk.verdict.quantity import quantity

FEWEST, MOST = 16, 2000
"""Rows from which, and up to which, noise is looked for."""

LEAST = 5
"""Data from which they can say anything of each other."""


class Noise(Points):
    """Quantities of residuals of data."""

    @quantity("noise of the data", dict)
    def explained(self) -> dict[str, float]:
        """Term without derivatives -> R^2 of its rows by their neighbours."""
        found = {}
        for term, residual in self.look.residuals.items():
            x, r = self.points.get(term), residual.detach().flatten()
            fits = x is not None and not r.is_complex() and FEWEST <= len(r) <= MOST
            if fits and not self.order.get(term) and len(r) == len(x):  # type: ignore[arg-type]
                found[term] = explained_by_neighbours(x, r)  # type: ignore[arg-type]
        return found

    @quantity("what data say of each other", dict)
    def told(self) -> dict[str, float]:
        """Data that no equation joins -> R^2 of their values by those of their neighbours."""
        base = self.base
        if self.order or base is None or any(call.leaf for call in base.calls):
            return {}
        found = {}
        for term, r in self.rerun(Change(output=zero)).residuals.items():
            x, asked = self.points.get(term), r.detach().flatten()
            if x is not None and len(x) == len(asked) >= LEAST and not asked.is_complex():
                found[term] = told_by_neighbours(x, asked)
        return found


def told_by_neighbours(x: Tensor, y: Tensor) -> float:
    """R^2 of y (N,) by straight lines between neighbours, or by the mean of near ones in (N, d).

    >>> x = torch.linspace(0, 1, 9)[:, None]
    >>> round(told_by_neighbours(x, torch.sin(3 * x[:, 0])), 2)
    0.98
    >>> told_by_neighbours(x, torch.sin(30 * x[:, 0])) < 0
    True
    """
    if x.shape[1] > 1:
        return explained_by_neighbours(x, y) if FEWEST <= len(x) <= MOST else 1.0
    order = x[:, 0].argsort()
    x, y = x[order, 0].double(), y[order].double()
    share = (x[1:-1] - x[:-2]) / (x[2:] - x[:-2]).clamp(min=1e-12)
    line = y[:-2] + share * (y[2:] - y[:-2])
    total = float((y - y.mean()).square().sum())
    return 1 - float((y[1:-1] - line).square().sum()) / total if total else 1.0


def explained_by_neighbours(x: Tensor, r: Tensor) -> float:
    """R^2 of r (N,) by its neighbours at points x (N, d), adjusted for the three numbers fitted.

    >>> x = torch.linspace(0, 1, 100)[:, None]
    >>> round(explained_by_neighbours(x, torch.sin(90 * x[:, 0])), 2)
    0.97
    >>> noise = torch.randn(100, generator=torch.Generator().manual_seed(0))
    >>> explained_by_neighbours(x, noise) < 0.1
    True
    """
    x, r = x.double(), r.double()
    size = (x.max(0).values - x.min(0).values).clamp(min=1e-12)
    distance = torch.cdist(x / size, x / size).fill_diagonal_(torch.inf)
    near = distance.topk(4, largest=False).indices
    columns = [r[near[:, :2]].mean(1), r[near[:, 2:]].mean(1), torch.ones_like(r)]
    design = torch.stack(columns, 1)
    fitted = design @ torch.linalg.lstsq(design, r[:, None]).solution[:, 0]
    left, total = (r - fitted).square().sum(), (r - r.mean()).square().sum()
    if not float(total):
        return 1.0
    return 1 - float(left / total) * (len(r) - 1) / (len(r) - 3)
