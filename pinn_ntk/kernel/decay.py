"""How eigenvalues fall with their index: as a power law or exponentially, by least squares.

| symbol | meaning |
| --- | --- |
| lambda_i | eigenvalue of index i = 1, 2, ..., largest first |
| power law | log lambda_i = c - alpha log i |
| exponential | log lambda_i = c - beta i |

Smooth activations give kernels whose eigenvalues fall exponentially in the index, rougher ones a
power law; the faster the fall, the fewer directions a network learns in a given time.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

FEWEST = 3
"""Eigenvalues below which a law with two numbers fits whatever they are."""

Name = Literal["power law", "exponential"]
_ABSCISSA: dict[Name, Callable[[Tensor], Tensor]] = {
    "power law": torch.log,
    "exponential": lambda index: index,
}


@dataclass(frozen=True)
class Law:
    """One law, fitted."""

    name: Name
    rate: float  # alpha or beta
    intercept: float  # c
    r_squared: float  # share of the variance of log lambda_i that it explains

    def __call__(self, index: Tensor) -> Tensor:
        """Eigenvalues by this law at indices from 1 on, of any shape."""
        return torch.exp(self.intercept - self.rate * _ABSCISSA[self.name](index.double()))


@dataclass(frozen=True)
class Decay:
    """Both laws, ``power`` and ``exponential``, fitted to the same eigenvalues.

    Example:
        >>> decay = Decay.of(torch.tensor([4.0, 1.0, 0.25, 0.0625]))
        >>> decay.law, round(decay.rate, 6), round(decay.r_squared, 6)  # rate log 4
        ('exponential', 1.386294, 1.0)
        >>> round(decay.power.r_squared, 3)
        0.961
    """

    power: Law
    exponential: Law

    @classmethod
    def of(cls, eigenvalues: Tensor) -> Decay | None:
        """Fit both laws to positive eigenvalues, largest first, without those that are noise, (n,).

        None for fewer than `FEWEST` of them; ValueError where one is not positive and finite.
        """
        values = eigenvalues.detach().double().cpu()
        if len(values) < FEWEST:
            return None
        if not bool(((values > 0) & values.isfinite()).all()):
            raise ValueError(
                f"expected positive finite eigenvalues, got {float(values.min())} to "
                f"{float(values.max())}; leave out what lies below the noise floor, as "
                "Spectrum.above_floor does."
            )
        return cls(_fitted("power law", values), _fitted("exponential", values))

    @property
    def better(self) -> Law:
        """The law that explains more of the variance; the power law where both do alike."""
        fits_better = self.exponential.r_squared > self.power.r_squared
        return self.exponential if fits_better else self.power

    @property
    def law(self) -> Name:
        """Name of the better law."""
        return self.better.name

    @property
    def rate(self) -> float:
        """Its exponent alpha or rate beta."""
        return self.better.rate

    @property
    def r_squared(self) -> float:
        """Its share of the variance of log lambda_i."""
        return self.better.r_squared


def _fitted(name: Name, values: Tensor) -> Law:
    """Least squares of log lambda_i against log i or i."""
    x = _ABSCISSA[name](torch.arange(1, len(values) + 1, dtype=torch.float64))
    y = values.log()
    from_mean, spread = x - x.mean(), y - y.mean()
    total = float(spread.square().sum())
    rounding = len(y) * (8 * torch.finfo(y.dtype).eps * max(1.0, float(y.abs().max()))) ** 2
    if total <= rounding:  # all eigenvalues equal: a law of rate 0 leaves nothing unexplained
        return Law(name, 0.0, float(y.mean()), 1.0)
    slope = float(from_mean @ spread / from_mean.square().sum())
    left = float((spread - slope * from_mean).square().sum())
    return Law(name, -slope, float(y.mean() - slope * x.mean()), math.fsum((1.0, -left / total)))
