"""Loss weights from how fast the residual of the moment decays.

The kernel's trace is the rate of all modes together; the residual that is left lies in some of
them. By its own gradient the loss L_a of a term falls at the rate g^T K_aa g / L_a = |grad L_a|^2 /
L_a (Wang, Yu, Perdikaris 2022, eq. 6.3, applied to the residual as it is). Equal rates of decay
point by point, from averages over time: Chen, Howard, Stinis 2024 (Self-adaptive weights based on
balanced residual decay rate).

Taken as it stands the rule chases a term whose fast modes are learned: what is left is slow, so it
gets all the weight, and the others are lost. Hence the floor.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

from pinn_ntk.looks.look import Look
from pinn_ntk.weights.mean_loss import mean_gradient, mean_loss
from pinn_ntk.weights.rule import BalancingRule


@dataclass(frozen=True)
class ResidualDecay(BalancingRule):
    """c_a = |grad L_a|^2 / L_a, and no less than ``floor`` times its largest possible value.

    No residual decays faster than at 4 Tr K_aa / N_a (for a mean of squares), the cost of the trace
    rule, which bounds other losses too: weights lie within a factor 1 / ``floor`` of those by
    traces, and with ``floor`` = 1 they are the same. A term that is solved exactly costs as by its
    trace.

    Raises:
        ValueError: ``floor`` is not in (0, 1].

    >>> import torch
    >>> import pinn_ntk
    >>> w = torch.tensor(2.0, requires_grad=True)
    >>> r, b = w * torch.tensor([1.0, 2.0]) - 1, w * torch.tensor([1.0]) - 3
    >>> loss = 10 * r.square().mean() + b.square().mean()
    >>> ResidualDecay().costs(pinn_ntk.look(loss, [w], names=["pde", "bc"]))
    {'pde': (19.6, 2), 'bc': (4.0, 1)}
    """

    floor: float = 0.1
    name: ClassVar[str] = "residual_decay"

    def __post_init__(self) -> None:
        if not 0 < self.floor <= 1:
            raise ValueError(
                f"ResidualDecay: floor is {self.floor!r}; expected a number in (0, 1]: the share "
                "of the fastest decay that a term is credited with at least."
            )

    def cost(self, look: Look, term: str) -> float:
        """In (r / theta)^2, a rate of decay over a learning rate."""
        loss = mean_loss(look, term)
        most = 4 * look.trace(term) / look.kernel.sampled(term)[1]
        if loss == 0:
            return most
        rate = float(mean_gradient(look, term).square().sum()) / loss
        return min(max(rate, self.floor * most), most)
