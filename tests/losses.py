"""Losses as data: name -> function that gives each term's contribution to the loss, by name.

Scaled by the size of the residuals, so that a network at any scale meets both branches of Huber's
function and the bend of log-cosh.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from itertools import cycle

import torch
from torch import Tensor
from torch.nn.functional import huber_loss

Loss = Callable[[Mapping[str, Tensor]], dict[str, Tensor]]


def size(r: Tensor) -> float:
    """Power of two next to the root mean square of a residual, so that a small step leaves it."""
    mean_square = float(r.detach().square().mean())
    return 2.0 ** round(math.log2(mean_square) / 2) if mean_square else 1.0


def of_each(function: Callable[[Tensor], Tensor]) -> Loss:
    return lambda residuals: {name: function(r) for name, r in residuals.items()}


def huber(r: Tensor) -> Tensor:
    return huber_loss(r, torch.zeros_like(r), delta=0.7 * size(r))


def pointwise(r: Tensor) -> Tensor:
    """Weights of single rows, one of them zero."""
    weights = torch.linspace(0, 2, r.numel(), dtype=r.dtype).reshape(r.shape)
    return (weights * r.square()).mean()


def weighted(residuals: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A weight a term: 100, 10, 1, ..."""
    weights = (100.0 / 10**k for k in range(len(residuals)))
    return {n: w * r.square().sum() for w, (n, r) in zip(weights, residuals.items(), strict=True)}


def mixed(residuals: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Another function for every term."""
    kinds = cycle([lambda r: r.square().mean(), huber, lambda r: 3 * r.abs().mean()])
    return {name: kind(r) for kind, (name, r) in zip(kinds, residuals.items(), strict=False)}


LOSSES: dict[str, Loss] = {
    "mean_of_squares": of_each(lambda r: r.square().mean()),
    "weighted_sums": weighted,
    "absolute": of_each(lambda r: r.abs().mean()),
    "huber": of_each(huber),
    "log_cosh": of_each(lambda r: torch.log(torch.cosh(r / size(r))).mean()),
    "pointwise": of_each(pointwise),
    "mixed": mixed,
}
