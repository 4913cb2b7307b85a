"""The functions phi that a loss applies to an unsquared residual r, with their derivatives.

| kind | phi(r) | phi'(r) |
| --- | --- | --- |
| square | r^2 | 2 r |
| abs | abs(r) | sign(r) |
| huber | r^2 / 2 up to delta, then delta (abs(r) - delta / 2) | r, clipped at delta |
| smooth_l1 | huber / beta with delta = beta | r / beta, clipped at 1 |
| log_cosh | log cosh r | tanh r |
| norm | 2-norm of r over some axes | r / norm; 0 where the norm is 0 |
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import huber_loss, smooth_l1_loss, softplus


@dataclass(frozen=True)
class Phi:
    """A function of a residual, entry by entry, with its derivative."""

    kind: str
    value: Callable[[Tensor], Tensor]
    slope: Callable[[Tensor], Tensor]


SQUARE = Phi("square", lambda r: r.abs().square(), lambda r: 2 * r)
ABS = Phi("abs", torch.abs, torch.sgn)
LOG_COSH = Phi("log_cosh", lambda r: r.abs() + softplus(-2 * r.abs()) - math.log(2), torch.tanh)


def huber(delta: float) -> Phi:
    """Huber's function, quadratic up to ``delta``."""

    def value(r: Tensor) -> Tensor:
        return huber_loss(r, torch.zeros_like(r), reduction="none", delta=delta)

    return Phi("huber", value, lambda r: r.clamp(-delta, delta))


def smooth_l1(beta: float) -> Phi:
    """Huber's function over ``beta``, quadratic up to ``beta``."""

    def value(r: Tensor) -> Tensor:
        return smooth_l1_loss(r, torch.zeros_like(r), reduction="none", beta=beta)

    return Phi("smooth_l1", value, lambda r: (r / beta).clamp(-1, 1))


def norm(axes: tuple[int, ...]) -> Phi:
    """The 2-norm over ``axes``, which stay as axes of length 1; over all axes if there are none."""

    def value(r: Tensor) -> Tensor:
        size: Tensor = torch.linalg.vector_norm(r, dim=axes or None, keepdim=True)
        return size

    def slope(r: Tensor) -> Tensor:
        size = value(r)
        return torch.where(size == 0, 0, r / torch.where(size == 0, 1, size))

    return Phi("norm", value, slope)
