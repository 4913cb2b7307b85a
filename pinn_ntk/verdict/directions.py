"""Directions that the terms leave free, and residuals that no direction reaches.

| symbol | meaning | shape |
| --- | --- | --- |
| K_rr | kernel of all residuals, each term over its mean K_ii | (R, R) |
| K_ur | kernel of u at some points and the residuals | (M, R) |
| v | diag(K_uu - K_ur (K_rr + e)^-1 K_ru), variance of u that the residuals leave | (M,) |

v is the posterior variance of a Gaussian process with the kernel of the network (Rasmussen and
Williams 2006, eq. 2.26): near diag(K_uu) where u may change while no residual does.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pinn_ntk.graph.jacobian.empirical import empirical_ntk
from pinn_ntk.looks.look import Look
from pinn_ntk.looks.rerun import Change, Rerun
from pinn_ntk.verdict.quantity import Measured, nothing, quantity

NOISE = 1e-6
"""Variance of the noise on residuals, over that of their mean K_ii."""

VALUES = 48
"""Points at which the variance of u is taken."""

ROWS = 160
"""Rows of a term that are taken as known."""

LARGEST = 1500
"""Rows of all terms up to which the range of J is looked at."""


class Directions(Measured):
    """Quantities of the joint kernel of all terms."""

    look: Look
    rerun: Rerun
    equations: list[str]

    @quantity("the variance of u that the terms leave", nothing)
    def free(self) -> float | None:
        """Largest v over the prior variance, at points of the equation."""
        ran = self.rerun(Change(double=True))
        names = self.look.trained.keys() & ran.params.keys()
        params = {n: ran.params[n] for n in ran.params if n in names}
        outputs = [c.output for c in ran.calls if not c.leaf and c.output.requires_grad]
        if not outputs or not params:
            return None
        u = _some(max(outputs, key=Tensor.numel), VALUES)
        rows = {t: _some(r, ROWS) for t, r in ran.residuals.items() if r.requires_grad}
        kernel = empirical_ntk({**rows, " u": u}, params, certify=False)
        terms = [term for term in rows if kernel.trace(term) > 0]
        return _left(kernel, terms, " u") if terms else None

    @quantity("the range of J", nothing)
    def unreached(self) -> float | None:
        """Share of the weighted residual outside of the range of J, fewer parameters than rows."""
        look, kernel = self.look, self.look.kernel
        rows = sum(kernel.rows(term) for term in kernel.terms)
        n_params = sum(p.numel() for p in look.trained.values())
        if look.curvature is None or look.left_out or n_params >= rows or rows > LARGEST:
            return None
        root = torch.cat([look.curvature[t].double().cpu() for t in kernel.terms]).sqrt()
        r = torch.cat([look.residuals[t].detach().double().flatten().cpu() for t in kernel.terms])
        matrix = root[:, None] * kernel.matrix().double().cpu() * root
        values, vectors = torch.linalg.eigh(matrix)
        above = (values > 1e-9 * values[-1]) & (torch.arange(rows) >= rows - n_params)
        weighted = root * r
        inside = (vectors[:, above].mT @ weighted).square().sum()
        return 1 - float(inside / (weighted @ weighted))


def _some(tensor: Tensor, most: int) -> Tensor:
    """Evenly strided entries of a live tensor."""
    flat = tensor.flatten()
    return flat[torch.linspace(0, len(flat) - 1, min(most, len(flat))).round().long()]


def _left(kernel: Mapping[tuple[str, str], Tensor], terms: list[str], u: str) -> float:
    """Largest share of the variance of u that the residuals leave."""
    scale = {t: kernel[t, t].diagonal().mean().rsqrt() for t in terms}
    known = torch.cat(
        [torch.cat([scale[a] * scale[b] * kernel[a, b] for b in terms], 1) for a in terms]
    )
    cross = torch.cat([scale[t] * kernel[u, t] for t in terms], 1)
    prior = kernel[u, u].diagonal()
    noisy = known + NOISE * torch.eye(len(known), dtype=known.dtype, device=known.device)
    taken = (cross * torch.linalg.solve(noisy, cross.mT).mT).sum(1)
    return float(((prior - taken) / prior).max())
