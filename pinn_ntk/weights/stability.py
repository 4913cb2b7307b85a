"""Weights that would make plain gradient descent unstable, scaled down as a whole."""

from __future__ import annotations

import math
from collections.abc import Mapping

from pinn_ntk.analysis.step_size import max_stable_lr
from pinn_ntk.looks.look import Look

SHARE = 0.9
"""Of the largest stable learning rate that the one in use is brought to."""


def stable_factor(look: Look, factors: Mapping[str, float]) -> float:
    """What all weights are to be multiplied with so that gradient descent is stable; 1 if it is.

    Gradient descent is stable for a learning rate below 2 / lambda_max of D^(1/2) K D^(1/2) (Wang,
    Yu, Perdikaris 2022, eq. 6.3). ``factors`` are what the weight of each term in the
    differentiated loss is multiplied with. 1 where the bound is not known: no sum of squares, a
    kernel of some parameters only, no learning rate.

    >>> import torch
    >>> import pinn_ntk
    >>> w = torch.tensor(1.0, requires_grad=True)
    >>> optimizer = torch.optim.SGD([w], lr=0.5)
    >>> loss = (w * torch.tensor([3.0]) - 1).square().mean()
    >>> step = pinn_ntk.look(loss, [w], names=["pde"], optimizer=optimizer)
    >>> round(stable_factor(step, {"pde": 1.0}), 9)  # largest stable learning rate 2 / 18
    0.2
    """
    lr = look.learning_rate
    D = look.finite.curvature(factors) if look.over_all else None
    if D is None or lr is None or not look.kernel.terms or not set(look.kernel.terms) <= D.keys():
        return 1.0
    bound = max_stable_lr(look.descent, look.kernel, D, look.rows_kept)
    return SHARE * bound / lr if 0 < bound < lr < math.inf else 1.0
