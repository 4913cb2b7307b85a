"""Problems on the common base: fields in one or two dimensions."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from tests.broken.pinn import Pinn, d

PI = math.pi


class Fin(Pinn):
    """A cooling fin: u'' = m^2 u on [0, length], u = 1 at its root, u' = 0 at its tip."""

    def __init__(self, m: float = 2.0, length: float = 1.0, **options: Any) -> None:
        super().__init__(((0.0, length),), **options)
        self.m, self.length = m, length

    def truth(self, x: Tensor) -> Tensor:
        return torch.cosh(self.m * (self.length - x)) / math.cosh(self.m * self.length)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u = self.net(x)
        fin = d(d(u, x), x) / self.m**2 - u
        tip = self.at(self.length).requires_grad_()
        flux = d(self.net(tip), tip) / self.m
        root = self.net(self.at(0.0)) - 1
        return self.total(
            fin=fin.square().mean(), tip=flux.square().mean(), root=root.square().mean()
        )


class Plate(Pinn):
    """Laplacian u = f on the unit square, u = 0 around it; by an ansatz or a term."""

    def __init__(self, waves: int = 1, ansatz: bool = True, **options: Any) -> None:
        super().__init__(((0.0, 1.0), (0.0, 1.0)), **options)
        self.waves, self.ansatz = waves, ansatz
        s = torch.linspace(0, 1, 25)[:, None]
        zero, one = torch.zeros_like(s), torch.ones_like(s)
        sides = [(s, zero), (s, one), (zero, s), (one, s)]
        self.register_buffer("edge", torch.cat([torch.hstack(side) for side in sides]))

    def truth(self, x: Tensor) -> Tensor:
        return torch.sin(self.waves * PI * x).prod(1, keepdim=True)

    def predict(self, x: Tensor) -> Tensor:
        u = self.net(x)
        return 16 * (x * (1 - x)).prod(1, keepdim=True) * u if self.ansatz else u

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        first = d(self.predict(x), x)
        laplacian = d(first[:, :1], x)[:, :1] + d(first[:, 1:], x)[:, 1:]
        residual = laplacian / (2 * (self.waves * PI) ** 2) + self.truth(x).detach()
        terms = {} if self.ansatz else {"edge": (self.predict(self.edge) ** 2).mean()}
        return self.total(pde=(residual**2).mean(), **terms)


class Wave(Pinn):
    """u_tt = c^2 u_xx on [0, 1]^2, a string plucked as sin(pi x)."""

    def __init__(self, c: float = 1.0, **options: Any) -> None:
        super().__init__(((0.0, 1.0), (0.0, 1.0)), **options)
        self.c = c
        s = torch.linspace(0, 1, 30)[:, None]
        zero = torch.zeros_like(s)
        self.register_buffer("first", torch.hstack([s, zero]))
        self.register_buffer(
            "ends", torch.cat([torch.hstack([zero, s]), torch.hstack([zero + 1, s])])
        )

    def truth(self, x: Tensor) -> Tensor:
        return torch.sin(PI * x[:, :1]) * torch.cos(self.c * PI * x[:, 1:])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        g = d(self.net(x), x)
        u_xx, u_tt = d(g[:, :1], x)[:, :1], d(g[:, 1:], x)[:, 1:]
        first = self.first.clone().requires_grad_()
        u_0 = self.net(first)
        return self.total(
            wave=((u_tt / self.c**2 - u_xx) / PI**2).pow(2).mean(),
            shape=(u_0 - self.truth(self.first)).pow(2).mean(),
            rest=(d(u_0, first)[:, 1:] / self.c / PI).pow(2).mean(),
            ends=self.net(self.ends).pow(2).mean(),
        )


class Transport(Pinn):
    """u_t + c u_x = 0 for a profile that comes in at the left."""

    def __init__(self, c: float = 1.0, k: float = 2.0, sign: float = 1.0, **options: Any) -> None:
        super().__init__(((0.0, 1.0), (0.0, 1.0)), **options)
        self.c, self.k, self.sign = c, k, sign
        s = torch.linspace(0, 1, 60)[:, None]
        zero = torch.zeros_like(s)
        self.register_buffer("known", torch.cat([torch.hstack([s, zero]), torch.hstack([zero, s])]))

    def truth(self, x: Tensor) -> Tensor:
        return torch.sin(self.k * (x[:, :1] - self.c * x[:, 1:]))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        g = d(self.net(x), x)
        flow = g[:, 1:] + self.sign * self.c * g[:, :1]
        known = self.net(self.known) - self.truth(self.known)
        return self.total(flow=(flow**2).mean() / self.c**2, known=(known**2).mean())


class Conductivity(Pinn):
    """-k u'' = 1 with u = 0 at both ends and k unknown; some values of u are measured."""

    def __init__(self, k: float = 0.25, measured: int = 9, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.true_k, self.measured = k, measured
        self.log_k = nn.Parameter(torch.zeros(()))
        self.register_buffer("sites", torch.linspace(0.1, 0.9, max(measured, 1))[:, None])

    def truth(self, x: Tensor) -> Tensor:
        return x * (1 - x) / (2 * self.true_k)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u = self.net(x)
        pde = self.log_k.exp() * d(d(u, x), x) + 1
        walls = torch.cat([self.net(self.at(0.0)), self.net(self.at(1.0))])
        terms = {"pde": pde.pow(2).mean(), "walls": walls.pow(2).mean()}
        if self.measured:
            terms["data"] = nn.functional.mse_loss(self.net(self.sites), self.truth(self.sites))
        return self.total(**terms)

    def error(self) -> float:
        return max(super().error(), abs(self.log_k.exp().item() / self.true_k - 1))


class Beam(Pinn):
    """A cable under its load: s'' = load on [0, 1], held at both ends; s is small or large."""

    def __init__(self, sag: float = 1.0, scaled_by: float = 1.0, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.sag, self.scaled_by = sag, scaled_by

    def truth(self, x: Tensor) -> Tensor:
        return -4 * self.sag * x * (1 - x)

    def predict(self, x: Tensor) -> Tensor:
        return self.scaled_by * self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        s = self.predict(x)
        load = (d(d(s, x), x) - 8 * self.sag) / self.scaled_by
        held = torch.cat([self.predict(self.at(0.0)), self.predict(self.at(1.0))]) / self.scaled_by
        return self.total(load=load.pow(2).mean(), held=held.pow(2).mean())
