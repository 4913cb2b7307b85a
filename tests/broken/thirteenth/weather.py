"""Homework of the meteorologist: dictionaries of constraints, each with points and a weight."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from tests.broken.thirteenth.common import Lesson, grad, rand

PI2 = 2 * math.pi


class Domain(Lesson):
    """Constraints: name -> (function that gives the residuals, its weight)."""

    def __init__(self, weights: dict[str, float] | None = None, **kw: Any) -> None:
        super().__init__(**kw)
        self.lambdas = weights or {}

    def constraints(self) -> dict[str, Callable[[], Tensor]]:
        raise NotImplementedError

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        loss = torch.zeros(())
        for name, constraint in self.constraints().items():
            value = constraint().square().mean()
            self.log(name, value)
            loss = loss + self.lambdas.get(name, 1.0) * value
        self.log("loss", loss)
        return loss

    def inside(self, n: int) -> Tensor:
        return rand(n, self.lb, self.ub).requires_grad_()

    def side(self, axis: int, value: float, n: int) -> Tensor:
        x = rand(n, self.lb, self.ub)
        x[:, axis] = value
        return x

    def known(self, axis: int, value: float, n: int = 40) -> Tensor:
        x = self.side(axis, value, n)
        return self.net(x) - self.truth(x)


class ShallowWater(Domain):
    """Standing wave in a basin, scaled: h_t + u_x = 0, u_t + h_x = 0."""

    lb, ub, n_out = (0.0, 0.0), (1.0, 1.0), 2

    def truth(self, xt: Tensor) -> Tensor:
        x, t = math.pi * xt[:, :1], math.pi * xt[:, 1:]
        return torch.cat([torch.cos(x) * torch.cos(t), torch.sin(x) * torch.sin(t)], 1)

    def equations(self) -> Tensor:
        xt = self.inside(200)
        h, u = self.net(xt).split(1, 1)
        dh, du = grad(h, xt), grad(u, xt)
        return torch.cat([dh[:, 1:] + du[:, :1], du[:, 1:] + dh[:, :1]], 1)

    def constraints(self) -> dict[str, Callable[[], Tensor]]:
        return {
            "interior": self.equations,
            "initial": lambda: self.known(1, 0.0),
            "west": lambda: self.net(self.side(0, 0.0, 40))[:, 1:],
            "east": lambda: self.net(self.side(0, 1.0, 40))[:, 1:],
        }


class Plume(Domain):
    """Tracer that is carried by the wind and spreads: c_t + U c_x = K c_xx."""

    lb, ub = (0.0, 0.0), (2.0, 1.0)
    wind, k, width = 0.8, 0.02, 0.2

    def truth(self, xt: Tensor) -> Tensor:
        x, t = xt[:, :1], xt[:, 1:]
        s2 = self.width**2 + 2 * self.k * t
        return self.width / s2.sqrt() * torch.exp(-((x - 0.6 - self.wind * t) ** 2) / (2 * s2))

    def equation(self) -> Tensor:
        xt = self.inside(200)
        g = grad(self.net(xt), xt)
        c_xx = grad(g[:, :1], xt)[:, :1]
        return g[:, 1:] + self.wind * g[:, :1] - self.k * c_xx

    def constraints(self) -> dict[str, Callable[[], Tensor]]:
        return {
            "pde": self.equation,
            "ic": lambda: self.known(1, 0.0, 80),
            "inflow": lambda: self.known(0, 0.0),
            "outflow": lambda: self.known(0, 2.0),
        }


class Moisture(Domain):
    """Humidity above wet ground, relaxed to dry air: q'' = q, flux -q' = 1 at the ground."""

    ub = (3.0,)
    graph = True

    def truth(self, z: Tensor) -> Tensor:
        return torch.sinh(3 - z) / math.cosh(3)

    def diffusion(self) -> Tensor:
        z = self.inside(80)
        q = self.net(z)
        return grad(grad(q, z), z) - q

    def flux(self) -> Tensor:
        ground = torch.zeros(1, 1, requires_grad=True)
        q = self.net(ground)
        q_z = torch.autograd.grad(q, ground, torch.ones_like(q), create_graph=self.graph)[0]
        return q_z + 1

    def constraints(self) -> dict[str, Callable[[], Tensor]]:
        top = torch.tensor([[3.0]])
        return {"diffusion": self.diffusion, "flux": self.flux, "top": lambda: self.net(top)}


class MoistureShort(Moisture):
    graph = False


class Ozone(Domain):
    """Mixing ratio with the sun as source, in seconds: x_t = P(t) - x / tau over a day."""

    ub = (86400.0,)
    tau = 20000.0

    def truth(self, t: Tensor) -> Tensor:
        return 1 - 0.6 * torch.cos(PI2 * t / 86400)

    def production(self, t: Tensor) -> Tensor:
        slope = 0.6 * PI2 / 86400 * torch.sin(PI2 * t / 86400)
        return slope + self.truth(t) / self.tau

    def chemistry(self) -> Tensor:
        t = self.inside(100)
        x = self.net(t)
        return self.tau * (grad(x, t) - self.production(t.detach())) + x

    def constraints(self) -> dict[str, Callable[[], Tensor]]:
        return {"chemistry": self.chemistry, "midnight": lambda: self.known(0, 0.0, 1)}


class Inertial(Domain):
    """Inertial oscillation of the current, times in days: u' = f v, v' = -f u."""

    ub, n_out = (3.0,), 2
    f = 1.3

    def __init__(self, whole_days: bool = False, **kw: Any) -> None:
        super().__init__(**kw)
        self.whole_days = whole_days

    def truth(self, t: Tensor) -> Tensor:
        return torch.cat([torch.cos(self.f * t), -torch.sin(self.f * t)], 1)

    def momentum(self) -> Tensor:
        t = torch.randint(0, 4, (120, 1)).float() if self.whole_days else 3 * torch.rand(120, 1)
        t.requires_grad_()
        u, v = self.net(t).split(1, 1)
        return torch.cat([grad(u, t) / self.f - v, grad(v, t) / self.f + u], 1)

    def constraints(self) -> dict[str, Callable[[], Tensor]]:
        return {"momentum": self.momentum, "start": lambda: self.known(0, 0.0, 1)}


class Soil(Domain):
    """Temperature wave in the soil over a day: T_t = T_zz / 2, depth in damping depths."""

    lb, ub = (0.0, 0.0), (3.0, PI2)

    def __init__(self, hours: float = 1.0, **kw: Any) -> None:
        super().__init__(**kw)
        self.hours = hours

    def truth(self, zt: Tensor) -> Tensor:
        z, t = zt[:, :1], zt[:, 1:]
        return torch.exp(-z) * torch.sin(t - z)

    def side(self, axis: int, value: float, n: int) -> Tensor:
        zt = rand(n, self.lb, (3.0, PI2 * self.hours))
        zt[:, axis] = value
        return zt

    def heat(self) -> Tensor:
        zt = rand(200, self.lb, (3.0, PI2 * self.hours)).requires_grad_()
        g = grad(self.net(zt), zt)
        return g[:, 1:] - 0.5 * grad(g[:, :1], zt)[:, :1]

    def constraints(self) -> dict[str, Callable[[], Tensor]]:
        return {
            "heat": self.heat,
            "surface": lambda: self.known(0, 0.0, 60),
            "deep": lambda: self.known(0, 3.0, 60),
            "initial": lambda: self.known(1, 0.0, 60),
        }
