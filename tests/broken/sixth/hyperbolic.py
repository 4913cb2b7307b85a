"""Advection, waves and Klein-Gordon in space and time."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.broken.networks import adam, mlp, uniform
from tests.broken.pinn import Pinn, d
from tests.broken.run import Run
from tests.broken.sixth.parabolic import beside, line, mesh


class Advection(Pinn):
    """u_t + c u_x = 0 on a ring of circumference 2 pi; ``march``: steps until all times count."""

    def __init__(self, c: float = 1.0, span: float = 1.0, march: int = 0, **options: Any) -> None:
        super().__init__(((0.0, 2 * math.pi), (0.0, span)), **options)
        self.c, self.span, self.march = c, span, march

    def truth(self, x: Tensor) -> Tensor:
        return torch.sin(x[:, :1] - self.c * x[:, 1:])

    def predict(self, x: Tensor) -> Tensor:
        """Periodic by its inputs cos x and sin x, which take the place of x."""
        return self.net(torch.cat([x[:, :1].cos(), x[:, :1].sin(), x[:, 1:]], dim=1))

    def collocation(self, batch: Any) -> Tensor:
        x = super().collocation(batch).detach()
        if self.march:
            x[:, 1] *= min(1.0, 0.1 + self.global_step / self.march)
        return x.requires_grad_()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        du = d(self.predict(x), x)
        start = beside(line(50, 0, 2 * math.pi), 0.0)
        return self.total(
            transport=((du[:, 1] + self.c * du[:, 0]) ** 2).mean(),
            start=((self.predict(start) - torch.sin(start[:, :1])) ** 2).mean(),
        )


class Ring(Advection):
    """Its network takes three numbers."""

    def __init__(self, net: dict[str, Any] | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.net = mlp(3, 1, **(net or {}))


class KleinGordon(Pinn):
    """u_tt - u_xx + m^2 u = 0 with walls at 0 and 1, in the lowest mode."""

    def __init__(self, m: float = 2.0, **options: Any) -> None:
        super().__init__(((0.0, 1.0), (0.0, 1.0)), **options)
        self.m, self.omega = m, math.sqrt(math.pi**2 + m**2)

    def truth(self, x: Tensor) -> Tensor:
        return torch.sin(math.pi * x[:, :1]) * torch.cos(self.omega * x[:, 1:])

    def second(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """u, u_xx and u_tt."""
        u = self.net(x)
        one = torch.ones_like(u)
        du = torch.autograd.grad(u, x, one, create_graph=True)[0]
        u_xx = torch.autograd.grad(du[:, :1], x, one, create_graph=True)[0][:, :1]
        u_tt = torch.autograd.grad(du[:, 1:], x, one, create_graph=True)[0][:, 1:]
        return u, u_xx, u_tt

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        u, u_xx, u_tt = self.second(self.collocation(batch))
        field = (u_tt - u_xx + self.m**2 * u) / self.omega**2
        start = beside(line(40, 0, 1), 0.0).requires_grad_()
        t = line(30, 0, 1)
        walls = torch.cat([beside(t, 0.0), beside(t, 1.0)]).flip(1)
        u_0 = self.net(start)
        return self.total(
            field=(field**2).mean(),
            displacement=((u_0 - self.truth(start.detach())) ** 2).mean(),
            velocity=(d(u_0, start)[:, 1:] ** 2).mean() / self.omega**2,
            walls=(self.net(walls) ** 2).mean(),
        )


class Retained(KleinGordon):
    def second(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        u = self.net(x)
        one = torch.ones_like(u)
        du = torch.autograd.grad(u, x, one, create_graph=True)[0]
        u_xx = torch.autograd.grad(du[:, :1], x, one, retain_graph=True)[0][:, :1]
        u_tt = torch.autograd.grad(du[:, 1:], x, one, retain_graph=True)[0][:, 1:]
        return u, u_xx, u_tt


MESON = {"steps": 1000, "optim": adam(5e-3), "points": uniform(200, (0, 1), (0, 1)),
         "weights": {"displacement": 5.0, "walls": 5.0}}  # fmt: skip
decayed = partial(torch.optim.Adam, lr=5e-3)

HYPERBOLIC = [
    Run("sixth-advection-decay", "RANDOM_OR_DECAY", "set", Ring,
        {"steps": 800, "optim": partial(decayed, weight_decay=1e-5), "fresh": True},
        {"optim": partial(decayed, weight_decay=0.1)}),
    Run("sixth-meson-start", "NOTHING_TO_FIND", "set", KleinGordon, MESON,
        {"without": ("displacement",)}),
    Run("sixth-meson-mesh", "REPEATED_POINTS", "set", KleinGordon,
        MESON | {"points": mesh(12), "m": 3.0, "steps": 1300}, {"points": mesh(12, each=False)}),
    Run("sixth-meson-graph", "DETACHED", "set", KleinGordon, MESON, {"problem": Retained}),
]  # fmt: skip
