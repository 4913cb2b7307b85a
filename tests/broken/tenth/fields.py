"""Fields in space and time: heat, waves, Burgers, advection, quantum packets, options."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.broken.tenth.study import Study, gradient, line


class Rod(Study):
    """u_t = kappa u_xx on [0, 1]^2, cold ends, u(x, 0) = sin(pi x); columns x, t."""

    def __init__(self, kappa: float = 0.15, initial: bool = True, **options: Any) -> None:
        super().__init__([(0.0, 1.0), (0.0, 1.0)], **options)
        self.kappa, self.initial = kappa, initial

    def truth(self, z: Tensor) -> Tensor:
        x, t = z.split(1, dim=1)
        return torch.sin(math.pi * x) * torch.exp(-self.kappa * math.pi**2 * t)

    def at_start(self) -> Tensor:
        x = torch.linspace(0, 1, 50, dtype=self.real)[:, None]
        return F.mse_loss(self(line(x, 0.0, 1)), torch.sin(math.pi * x))

    def losses(self, z: Tensor) -> dict[str, Tensor]:
        g = gradient(self(z), z)
        u_xx = gradient(g[:, :1], z)[:, :1]
        t = z.detach()[:64, 1:]
        cold = self(line(t, 0.0, 0)).square().mean() + self(line(t, 1.0, 0)).square().mean()
        losses = {"pde": (g[:, 1:] - self.kappa * u_xx).square().mean(), "cold": cold}
        return losses | ({"initial": 2 * self.at_start()} if self.initial else {})


class Guitar(Study):
    """u_tt = c^2 u_xx, plucked in one mode; hard ends: u = x (1 - x) net."""

    def __init__(self, c: float = 1.0, span: float = 1.0, **options: Any) -> None:
        super().__init__([(0.0, 1.0), (0.0, span)], **options)
        self.c = c

    def truth(self, z: Tensor) -> Tensor:
        x, t = z.split(1, dim=1)
        return torch.sin(math.pi * x) * torch.cos(self.c * math.pi * t)

    def forward(self, z: Tensor) -> Tensor:
        x = z[:, :1]
        return 4 * x * (1 - x) * self.net(z)

    def losses(self, z: Tensor) -> dict[str, Tensor]:
        g = gradient(self(z), z)
        u_xx, u_tt = gradient(g[:, :1], z)[:, :1], gradient(g[:, 1:], z)[:, 1:]
        x = torch.linspace(0, 1, 50, dtype=self.real)[:, None]
        start = line(x, 0.0, 1).requires_grad_(True)
        u = self(start)
        return {
            "wave": ((u_tt / self.c**2 - u_xx) / 10).square().mean(),
            "shape": 5 * F.mse_loss(u, torch.sin(math.pi * x)),
            "rest": gradient(u, start)[:, 1].square().mean() / self.c**2,
        }


class Whisper(Guitar):
    """The same as sound: the network gives the pressure over ``ambient`` in units of ``unit``."""

    def __init__(self, ambient: float = 101325.0, unit: float = 1e-3, **options: Any) -> None:
        super().__init__(**options)
        self.ambient, self.unit = ambient, unit

    def pressure(self, z: Tensor) -> Tensor:
        return self.ambient + self.unit * self(z)

    def losses(self, z: Tensor) -> dict[str, Tensor]:
        losses = super().losses(z)
        x = torch.linspace(0, 1, 50, dtype=self.real)[:, None]
        heard = self.ambient + self.unit * torch.sin(math.pi * x)
        gap = (self.pressure(line(x, 0.0, 1)) - heard) / self.unit
        return losses | {"shape": 5 * gap.square().mean()}


class Shock(Study):
    """Burgers: u_t + u u_x = nu u_xx on [-1, 1] x [0, 1], a travelling front as data at the rim."""

    def __init__(self, nu: float = 0.1, **options: Any) -> None:
        super().__init__([(-1.0, 1.0), (0.0, 1.0)], **options)
        self.nu = nu

    def truth(self, z: Tensor) -> Tensor:
        x, t = z.split(1, dim=1)
        return 0.5 - torch.tanh((x + 0.3 - 0.5 * t) / (2 * self.nu))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        z = self.coordinates(batch)
        u = self(z)
        g = gradient(u, z)
        pde = g[:, 1:] + u * g[:, :1] - self.nu * gradient(g[:, :1], z)[:, :1]
        x, t = 2 * torch.rand(40, 1) - 1, torch.rand(40, 1)
        rim = torch.cat([line(x, 0.0, 1), line(t, -1.0, 0), line(t, 1.0, 0)])
        loss_pde, loss_rim = pde.pow(2).mean(), F.mse_loss(self(rim), self.truth(rim))
        self.log("loss_pde", loss_pde)
        self.log("loss_rim", loss_rim)
        return loss_pde + 2 * loss_rim


class Transport(Study):
    """u_t + c u_x = 0 on a ring of length 2 pi, u(x, 0) = sin x; ``growth`` as of a pendulum."""

    def __init__(self, c: float = 2.0, span: float = 1.0, growth: int = 0, **options: Any) -> None:
        super().__init__([(0.0, 2 * math.pi), (0.0, span)], **options)
        self.c, self.span, self.growth = c, span, growth

    def truth(self, z: Tensor) -> Tensor:
        return torch.sin(z[:, :1] - self.c * z[:, 1:])

    def losses(self, z: Tensor) -> dict[str, Tensor]:
        if self.growth:
            horizon = min(1.0, 0.05 + self.global_step / self.growth)
            z = (z.detach() * torch.tensor([1.0, horizon])).requires_grad_(True)
        g = gradient(self(z), z)
        t = z.detach()[:, 1:]
        x = torch.linspace(0, 2 * math.pi, 60)[:, None]
        ring = self(line(t, 0.0, 0)) - self(line(t, 2 * math.pi, 0))
        return {
            "transport": (g[:, 1:] + self.c * g[:, :1]).square().mean(),
            "start": F.mse_loss(self(line(x, 0.0, 1)), torch.sin(x)),
            "ring": ring.square().mean(),
        }


class Packet(Study):
    """i psi_t = -psi_xx / 2 in a well of width pi: psi = sin x e^(-it/2) + sin 2x e^(-2it)."""

    def __init__(self, span: float = 1.0, initial: bool = True, **options: Any) -> None:
        super().__init__([(0.0, math.pi), (0.0, span)], 2, **options)
        self.initial = initial

    def truth(self, z: Tensor) -> Tensor:
        x, t = z.split(1, dim=1)
        a, b = torch.sin(x), torch.sin(2 * x)
        real = a * torch.cos(t / 2) + b * torch.cos(2 * t)
        return torch.cat([real, -a * torch.sin(t / 2) - b * torch.sin(2 * t)], dim=1)

    def losses(self, z: Tensor) -> dict[str, Tensor]:
        u, v = self(z).split(1, dim=1)
        gu, gv = gradient(u, z), gradient(v, z)
        u_xx, v_xx = gradient(gu[:, :1], z)[:, :1], gradient(gv[:, :1], z)[:, :1]
        t = z.detach()[:50, 1:]
        x = torch.linspace(0, math.pi, 50)[:, None]
        wall = torch.cat([line(t, 0.0, 0), line(t, math.pi, 0)])
        start = line(x, 0.0, 1)
        losses = {
            "real": (gu[:, 1:] + v_xx / 2).square().mean(),
            "imaginary": (gv[:, 1:] - u_xx / 2).square().mean(),
            "wall": self(wall).square().mean(),
        }
        if self.initial:
            losses["start"] = 5 * F.mse_loss(self(start), self.truth(start))
        return losses


class Option(Study):
    """Black-Scholes call, value and spot in units of the strike; columns spot, time to expiry."""

    def __init__(
        self, vol: float = 0.4, rate: float = 0.05, top: float = 2.0, **options: Any
    ) -> None:
        super().__init__([(0.0, top), (0.0, 1.0)], **options)
        self.vol, self.rate, self.top = vol, rate, top

    def truth(self, z: Tensor) -> Tensor:
        s, tau = z[:, :1].clamp_min(1e-9), z[:, 1:].clamp_min(1e-9)
        width = self.vol * tau.sqrt()
        d1 = (s.log() + (self.rate + self.vol**2 / 2) * tau) / width
        phi = torch.special.ndtr
        return s * phi(d1) - torch.exp(-self.rate * tau) * phi(d1 - width)

    def losses(self, z: Tensor) -> dict[str, Tensor]:
        value, s = self(z), z[:, :1]
        g = gradient(value, z)
        gamma = gradient(g[:, :1], z)[:, :1]
        drift = self.rate * (s * g[:, :1] - value)
        pde = -g[:, 1:] + 0.5 * self.vol**2 * s**2 * gamma + drift
        spot = torch.linspace(0, self.top, 60)[:, None]
        tau = torch.linspace(0, 1, 30)[:, None]
        low, high = line(tau, 0.0, 0), line(tau, self.top, 0)
        return {
            "pde": pde.square().mean(),
            "payoff": 5 * F.mse_loss(self(line(spot, 0.0, 1)), (spot - 1).relu()),
            "rims": self(low).square().mean() + F.mse_loss(self(high), self.truth(high)),
        }
