"""The network of the Poisson problem of Wang, Yu, Perdikaris 2022."""

from __future__ import annotations

import math

from torch import Tensor, nn


class OneLayer(nn.Sequential):
    """One hidden tanh layer on standardised inputs; W ~ N(0, 1) / sqrt(fan_in), b ~ N(0, 1).

    Derivatives with respect to x come out in physical units. Without the standardisation the trace
    weight of the boundary starts near 4 instead of 160, and there is little to balance.
    """

    def __init__(self, width: int, mean: float, std: float) -> None:
        super().__init__(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1))
        self.mean, self.std = mean, std
        for layer in (self[0], self[2]):
            nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.in_features))
            nn.init.normal_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """u(x) for x of shape (N, 1)."""
        return super().forward((x - self.mean) / self.std)
