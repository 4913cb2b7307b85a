"""One term of the loss as a function of its residual, whatever graph the residual came with."""

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

    Attributes:
        phi: What is applied to the residual.
        coefficient: Weight of phi(r), in a shape that broadcasts to it, float64.
        shape: Shape of r; a residual of as many rows is brought into it.

    Example:
        >>> from pinn_ntk import find_terms
        >>> w = torch.tensor(2.0, requires_grad=True)
        >>> term = find_terms((w * torch.tensor([1.0, 2.0])).square().mean())["term_0"]
        >>> loss = TermLoss.of(term, 10.0)
        >>> loss.value(torch.tensor([1.0, 3.0])), loss.slope(torch.tensor([1.0, 3.0])).tolist()
        (50.0, [10.0, 30.0])
    """

    phi: Phi
    coefficient: Tensor
    shape: torch.Size

    @classmethod
    def of(cls, term: Term, factor: float = 1.0) -> TermLoss:
        """A term of a loss.

        Args:
            term: The term.
            factor: What its weights are to be multiplied with, such as a balancer's weight.

        Returns:
            The function.
        """
        return cls(term.phi, factor * term.coefficient.detach().double(), term.residual.shape)

    @classmethod
    def on_other_points(cls, term: Term, factor: float, rows: int) -> TermLoss | None:
        """The same on other points than those of the loss.

        Args:
            term: The term.
            factor: What its weights are to be multiplied with.
            rows: Number of rows on the other points.

        Returns:
            The function; None where points have weights of their own, or for norms.
        """
        total = uniform_weight(term)
        if total is None or term.kind == "norm":
            return None
        coefficient = torch.tensor(factor * total / rows, dtype=torch.float64)
        return cls(term.phi, coefficient, torch.Size([rows]))

    def value(self, residual: Tensor) -> float:
        """Contribution to the loss of a residual of R entries."""
        applied = self.phi.value(residual.detach().double().reshape(self.shape))
        return float((self.coefficient.to(applied.device) * applied).sum())

    def slope(self, residual: Tensor) -> Tensor:
        """g = dL/dr at a residual of R entries, (R,) float64."""
        slope = self.phi.slope(residual.detach().double().reshape(self.shape))
        return (self.coefficient.to(slope.device) * slope).flatten()
