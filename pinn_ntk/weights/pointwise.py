"""Weights of single points from the diagonal of the kernel, so that all points learn at one rate.

K_ii = |d r_i / d theta|^2 is the rate at which point i learns by its own gradient. Points differ in
it by orders of magnitude where the solution has layers. The trace rule of Wang, Yu, Perdikaris 2022
makes the means over terms equal; this one makes the rates of all points equal, in all terms. It is
what jaxpi (Wang, Sankaran, Wang, Perdikaris 2023) computes point by point before it takes means.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor

from pinn_ntk.looks.look import Look
from pinn_ntk.weights.rule import BalancingRule

LEAST = 0.01
"""Share of the mean of the diagonal that a point has at least: no point counts 100 times more."""


@dataclass(frozen=True)
class Pointwise(BalancingRule):
    """w_i = c_a / K_ii, of mean 1 in a term, with c_a the harmonic mean of the diagonal.

    With lambda_a = sum_b c_b / c_a besides, lambda_a w_i K_ii is the same for all points of all
    terms. K_ii counts with a hundredth of its mean at least.

    >>> import torch
    >>> import pinn_ntk
    >>> w = torch.tensor(2.0, requires_grad=True)
    >>> r = w * torch.tensor([1.0, 2.0]) - 1
    >>> step = pinn_ntk.look(r.square().mean(), [w], names=["pde"])
    >>> Pointwise().points(step, "pde"), Pointwise().cost(step, "pde")
    (tensor([1.6000, 0.4000], dtype=torch.float64), 1.6)
    """

    name: ClassVar[str] = "pointwise"
    pointwise: ClassVar[bool] = True

    def cost(self, look: Look, term: str) -> float:
        """In (r / theta)^2."""
        return float(1 / (1 / _diagonal(look, term)).mean())

    def points(self, look: Look, term: str) -> Tensor:
        """w_i, (N,) float64; of the rows that were measured, where some were left out."""
        turned = 1 / _diagonal(look, term)
        return turned / turned.mean()


def _diagonal(look: Look, term: str) -> Tensor:
    """K_ii from its least value on; what no parameter moves, as by a mask, counts as the mean."""
    diagonal = look.diagonals[term]
    moved = diagonal > 0
    mean = float(diagonal[moved].mean()) if bool(moved.any()) else 0.0
    return diagonal.clamp(min=LEAST * mean).where(moved, mean)
