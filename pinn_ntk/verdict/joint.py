"""What all residuals together say of u, by the kernel of both.

| symbol | meaning | shape |
| --- | --- | --- |
| K_rr | kernel of all residuals, each term over its mean K_ii, and e on its diagonal | (R, R) |
| K_ur | kernel of u at some points and the residuals | (M, R) |
| v | diag(K_uu - K_ur K_rr^-1 K_ru), variance of u that the residuals leave | (M,) |
| du | -K_ur K_rr^-1 r, change of u by the least step of the parameters that solves all | (M,) |
| s | e (K + e)^-1 r, what that step leaves of r; rows over the root of their number | (R,) |

v is the posterior variance of a Gaussian process with the kernel of the network (Rasmussen and
Williams 2006, eq. 2.26): near diag(K_uu) where u may change while no residual does. du is the step
of Gauss and Newton.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

from pinn_ntk.kernel.ntk import NTK

NOISE = 1e-6
"""Variance e of the noise on residuals, over that of their mean K_ii."""


@dataclass
class Joint:
    """The kernel of residuals and of what else is asked, in float64."""

    kernel: NTK
    residuals: dict[str, Tensor]  # those that the parameters move

    @cached_property
    def _scale(self) -> dict[str, Tensor]:
        return {t: self.kernel[t, t].diagonal().mean().rsqrt() for t in self.residuals}

    @cached_property
    def _known(self) -> Tensor:
        scale, terms = self._scale, list(self.residuals)
        rows = [
            torch.cat([scale[a] * scale[b] * self.kernel[a, b] for b in terms], 1) for a in terms
        ]
        known = torch.cat(rows)
        return known + NOISE * torch.eye(len(known), dtype=known.dtype, device=known.device)

    @cached_property
    def _factored(self) -> tuple[Tensor, Tensor]:
        factors, pivots = torch.linalg.lu_factor(self._known)
        return factors, pivots

    def _solved(self, columns: Tensor) -> Tensor:
        """K_rr^-1 times columns, (R, n)."""
        found: Tensor = torch.linalg.lu_solve(*self._factored, columns)
        return found

    def _cross(self, asked: str) -> Tensor:
        return torch.cat([self._scale[t] * self.kernel[asked, t] for t in self.residuals], 1)

    def variance(self, asked: str) -> tuple[Tensor, Tensor]:
        """That of what is asked before and after all residuals are known, (M,) each."""
        cross, prior = self._cross(asked), self.kernel[asked, asked].diagonal()
        taken = (cross * self._solved(cross.mT).mT).sum(1)
        return prior, prior - taken

    def leading(self, asked: str) -> tuple[float, float]:
        """Mean variance in the largest mode of what residuals leave, and its share in all of it."""
        values = torch.linalg.eigvalsh(self._left(asked)).clamp(min=0)
        total = float(values.sum())
        return float(values[-1]) / len(values), float(values[-1]) / total if total else 0.0

    def level(self, asked: str, groups: Tensor) -> float:
        """Share of what residuals leave that is the same for all of a group: 1 for u + c.

        ``groups`` (M,) has a number for each entry, such as that of its output.
        """
        left = self._left(asked)
        inside = torch.nn.functional.one_hot(groups).to(left)
        means = (inside.mT @ left @ inside).diagonal() / inside.sum(0).clamp(min=1)
        total = float(left.trace())
        return float(means.sum()) / total if total else 0.0

    def _left(self, asked: str) -> Tensor:
        """Covariance of what is asked that the residuals leave, (M, M)."""
        cross = self._cross(asked)
        left = self.kernel[asked, asked] - cross @ self._solved(cross.mT)
        return (left + left.mT) / 2

    def change(self, asked: str) -> Tensor:
        """du of what is asked, (M,)."""
        r = torch.cat([self._scale[t] * x.detach().flatten() for t, x in self.residuals.items()])
        return (-self._cross(asked) @ self._solved(r[:, None])).flatten()

    def left_over(self) -> dict[str, tuple[float, float]]:
        """Term -> |s| / |r| of its rows by a step for all terms, and by one for it alone."""
        even = {t: self._scale[t] / math.sqrt(r.numel()) for t, r in self.residuals.items()}
        r = {t: even[t] * x.detach().flatten() for t, x in self.residuals.items()}
        rows = [torch.cat([even[a] * even[b] * self.kernel[a, b] for b in r], 1) for a in r]
        together = _left(torch.cat(rows), torch.cat(list(r.values())))
        parts = dict(zip(r, together.split([len(x) for x in r.values()]), strict=True))
        return {
            t: (_share(parts[t], x), _share(_left(even[t] ** 2 * self.kernel[t, t], x), x))
            for t, x in r.items()
        }


def _left(kernel: Tensor, r: Tensor) -> Tensor:
    """e (K + e)^-1 r."""
    known = kernel + NOISE * torch.eye(len(kernel), dtype=kernel.dtype, device=kernel.device)
    left: Tensor = NOISE * torch.linalg.solve(known, r)
    return left


def _share(left: Tensor, r: Tensor) -> float:
    size = float(r.norm())
    return float(left.norm()) / size if size else 0.0
