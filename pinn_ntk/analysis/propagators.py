"""What training does to one mode of the residual, in closed form, mode by mode.

| symbol | meaning | shape |
| --- | --- | --- |
| lambda | rate of a mode, eigenvalue of D^(1/2) K D^(1/2); 0 for one below the floor | (n,) |
| t | time of the gradient flow; a step of descent takes lr of it | times |
| p | share of the mode that is left, p(0) = 1 | (*times, n) |
| phi | reach, the time that acted: 1 - p = lambda phi, phi -> t for lambda -> 0 | same |

p moves the residuals that are trained on; phi moves those at other points, through the cross
kernel, without a division by a rate that may be zero. What the cross kernel says of a mode below
the floor is known to ``floor`` only: its reach t exp(-floor t) is right for t << 1 / floor and
fades beyond, where nothing is known of it.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

Times = float | Tensor
"""One time or number of steps, or several in a tensor of any shape."""

_SERIES = 0.5  # lr * rate up to which 1 - p would cancel


class Propagator(NamedTuple):
    """What is left of each mode, p, and how far it reached, phi; (*times, n) each."""

    kept: Tensor
    reach: Tensor


def flow(rates: Tensor, times: Times, floor: float = 0.0) -> Propagator:
    """Gradient flow: p = exp(-lambda t) and phi = (1 - p) / lambda; t = inf is the end of training.

    No rate (n,) and no time is negative; ``floor`` is the rounding noise of the rates.

    >>> kept, reach = flow(torch.tensor([1.0, 0.0], dtype=torch.float64), math.log(2))
    >>> [round(x, 6) for x in (kept.tolist() + reach.tolist())]
    [0.5, 1.0, 0.5, 0.693147]
    """
    time = torch.as_tensor(times, dtype=rates.dtype, device=rates.device)[..., None]
    if not bool((time >= 0).all()):
        raise ValueError(f"expected times of 0 or more, got {times}; training runs forward.")
    moves = rates > 0
    exponent = torch.where(moves, rates * time, 0.0)  # not 0 * inf
    reach = -torch.expm1(-exponent) / torch.where(moves, rates, 1.0)
    return Propagator(torch.exp(-exponent), torch.where(moves, reach, _faded(time, floor)))


def descent(
    rates: Tensor, steps: int | Tensor, lr: float, momentum: float = 0.0, floor: float = 0.0
) -> Propagator:
    """Gradient descent as of ``torch.optim.SGD(lr=lr, momentum=momentum)``, first step included.

    Without momentum p = (1 - lr lambda)^n. With it, the heavy ball of Polyak 1964 (USSR
    Computational Mathematics and Mathematical Physics 4, 1), without dampening and Nesterov's form:

        v <- momentum v + g,  theta <- theta - lr v,  from v = 0.

    Exact also where a mode grows, lr lambda > 2. Steps are whole numbers; ``rates`` and ``floor``
    as for `flow`.

    >>> rates = torch.tensor([1.0, 3.0], dtype=torch.float64)
    >>> descent(rates, 2, lr=0.5).kept.tolist()  # (1 - 0.5)^2, (1 - 1.5)^2
    [0.25, 0.25]
    >>> descent(rates, 2, lr=0.5, momentum=0.5).kept.tolist()
    [0.0, -0.5]
    """
    count = _checked_steps(steps, rates)
    if not (0 < lr < math.inf and 0 <= momentum < 1):
        raise ValueError(
            f"expected lr > 0 and 0 <= momentum < 1, got lr = {lr} and momentum = {momentum}."
        )
    x, moves = lr * rates, rates > 0
    kept, acted = _heavy_ball(x, count, momentum) if momentum else _plain(x, count)
    reach = lr * acted
    return Propagator(kept, torch.where(moves, reach, _faded(reach, floor)))


def limit(rates: Tensor, ridge: float = 0.0, floor: float = 0.0) -> Propagator:
    """The end of training on the loss plus ridge / 2 |theta - theta(0)|^2.

    p = ridge / (lambda + ridge) and phi = 1 / (lambda + ridge), (n,). Without a ridge, modes below
    the floor stay and reach nowhere: the pseudo-inverse.

    >>> rates = torch.tensor([1.0, 0.0], dtype=torch.float64)
    >>> [x.tolist() for x in limit(rates)], [x.tolist() for x in limit(rates, ridge=1.0)]
    ([[0.0, 1.0], [1.0, 0.0]], [[0.5, 1.0], [0.5, 1.0]])
    """
    if not 0 <= ridge < math.inf:
        raise ValueError(f"expected a ridge of 0 or more, got {ridge}.")
    moves = rates > 0
    total = torch.where(moves, rates + ridge, 1.0)
    below = 1 / ridge if ridge > floor else 0.0
    kept, reach = torch.where(moves, ridge / total, 1.0), torch.where(moves, 1 / total, below)
    return Propagator(kept, reach)


def _plain(x: Tensor, steps: Tensor) -> tuple[Tensor, Tensor]:
    """(1 - x)^n and the sum of (1 - x)^m over m < n, for x = lr lambda."""
    small = x < _SERIES
    logarithm = steps * torch.log1p(-torch.where(small, x, 0.0))
    kept = torch.where(small, torch.exp(logarithm), (1 - x) ** steps)
    gone = torch.where(small, -torch.expm1(logarithm), 1 - kept)
    return kept, torch.where(x > 0, gone / torch.where(x > 0, x, 1.0), steps)


def _heavy_ball(x: Tensor, steps: Tensor, momentum: float) -> tuple[Tensor, Tensor]:
    """p and phi / lr, by powers of what takes (p, x v) and (phi / lr, v, 1) one step on."""
    one, mu = torch.ones_like(x), torch.full_like(x, momentum)
    residual = _matrices([[1 - x, -mu], [x, mu]])
    distance = _matrices([[1 - x, mu, one], [-x, mu, one], [0 * x, 0 * x, one]])
    counts = [int(n) for n in steps.flatten().tolist()]
    kept = torch.stack([torch.linalg.matrix_power(residual, n)[:, 0, 0] for n in counts])
    acted = torch.stack([torch.linalg.matrix_power(distance, n)[:, 0, 2] for n in counts])
    shape = (*steps.shape[:-1], len(x))
    return kept.reshape(shape), acted.reshape(shape)


def _matrices(entries: list[list[Tensor]]) -> Tensor:
    """One matrix a mode, (n, k, k)."""
    return torch.stack([torch.stack(row, -1) for row in entries], -2)


def _faded(reach: Tensor, floor: float) -> Tensor:
    """Reach of a mode of rate 0 that is known to ``floor``: 0 in the limit."""
    if not floor:
        return reach
    return torch.where(torch.isinf(reach), 0.0, reach * torch.exp(-floor * reach))


def _checked_steps(steps: int | Tensor, rates: Tensor) -> Tensor:
    """Numbers of steps, (*steps, 1), in the dtype of the rates."""
    count = torch.as_tensor(steps, device=rates.device)
    whole = torch.isfinite(count) & (count >= 0) & (count == count.round())
    if not bool(whole.all()):
        raise ValueError(f"expected whole numbers of steps, 0 or more, got {steps}.")
    return count.to(rates.dtype)[..., None]
