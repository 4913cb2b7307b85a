"""A bloom of algae that spreads, and a circuit."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.broken.tenth.study import Study, gradient


class Bloom(Study):
    """u_t + drift u_x = rate u (1 - u) on [0, 2] x [0, 1] with a hard start.

    ``growth``: steps until the points have spread over all of the time.
    """

    def __init__(
        self, rate: float = 8.0, drift: float = 0.5, growth: int = 0, **options: Any
    ) -> None:
        super().__init__([(0.0, 2.0), (0.0, 1.0)], **options)
        self.rate, self.drift, self.growth = rate, drift, growth

    def seed(self, x: Tensor) -> Tensor:
        return 0.4 * torch.exp(-8 * (x - 0.8) ** 2)

    def truth(self, z: Tensor) -> Tensor:
        x, t = z.split(1, dim=1)
        u, grown = self.seed(x - self.drift * t), torch.exp(self.rate * t)
        return u * grown / (u * grown + 1 - u)

    def forward(self, z: Tensor) -> Tensor:
        x, t = z.split(1, dim=1)
        return self.seed(x) + t / (t + 0.2) * self.net(z)

    def losses(self, z: Tensor) -> dict[str, Tensor]:
        if self.growth:
            known = min(1.0, 0.05 + self.global_step / self.growth)
            z = (z.detach() * torch.tensor([1.0, known])).requires_grad_(True)
        u = self(z)
        g = gradient(u, z)
        residual = g[:, 1:] + self.drift * g[:, :1] - self.rate * u * (1 - u)
        return {"bloom": residual.square().mean()}


class Circuit(Study):
    """RC circuit rc u' + u = drive, such that u = sin(2 pi t) + ripple sin(2 pi f t)."""

    def __init__(self, f: float = 12.0, ripple: float = 0.8, **options: Any) -> None:
        super().__init__([(0.0, 1.0)], **options)
        self.f, self.ripple, self.rc = f, ripple, 1 / (2 * math.pi * f)

    def truth(self, t: Tensor) -> Tensor:
        return torch.sin(2 * math.pi * t) + self.ripple * torch.sin(2 * math.pi * self.f * t)

    def drive(self, t: Tensor) -> Tensor:
        w, k = 2 * math.pi, 2 * math.pi * self.f
        rate = w * torch.cos(w * t) + self.ripple * k * torch.cos(k * t)
        return self.rc * rate + self.truth(t)

    def losses(self, t: Tensor) -> dict[str, Tensor]:
        u = self(t)
        kirchhoff = self.rc * gradient(u, t) + u - self.drive(t.detach())
        return {
            "kirchhoff": F.mse_loss(kirchhoff, torch.zeros_like(u)),
            "discharged": self(t.new_zeros(1, 1)).square().mean(),
        }
