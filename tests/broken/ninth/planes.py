"""Space and time, and the plane."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.broken.pinn import Pinn, d


class Fisher(Pinn):
    """u_t = u_xx + u (1 - u): the wave of Ablowitz and Zeppetella from x = -5 to 8, t to 2."""

    def __init__(self, **options: Any) -> None:
        super().__init__(((-5.0, 8.0), (0.0, 2.0)), **options)
        x = torch.linspace(-5, 8, 40)
        t = torch.linspace(0, 2, 15)
        self.register_buffer("begin", torch.stack([x, 0 * x], 1))
        low, high = torch.stack([0 * t - 5, t], 1), torch.stack([0 * t + 8, t], 1)
        self.register_buffer("sides", torch.cat([low, high]))

    def truth(self, x: Tensor) -> Tensor:
        z = x[:, :1] - 5 / math.sqrt(6) * x[:, 1:]
        return (1 + torch.exp(z / math.sqrt(6))) ** -2

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u = self.net(x)
        g = d(u, x)
        u_xx = d(g[:, :1], x)[:, :1]
        front = g[:, 1:] - u_xx - u * (1 - u)
        first = self.net(self.begin) - self.truth(self.begin)
        edge = self.net(self.sides) - self.truth(self.sides)
        return self.total(
            front=front.pow(2).mean(), first=first.pow(2).mean(), edge=edge.pow(2).mean()
        )


class String(Pinn):
    """u_tt = c^2 u_xx, fixed ends, plucked in the first mode and let go."""

    def __init__(self, c: float = 1.0, **options: Any) -> None:
        super().__init__(((0.0, 1.0), (0.0, 1.0)), **options)
        self.c = c
        self.register_buffer("line", torch.linspace(0, 1, 25)[:, None])

    def truth(self, x: Tensor) -> Tensor:
        return torch.sin(math.pi * x[:, :1]) * torch.cos(self.c * math.pi * x[:, 1:])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        g = d(self.net(x), x)
        u_xx, u_tt = d(g[:, :1], x)[:, :1], d(g[:, 1:], x)[:, 1:]
        motion = (u_tt - self.c**2 * u_xx) / math.pi**2
        zero = torch.zeros_like(self.line)
        begin = torch.cat([self.line, zero], 1).requires_grad_()
        u_0 = self.net(begin)
        ends = [torch.cat([zero + side, self.line], 1) for side in (0.0, 1.0)]
        return self.total(
            motion=motion.pow(2).mean(),
            ends=sum(self.net(end).pow(2).mean() for end in ends),
            pluck=(u_0 - torch.sin(math.pi * self.line)).pow(2).mean(),
            rest=d(u_0, begin)[:, 1].pow(2).mean(),
        )


class Transport(Pinn):
    """u_t + c u_x = 0 on a circle (angles enter by sin and cos), u = sin x at the start."""

    def __init__(self, c: float = 3.0, **options: Any) -> None:
        super().__init__(((0.0, 2 * math.pi), (0.0, 1.0)), **options)
        self.c = c
        first = self.net[0]
        self.net[0] = torch.nn.Linear(3, first.out_features)
        line = torch.linspace(0, 2 * math.pi, 40)[:, None]
        self.register_buffer("begin", torch.cat([line, 0 * line], 1))

    def truth(self, x: Tensor) -> Tensor:
        return torch.sin(x[:, :1] - self.c * x[:, 1:])

    def predict(self, x: Tensor) -> Tensor:
        angle, t = x[:, :1], x[:, 1:]
        return self.net(torch.cat([torch.sin(angle), torch.cos(angle), 2 * t - 1], 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        g = d(self.predict(x), x)
        moved = g[:, 1] + self.c * g[:, 0]
        begin = self.predict(self.begin) - self.truth(self.begin)
        return self.total(moved=moved.pow(2).mean(), begin=20 * begin.pow(2).mean())


class Elastic(Pinn):
    """Navier's equations of a square plate for displacements that are zero on its edge.

    The load is that of a chosen displacement of the given size; equations in units of the load.
    """

    n_out = 2

    def __init__(self, size: float = 1.0, nu: float = 0.3, **options: Any) -> None:
        super().__init__(((0.0, 1.0), (0.0, 1.0)), **options)
        self.size, self.lame = size, nu / (1 - 2 * nu)
        x = self.points.double().requires_grad_()
        self.register_buffer("load", self.operator(self.truth(x), x).detach().to(self.dtype))
        s, zero = torch.linspace(0, 1, 15), torch.zeros(15)
        edge = [(s, zero), (s, zero + 1), (zero, s), (zero + 1, s)]
        self.register_buffer("edge", torch.cat([torch.stack(side, 1) for side in edge]))

    def truth(self, x: Tensor) -> Tensor:
        a, b = x[:, 0], x[:, 1]
        u = torch.sin(math.pi * a) * torch.sin(math.pi * b)
        v = 12 * a * (1 - a) * b * (1 - b) * (a - 0.3)
        return self.size * torch.stack([u, v], 1)

    def operator(self, u: Tensor, x: Tensor) -> Tensor:
        g, h = d(u[:, :1], x), d(u[:, 1:], x)
        u_x, u_y, v_x, v_y = (d(part[:, None], x) for part in (*g.T, *h.T))
        spread = torch.stack([u_x[:, 0] + v_y[:, 0], u_x[:, 1] + v_y[:, 1]], 1)
        laplace = torch.stack([u_x[:, 0] + u_y[:, 1], v_x[:, 0] + v_y[:, 1]], 1)
        return laplace + (1 + self.lame) * spread

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        balance = (self.operator(self.net(x), x) - self.load) / self.load.std()
        edge = self.net(self.edge) / self.size
        return self.total(balance=balance.pow(2).mean(), edge=10 * edge.pow(2).mean())


class Plate(Pinn):
    """Biharmonic: a plate on supports under a load of one hump, as two equations of Poisson."""

    n_out = 2

    def __init__(self, force: float = 1.0, **options: Any) -> None:
        super().__init__(((0.0, 1.0), (0.0, 1.0)), **options)
        self.force = force
        s, zero = torch.linspace(0, 1, 15), torch.zeros(15)
        edge = [(s, zero), (s, zero + 1), (zero, s), (zero + 1, s)]
        self.register_buffer("edge", torch.cat([torch.stack(side, 1) for side in edge]))

    def truth(self, x: Tensor) -> Tensor:
        hump = torch.sin(math.pi * x[:, :1]) * torch.sin(math.pi * x[:, 1:])
        return torch.cat([hump, hump], 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u, moment = self.net(x).split(1, 1)

        def laplace(w: Tensor) -> Tensor:
            g = d(w, x)
            return (d(g[:, :1], x)[:, :1] + d(g[:, 1:], x)[:, 1:]) / (2 * math.pi**2)

        bending = laplace(u) + moment
        force = laplace(moment) + self.force * self.truth(x)[:, :1]
        edge = self.net(self.edge)
        return self.total(
            bending=bending.pow(2).mean(), force=force.pow(2).mean(), edge=edge.pow(2).mean()
        )
