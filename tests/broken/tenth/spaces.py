"""Steady problems in space, and coefficients of fields."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.broken.pinn import Pinn, d
from tests.broken.tenth.study import Study, gradient, line


class Membrane(Study):
    """-Laplace u = f on the unit square, u = sin(m pi x) sin(n pi y), fixed at the rim."""

    def __init__(self, m: int = 1, n_y: int = 1, hard: bool = False, **options: Any) -> None:
        super().__init__([(0.0, 1.0), (0.0, 1.0)], **options)
        self.m, self.n_y, self.hard = m, n_y, hard
        self.factor = math.pi**2 * (m**2 + n_y**2)

    def truth(self, z: Tensor) -> Tensor:
        x, y = z.split(1, dim=1)
        return torch.sin(self.m * math.pi * x) * torch.sin(self.n_y * math.pi * y)

    def forward(self, z: Tensor) -> Tensor:
        x, y = z.split(1, dim=1)
        return (16 * x * (1 - x) * y * (1 - y) if self.hard else 1) * self.net(z)

    def source(self, z: Tensor) -> Tensor:
        return self.factor * self.truth(z)

    def laplace(self, z: Tensor) -> Tensor:
        g = gradient(self(z), z)
        return gradient(g[:, :1], z)[:, :1] + gradient(g[:, 1:], z)[:, 1:]

    def losses(self, z: Tensor) -> dict[str, Tensor]:
        residual = (self.laplace(z) + self.source(z.detach())) / self.factor
        losses = {"poisson": residual.square().mean()}
        if not self.hard:
            s = torch.linspace(0, 1, 40, dtype=self.real)[:, None]
            rim = torch.cat([line(s, v, c) for v in (0.0, 1.0) for c in (0, 1)])
            losses["rim"] = 3 * self(rim).square().mean()
        return losses


class Antenna(Pinn):
    """-u'' = f on [0, 1] for u = 1 + x + sum of a sin(k pi x); Dirichlet or Neumann ends."""

    def __init__(
        self,
        modes: dict[int, float] | None = None,
        ends: str = "values",
        offset: float = 1.0,
        h: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.modes, self.ends, self.offset, self.h = modes or {1: 1.0}, ends, offset, h
        self.scale = max(abs(a) * (k * math.pi) ** 2 for k, a in self.modes.items())

    def truth(self, x: Tensor) -> Tensor:
        waves = sum(a * torch.sin(k * math.pi * x) for k, a in self.modes.items())
        return self.offset * (1 + x) + waves

    def second(self, x: Tensor) -> Tensor:
        if not self.h:
            return d(d(self.net(x), x), x)
        h = self.h
        return (self.net(x + h) - 2 * self.net(x) + self.net(x - h)) / h**2

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        f = sum(a * (k * math.pi) ** 2 * torch.sin(k * math.pi * x) for k, a in self.modes.items())
        residual = (self.second(x) + f) / self.scale
        tips = torch.tensor([[0.0], [1.0]], dtype=self.dtype, requires_grad=True)
        u, truth = self.net(tips), self.truth(tips)
        terms = {"slopes": F.mse_loss(d(u, tips), d(truth, tips).detach())}
        if self.ends == "both":
            terms["left"] = F.mse_loss(u[:1], truth[:1].detach())
        if self.ends == "values":
            terms = {"values": F.mse_loss(u, truth.detach())}
        return self.total(residual=residual.square().mean(), **terms)


class Diffusivity(Study):
    """u_t = D u_xx - k u on [0, 1]^2 of some modes; D and k are trained, data with noise.

    The error is the larger one of the field's and the coefficients'.
    """

    def __init__(
        self,
        modes: tuple[int, ...] = (1, 2),
        diffusivity: float = 0.1,
        k: float = 0.5,
        noise: float = 0.01,
        sensors: int = 300,
        known: bool = False,
        **options: Any,
    ) -> None:
        super().__init__([(0.0, 1.0), (0.0, 1.0)], **options)
        self.modes, self.true, self.known = modes, (diffusivity, k), known
        guess = self.true if known else (0.3, 0.0)
        self.coefficients = nn.Parameter(self.const(*guess), requires_grad=not known)
        generator = torch.Generator().manual_seed(3)
        places = torch.rand(sensors, 2, generator=generator, dtype=torch.float64)
        noises = noise * torch.randn(sensors, 1, generator=generator)
        self.register_buffer("places", places.to(self.real))
        self.register_buffer("readings", (self.truth(places) + noises).to(self.real))

    def truth(self, z: Tensor) -> Tensor:
        x, t = z.split(1, dim=1)
        a, k = self.true
        rates = {m: a * (m * math.pi) ** 2 + k for m in self.modes}
        return sum(torch.sin(m * math.pi * x) * torch.exp(-r * t) for m, r in rates.items())

    def operator(self, u_t: Tensor, u_xx: Tensor, u: Tensor) -> Tensor:
        a, k = self.coefficients
        return u_t - a * u_xx + k * u

    def losses(self, z: Tensor) -> dict[str, Tensor]:
        u = self(z)
        g = gradient(u, z)
        residual = self.operator(g[:, 1:], gradient(g[:, :1], z)[:, :1], u)
        return {
            "physics": 0.1 * residual.square().mean(),
            "readings": 10 * F.mse_loss(self(self.places), self.readings),
        }

    def error(self) -> float:
        found = self.coefficients.tolist()
        return max(super().error(), *(abs(a / b - 1) for a, b in zip(found, self.true)))


class Catalyst(Pinn):
    """c'' = phi^2 c in a slab of catalyst, c'(0) = 0, c(1) = 1 (Thiele modulus phi)."""

    def __init__(self, phi: float = 2.0, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.phi = phi

    def truth(self, x: Tensor) -> Tensor:
        return torch.cosh(self.phi * x) / math.cosh(self.phi)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        c = self.net(x)
        balance = d(d(c, x), x) / self.phi**2 - c
        centre = self.at(0.0).requires_grad_()
        loss = {
            "balance": balance.square().mean(),
            "symmetry": d(self.net(centre), centre).square().mean(),
            "surface": (self.net(self.at(1.0)) - 1).square().mean(),
        }
        self.log_dict(loss)
        return torch.stack(list(loss.values())).sum()
