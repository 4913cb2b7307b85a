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

import torch
from torch import Tensor

from pinn_ntk.graph.jacobian.empirical import empirical_ntk
from pinn_ntk.kernel.ntk import NTK
from pinn_ntk.looks.rerun import Change
from pinn_ntk.verdict.quantity import nothing, quantity
from pinn_ntk.verdict.reruns import Reruns
from pinn_ntk.verdict.terms import rms

NOISE = 1e-6
"""Variance of the noise on residuals, over that of their mean K_ii."""

VALUES = 48
"""Points at which the variance of u is taken."""

ROWS = 300
"""Rows of a term that are taken as known."""

FEW = 8
"""Numbers of a coefficient, at most."""

LARGEST = 1500
"""Rows of all terms up to which the range of J is looked at."""


class Directions(Reruns):
    """Quantities of the joint kernel of all terms."""

    @quantity("what the terms leave free", dict)
    def free(self) -> dict[str, float]:
        """Largest v at points of the equation: over the prior variance, and over u^2.

        Of each coefficient that is trained its own variance, where 1 is the prior one.
        """
        ran = self.rerun(Change(double=True))
        params = {n: p for n, p in ran.params.items() if n in self.look.trained}
        outputs = [c.output for c in ran.calls if not c.leaf and c.output.requires_grad]
        if not outputs or not params or not self.equations:
            return {}
        u = max(outputs, key=Tensor.numel)
        asked = {" u": _some(u, VALUES)}
        asked |= {f" {n}": params[n].flatten() + 0 for n in self._coefficients() if n in params}
        rows = {t: _some(r, ROWS) for t, r in ran.residuals.items() if r.requires_grad}
        kernel = empirical_ntk({**rows, **asked}, params, certify=False)
        terms = [term for term in rows if kernel.trace(term) > 0]
        if not terms:
            return {}
        prior, left = _left(kernel, terms, " u")
        found = {"u": float((left / prior).max()), "size": float(left.max()) / rms(u) ** 2}
        for name in asked.keys() - {" u"}:
            found[name[1:]] = float(_left(kernel, terms, name)[1].max())
        return found

    def _coefficients(self) -> list[str]:
        """Names of the inverse parameters, a few numbers each."""
        groups, trained = self.look.groups, self.look.trained
        few = [n for n, p in trained.items() if p.numel() <= FEW and groups.get(n) == "inverse"]
        return few if any(group == "network" for group in groups.values()) else []

    @quantity("the range of J", nothing)
    def unreached(self) -> float | None:
        """Share of the weighted residual outside of the range of J, fewer parameters than rows."""
        look, kernel = self.look, self.look.kernel
        rows = sum(kernel.rows(term) for term in kernel.terms)
        n_params = sum(p.numel() for p in look.trained.values())
        if any(r.is_complex() for r in look.residuals.values()):
            return None
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


def _left(kernel: NTK, terms: list[str], asked: str) -> tuple[Tensor, Tensor]:
    """Prior variance of what is asked, and v, (M,) each."""
    scale = {t: kernel[t, t].diagonal().mean().rsqrt() for t in terms}
    known = torch.cat(
        [torch.cat([scale[a] * scale[b] * kernel[a, b] for b in terms], 1) for a in terms]
    )
    cross = torch.cat([scale[t] * kernel[asked, t] for t in terms], 1)
    prior = kernel[asked, asked].diagonal()
    noisy = known + NOISE * torch.eye(len(known), dtype=known.dtype, device=known.device)
    taken = (cross * torch.linalg.solve(noisy, cross.mT).mT).sum(1)
    return prior, prior - taken
