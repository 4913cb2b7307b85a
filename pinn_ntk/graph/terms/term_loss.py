"""Terms of a loss on residuals that come with whatever graph."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pinn_ntk.graph.terms.curvature import uniform_weight
from pinn_ntk.graph.terms.phi import Phi
from pinn_ntk.graph.terms.term import Term


@dataclass(frozen=True)
class TermLoss:
    """One term of the loss as a function of its residual, with the weights of one step.

    ``coefficient`` is the weight of phi(r), float64, in a shape that broadcasts to it. A residual
    of as many rows is brought into ``shape``.
    """

    phi: Phi
    coefficient: Tensor
    shape: torch.Size

    @classmethod
    def of(cls, term: Term, factor: float = 1.0) -> TermLoss:
        """A term of a loss, its weights multiplied with ``factor``, such as a balancer's weight."""
        return cls(term.phi, factor * term.coefficient.detach().double(), term.residual.shape)

    @classmethod
    def on_other_points(cls, term: Term, factor: float, rows: int) -> TermLoss | None:
        """The same on other points; None where points have weights of their own, or for norms."""
        total = uniform_weight(term, factor)
        if total is None or term.kind == "norm":
            return None
        coefficient = torch.tensor(total / rows, dtype=torch.float64)
        return cls(term.phi, coefficient, torch.Size([rows]))

    def value(self, residual: Tensor) -> float:
        """Contribution to the loss of a residual of R entries."""
        applied = self.phi.value(residual.detach().double().reshape(self.shape))
        return float((self.coefficient.to(applied.device) * applied).sum())

    def slope(self, residual: Tensor) -> Tensor:
        """g = dL/dr at a residual of R entries, (R,) float64."""
        slope = self.phi.slope(residual.detach().double().reshape(self.shape))
        return (self.coefficient.to(slope.device) * slope).flatten()
