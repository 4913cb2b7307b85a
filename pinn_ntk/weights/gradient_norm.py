"""Loss weights from the gradients of the terms: learning-rate annealing.

Wang, Teng, Perdikaris 2021 (Understanding and mitigating gradient flow pathologies in PINNs), eqs
40 and 41, take max |grad L_r| / mean |grad L_a|; Wang, Sankaran, Wang, Perdikaris 2023 (An expert's
guide to training PINNs), eq. 5.1, and its code jaxpi take sum_b |grad L_b| / |grad L_a|, which is
used here: it makes the norms of all weighted gradients equal. (Inverse Dirichlet weighting, Maddu
et al. 2022, takes standard deviations of the entries in place of norms, which are |grad| / sqrt(P)
where the entries have mean 0: the same weights.)
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pinn_ntk.looks.look import Look
from pinn_ntk.weights.mean_loss import mean_gradient
from pinn_ntk.weights.rule import BalancingRule


@dataclass(frozen=True)
class GradientNorm(BalancingRule):
    """c_a = |grad L_a|, with L_a the mean of the term without weights.

    It follows the residual of the moment: a term that is solved has a small gradient, and is
    weighed up. A term whose gradient is exactly zero keeps its weight.

    >>> import torch
    >>> import pinn_ntk
    >>> w = torch.tensor(2.0, requires_grad=True)
    >>> r, b = w * torch.tensor([1.0, 2.0]) - 1, w * torch.tensor([1.0]) - 3
    >>> loss = 10 * r.square().mean() + b.square().mean()
    >>> GradientNorm().costs(pinn_ntk.look(loss, [w], names=["pde", "bc"]))
    {'pde': (14.0, 2), 'bc': (2.0, 1)}
    """

    name: ClassVar[str] = "gradient_norm"

    def cost(self, look: Look, term: str) -> float:
        """In r^2 / theta."""
        return float(mean_gradient(look, term).norm())
