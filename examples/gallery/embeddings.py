"""Features that stand in front of a network, in ``nn.Sequential``.

How many features an embedding gives stands in its ``n_out``.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

Number = float | Sequence[float]
"""One number for all inputs, or one for each."""


class FourierFeatures(nn.Module):
    """Sines and cosines of random angles (Tancik et al. 2020), half of the features each.

    Args:
        n_in: Inputs.
        n_out: Features, an even number.
        scale: Standard deviation of the angular frequencies; one number, or one for each input.
    """

    def __init__(self, n_in: int, n_out: int, scale: Number = 1.0) -> None:
        super().__init__()
        if n_out % 2:
            raise ValueError(f"{n_out} Fourier features; expected an even number of them.")
        self.n_out = n_out
        deviation = torch.tensor(numbers(scale, n_in))[:, None]
        self.register_buffer("angles", deviation * torch.randn(n_in, n_out // 2))

    def forward(self, points: Tensor) -> Tensor:
        """sin(points @ angles), then cos(points @ angles), (N, n_out)."""
        phase = points @ self.angles
        return torch.cat([phase.sin(), phase.cos()], 1)


class PeriodicEmbedding(nn.Module):
    """Replaces one input by its sine and cosine, so that the network is periodic in it.

    Args:
        n_in: Inputs.
        axis: The periodic one.
        period: Its period.
        harmonics: Sines and cosines of 1, 2, ... times the angle.
    """

    def __init__(self, n_in: int, axis: int, period: float, harmonics: int = 1) -> None:
        super().__init__()
        self.axis, self.angle, self.harmonics = axis, 2 * math.pi / period, harmonics
        self.n_out = n_in - 1 + 2 * harmonics

    def forward(self, points: Tensor) -> Tensor:
        """The other inputs, then sines, then cosines, (N, n_out)."""
        others = [points[:, i : i + 1] for i in range(points.shape[1]) if i != self.axis]
        angle = self.angle * points[:, self.axis : self.axis + 1]
        multiples = [k * angle for k in range(1, self.harmonics + 1)]
        return torch.cat([*others, *map(torch.sin, multiples), *map(torch.cos, multiples)], 1)


def numbers(number: Number, count: int) -> list[float]:
    """One number for each input."""
    return list(number) if isinstance(number, Sequence) else [float(number)] * count
