"""Loss weights from the stiffest direction of each term.

The flow of a sum of squares is dr/dt = -K D r (Wang, Yu, Perdikaris 2022, eq. 6.3), and the largest
eigenvalue of D^(1/2) K_aa D^(1/2) says how fast the fastest mode of a term learns, and how large a
step that mode stands. Traces add up all modes; here only the stiffest counts, so that no term alone
limits the learning rate. Largest eigenvalues as the measure of imbalance: Wang, Teng, Perdikaris
2021 (Understanding and mitigating gradient flow pathologies in PINNs), section 2.5, of Hessians.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from pinn_ntk.kernel.spectrum import largest_eigenvalue
from pinn_ntk.looks.look import Look
from pinn_ntk.weights.rule import BalancingRule


@dataclass(frozen=True)
class LargestEigenvalue(BalancingRule):
    """c_a = lambda_max of D^(1/2) K_aa D^(1/2), with D the weights of the rows, of sum 1.

    D is 1 / N for a mean over N points; weights of single points that the loss holds count in it.
    Of more than `max_points` rows, every k-th is taken and stands for those between.

    >>> import torch
    >>> import pinn_ntk
    >>> w = torch.tensor(2.0, requires_grad=True)
    >>> r, b = w * torch.tensor([1.0, 2.0]) - 1, w * torch.tensor([1.0]) - 3
    >>> loss = r.square().mean() + b.square().mean()
    >>> step = pinn_ntk.look(loss, [w], names=["pde", "bc"])
    >>> round(LargestEigenvalue().cost(step, "pde"), 9)  # of [[1, 2], [2, 4]] / 2
    2.5
    """

    name: ClassVar[str] = "largest_eigenvalue"

    def cost(self, look: Look, term: str) -> float:
        """In (r / theta)^2."""
        block = look.sampled[term]
        root = _row_weights(look, term).to(block).sqrt()
        return largest_eigenvalue(root[:, None] * block * root)


def _row_weights(look: Look, term: str) -> Tensor:
    """D of the rows kept, (R_kept,): the coefficients of the loss, brought to a sum of 1."""
    kept = look.rows_kept[term]
    weights = torch.ones(len(kept), dtype=torch.float64)
    if term in look.terms and look.terms[term].kind == "square":
        own = look.terms[term].weight.detach().double().flatten().cpu()
        if own.numel() == look.residuals[term].numel() and bool((own >= 0).all()):
            weights = own[kept.cpu()]
    total = weights.sum()
    return weights / total if total > 0 else torch.full_like(weights, 1 / len(weights))
