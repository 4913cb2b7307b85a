"""Whether what is left of data looks like noise: its rows say nothing of their neighbours.

Each row is fitted by the mean of its two nearest neighbours and that of the next two, as a sine is
on a grid at whatever frequency; R^2 is the share of the variance that this explains.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pinn_ntk.looks.look import Look
from pinn_ntk.looks.rerun import Ran
from pinn_ntk.verdict.quantity import Measured, quantity

FEWEST, MOST = 16, 2000
"""Rows from which, and up to which, noise is looked for."""


class Noise(Measured):
    """Quantities of residuals of data."""

    look: Look
    base: Ran | None
    order: dict[str, int]

    @property
    def points(self) -> dict[str, Tensor]:
        """Term -> its points, (N, d)."""
        raise NotImplementedError

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
