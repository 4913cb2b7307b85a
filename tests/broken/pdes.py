"""Boundary value problems and equations in space and time."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from tests.broken.networks import mlp
from tests.broken.pinn import Pinn, d

PI = math.pi


class Poisson(Pinn):
    """u'' - reaction u = f on [-1, 1], u = size sin(a pi x), zero at both ends (a whole)."""

    def __init__(
        self, a: float = 1.0, reaction: float = 0.0, size: float = 1.0, **options: Any
    ) -> None:
        super().__init__(((-1.0, 1.0),), **options)
        self.a, self.reaction, self.size = a, reaction, size
        self.register_buffer("ends", torch.tensor([[-1.0], [1.0]], dtype=self.dtype))

    def truth(self, x: Tensor) -> Tensor:
        return self.size * torch.sin(self.a * PI * x)

    def f(self, x: Tensor) -> Tensor:
        return -((self.a * PI) ** 2 + self.reaction) * self.truth(x)

    def pde(self, x: Tensor) -> Tensor:
        u = self.net(x)
        return d(d(u, x), x) - self.reaction * u - self.f(x.detach())

    def walls(self) -> Tensor:
        return self.net(self.ends) - self.truth(self.ends)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        return self.total(pde=self.pde(x).square().mean(), bc=self.walls().square().mean())


class Square(Pinn):
    """u_xx + u_yy = f on the unit square, u = size sin(pi x) sin(pi y), zero on the walls."""

    def __init__(self, size: float = 1.0, walls: tuple[int, ...] = (0, 1, 2, 3), **options: Any):
        super().__init__(((0.0, 1.0), (0.0, 1.0)), **options)
        self.size = size
        s, o = torch.linspace(0, 1, 20), torch.zeros(20)
        sides = [(s, o), (s, o + 1), (o, s), (o + 1, s)]
        edges = torch.cat([torch.stack(sides[i], dim=1) for i in walls])
        self.register_buffer("edges", edges.to(self.dtype))

    def truth(self, x: Tensor) -> Tensor:
        return self.size * (PI * x).sin().prod(dim=1, keepdim=True)

    def f(self, x: Tensor) -> Tensor:
        return -2 * PI**2 * self.truth(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        grad = d(self.net(x), x)
        laplacian = sum(d(grad[:, [i]], x)[:, [i]] for i in range(2))
        inside = nn.functional.mse_loss(laplacian, self.f(x.detach()))
        walls = nn.functional.mse_loss(self.net(self.edges), self.truth(self.edges))
        return self.total(inside=inside, walls=walls)


class Heat(Pinn):
    """u_t = kappa u_xx on (t, x) in [0, 1]^2, u(0, x) = sin(pi x) + lift, walls 0."""

    def __init__(
        self, kappa: float = 0.1, lift: float = 0.0, length: float = 1.0, **options: Any
    ) -> None:
        super().__init__(((0.0, 1.0), (0.0, length)), **options)
        self.kappa, self.lift, self.length = kappa * length**2, lift, length
        x, t = torch.linspace(0, length, 30), torch.linspace(0, 1, 30)
        zero = torch.zeros(30)
        start = torch.stack([zero, x], dim=1)
        walls = torch.cat([torch.stack([t, zero], 1), torch.stack([t, zero + length], 1)])
        self.register_buffer("initial", start.to(self.dtype))
        self.register_buffer("walls", walls.to(self.dtype))

    def truth(self, x: Tensor) -> Tensor:
        k = PI / self.length
        return torch.exp(-self.kappa * k**2 * x[:, :1]) * torch.sin(k * x[:, 1:])

    def pde(self, x: Tensor) -> Tensor:
        first = d(self.net(x), x)
        u_xx = d(first[:, 1:], x)[:, 1:]
        return first[:, :1] - self.kappa * u_xx

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pde = self.pde(self.collocation(batch))
        ic = self.net(self.initial) - self.truth(self.initial) - self.lift
        bc = self.net(self.walls)
        return self.total(pde=(pde**2).mean(), ic=(ic**2).mean(), bc=(bc**2).mean())


class Advection(Pinn):
    """u_t + c u_x = 0 on (t, x) in [0, 1]^2, u = sin(2 pi (x - c t)) at t = 0 and x = 0."""

    def __init__(self, c: float = 0.5, size: float = 1.0, **options: Any) -> None:
        super().__init__(((0.0, 1.0), (0.0, 1.0)), **options)
        self.c, self.size = c, size
        s, zero = torch.linspace(0, 1, 50), torch.zeros(50)
        self.register_buffer("initial", torch.stack([zero, s], dim=1).to(self.dtype))
        self.register_buffer("inflow", torch.stack([s, zero], dim=1).to(self.dtype))

    def truth(self, x: Tensor) -> Tensor:
        return self.size * torch.sin(2 * PI * (x[:, 1:] - self.c * x[:, :1]))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u_t, u_x = d(self.net(x), x).split(1, dim=1)
        at_start = self.net(self.initial) - self.truth(self.initial)
        at_inflow = self.net(self.inflow) - self.truth(self.inflow)
        return self.total(
            transport=(u_t + self.c * u_x).pow(2).mean(),
            initial=at_start.pow(2).mean(),
            inflow=at_inflow.pow(2).mean(),
        )


class Wave(Pinn):
    """u_tt = c^2 u_xx on (t, x) in [0, 1]^2, u = sin(pi x) cos(c pi t)."""

    def __init__(self, c: float = 1.0, **options: Any) -> None:
        super().__init__(((0.0, 1.0), (0.0, 1.0)), **options)
        self.c = c
        s, zero = torch.linspace(0, 1, 30), torch.zeros(30)
        self.register_buffer("initial", torch.stack([zero, s], dim=1).to(self.dtype))
        walls = torch.cat([torch.stack([s, zero], 1), torch.stack([s, zero + 1], 1)])
        self.register_buffer("walls", walls.to(self.dtype))

    def truth(self, x: Tensor) -> Tensor:
        return torch.sin(PI * x[:, 1:]) * torch.cos(self.c * PI * x[:, :1])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u_t, u_x = d(self.net(x), x).split(1, dim=1)
        wave = d(u_t, x)[:, :1] - self.c**2 * d(u_x, x)[:, 1:]
        at_start = self.initial.clone().requires_grad_()
        u_0 = self.net(at_start)
        terms = {
            "wave": wave,
            "u0": u_0 - self.truth(self.initial),
            "v0": d(u_0, at_start)[:, :1],
            "walls": self.net(self.walls),
        }
        return self.total(**{name: r.square().mean() for name, r in terms.items()})


class Burgers(Pinn):
    """u_t + u u_x = nu u_xx + f on (t, x) in [0, 1] x [-1, 1], u = -exp(-t) sin(pi x)."""

    def __init__(self, nu: float = 0.1, **options: Any) -> None:
        super().__init__(((0.0, 1.0), (-1.0, 1.0)), **options)
        self.nu = nu
        s, ones = torch.linspace(0, 1, 30), torch.ones(30)
        sides = [torch.stack([s, ones], 1), torch.stack([s, -ones], 1)]
        initial = torch.stack([0 * s, 2 * s - 1], 1)
        self.register_buffer("known", torch.cat([initial, *sides]).to(self.dtype))

    def truth(self, x: Tensor) -> Tensor:
        return -torch.exp(-x[:, :1]) * torch.sin(PI * x[:, 1:])

    def residual(self, u: Tensor, x: Tensor) -> Tensor:
        u_t, u_x = d(u, x).split(1, dim=1)
        return u_t + u * u_x - self.nu * d(u_x, x)[:, 1:]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        pde = self.residual(self.net(x), x) - self.residual(self.truth(x), x).detach()
        known = self.net(self.known) - self.truth(self.known)
        self.log("loss/pde", loss_pde := (pde**2).mean())
        self.log("loss/known", loss_known := (known**2).mean())
        return self.weights.get("pde", 1.0) * loss_pde + self.weights.get("known", 1.0) * loss_known


class Mixed(Pinn):
    """u' = q, q' = f on [-1, 1] with a network for u and one for q, u = sin(pi x)."""

    def __init__(self, **options: Any) -> None:
        super().__init__(((-1.0, 1.0),), **options)
        self.flux = mlp(1, **self.options).to(self.dtype)

    def truth(self, x: Tensor) -> Tensor:
        return torch.sin(PI * x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u, q = self.net(x), self.flux(x)
        source = -(PI**2) * self.truth(x.detach())
        ends = self.net(torch.tensor([[-1.0], [1.0]], dtype=self.dtype))
        return self.total(
            gradient=(d(u, x) - q).square().mean(),
            balance=(d(q, x) - source).square().mean(),
            ends=ends.square().mean(),
        )
