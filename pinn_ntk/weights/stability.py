"""Weights that would make plain gradient descent unstable, scaled down as a whole."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from torch import Tensor

from pinn_ntk.analysis.step_size import max_stable_lr
from pinn_ntk.looks.look import Look

SHARE = 0.9
"""Of the largest stable learning rate that the one in use is brought to."""


def sharpness(
    look: Look, factors: Mapping[str, float], points: Mapping[str, Tensor] | None = None
) -> float | None:
    """Learning rate over the largest that plain gradient descent stands; above 1 it diverges.

    That is lr lambda_max / 2 of D^(1/2) K D^(1/2) (Wang, Yu, Perdikaris 2022, eq. 6.3). Of losses
    whose terms are measured apart the sum of these bounds that of the whole.

    Args:
        look: The step.
        factors: Term -> what its weight in the differentiated loss is multiplied with.
        points: Term -> weights of its points besides, (N,).

    Returns:
        None where it is not known: no sum of squares, a kernel of some parameters or points only,
        several optimizers, no learning rate.

    >>> import torch
    >>> import pinn_ntk
    >>> w = torch.tensor(1.0, requires_grad=True)
    >>> optimizer = torch.optim.SGD([w], lr=0.5)
    >>> loss = (w * torch.tensor([3.0]) - 1).square().mean()
    >>> step = pinn_ntk.look(loss, [w], names=["pde"], optimizer=optimizer)
    >>> round(sharpness(step, {"pde": 1.0}), 9)  # largest stable learning rate 2 / 18
    4.5
    """
    lr, D = look.learning_rate, look.finite.curvature(factors) if look.over_all else None
    if D is None or lr is None or not look.kernel.terms or not set(look.kernel.terms) <= D.keys():
        return None
    for term, weights in (points or {}).items():
        D[term] = D[term] * weights.to(D[term]) if len(weights) == len(D[term]) else D[term]
    bound = max_stable_lr(look.descent, look.kernel, D, look.rows_kept)
    return lr / bound if 0 < bound < math.inf else 0.0


def stable_factor(sharp: float) -> float:
    """What all weights are to be multiplied with so that gradient descent is stable; 1 if it is.

    >>> stable_factor(0.95), stable_factor(4.5)
    (1.0, 0.2)
    """
    return 1.0 if sharp < 1 else SHARE / sharp


@dataclass
class Sharpness:
    """What is known of the stability of all terms, which may be measured apart from each other."""

    parts: dict[frozenset[str], float] = field(default_factory=dict)  # terms measured together
    total: float = 0.0  # of all, on all processes
    rate: float | None = None  # learning rate that it is of

    def measured(self, terms: Iterable[str], sharp: float) -> float:
        """Take in what these terms have now; the sum over all terms.

        >>> known = Sharpness()
        >>> known.measured(["pde"], 2.0), known.measured(["bc"], 1.0), known.measured(["pde"], 0.5)
        (2.0, 3.0, 1.5)
        """
        names = frozenset(terms)
        apart = {known: s for known, s in self.parts.items() if known.isdisjoint(names)}
        self.parts = apart | {names: sharp}
        return sum(self.parts.values())

    def factor(self, rate: float | None) -> float | None:
        """What all weights are to be multiplied with at a learning rate; None where unknown."""
        if not self.total or not self.rate or rate is None:
            return None
        return stable_factor(self.total * rate / self.rate)

    def state_dict(self) -> dict[str, Any]:
        """Plain values."""
        parts = [[sorted(names), sharp] for names, sharp in self.parts.items()]
        return {"parts": parts, "total": self.total, "rate": self.rate}

    @classmethod
    def of_state(cls, state: Mapping[str, Any]) -> Sharpness:
        """What `state_dict` gave; nothing is known of an empty state."""
        parts = {frozenset(names): sharp for names, sharp in state.get("parts", [])}
        return cls(parts, state.get("total", 0.0), state.get("rate"))
