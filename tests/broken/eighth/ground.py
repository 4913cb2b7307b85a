"""Below the ground: aquifers, solutes, heat."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tests.broken.eighth.helpers import beside, line, msq, part, rms2, weighed
from tests.broken.networks import mlp
from tests.broken.pinn import Pinn, d


class Dupuit(Pinn):
    """Phreatic aquifer with recharge between two rivers: (K h h')' + N = 0, metres and days."""

    def __init__(
        self,
        length: float = 500.0,
        k: float = 5.0,
        recharge: float = 0.015,
        rivers: tuple[float, float] = (8.0, 10.0),
        **options: Any,
    ) -> None:
        super().__init__(((0.0, length),), **options)
        self.length, self.k, self.recharge, self.rivers = length, k, recharge, rivers

    def truth(self, x: Tensor) -> Tensor:
        (a, b), s = self.rivers, x / self.length
        square = a**2 + (b**2 - a**2) * s + self.recharge / self.k * x * (self.length - x)
        return square.sqrt()

    def predict(self, x: Tensor) -> Tensor:
        return 10 * self.net(x)

    def divergence(self, q: Tensor, x: Tensor) -> Tensor:
        return d(q, x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        h = self.predict(x)
        q = -self.k * h * d(h, x)
        balance = (self.divergence(q, x) - self.recharge) / self.recharge
        banks = self.predict(torch.tensor([[0.0], [self.length]]))
        banks = (banks - torch.tensor(self.rivers)[:, None]) / 10
        return weighed(self, {"balance": msq(balance), "rivers": msq(banks)})


class DupuitOfNumbers(Dupuit):
    def divergence(self, q: Tensor, x: Tensor) -> Tensor:
        return torch.autograd.grad(q.sum(), x, retain_graph=True)[0]


class Plume(Pinn):
    """c_t + v c_x = D c_xx - decay c for a plume that was Gaussian; box of (x, t).

    ``present``: steps in which the samples, all of a tenth of the time, move on over it.
    """

    def __init__(
        self,
        v: float = 1.0,
        dispersion: float = 0.03,
        decay: float = 0.5,
        spread: float = 0.25,
        present: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(((0.0, 2.0), (0.0, 1.0)), **options)
        self.v, self.dispersion, self.decay, self.spread = v, dispersion, decay, spread
        self.present = present

    def truth(self, x: Tensor) -> Tensor:
        x, t = x.split(1, dim=1)
        var = self.spread**2 + 2 * self.dispersion * t
        shape = torch.exp(-((x - 0.5 - self.v * t) ** 2) / (2 * var))
        return shape * self.spread / var.sqrt() * torch.exp(-self.decay * t)

    def collocation(self, batch: Any) -> Tensor:
        xt = super().collocation(batch).detach()
        if self.present:
            now = 0.9 * min(1.0, self.global_step / self.present)
            xt = beside(xt[:, :1], now + 0.1 * xt[:, 1:])
        return xt.requires_grad_()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        xt = self.collocation(batch)
        c = self.net(xt)
        c_x, c_t = d(c, xt).split(1, dim=1)
        transport = c_t + self.v * c_x - self.dispersion * part(c_x, xt, 0) + self.decay * c
        time = line(0, 1, 20)
        edges = torch.cat([beside(0.0, time), beside(2.0, time)])
        first = beside(line(0, 2, 50), 0.0)
        return self.total(
            transport=F.mse_loss(transport, torch.zeros_like(transport)),
            edges=F.mse_loss(self.net(edges), self.truth(edges)),
            first=F.mse_loss(self.net(first), self.truth(first)),
        )


class SoilHeat(Pinn):
    """T_t = kappa T_zz below a surface with a yearly wave; metres, days; deviation in kelvin."""

    def __init__(
        self,
        kappa: float = 0.06,
        swing: float = 10.0,
        residual: float = 1.0,
        **options: Any,
    ) -> None:
        super().__init__(((0.0, 6.0), (0.0, 365.0)), **options)
        self.kappa, self.swing, self.residual = kappa, swing, residual
        self.omega = 2 * math.pi / 365
        self.depth = math.sqrt(2 * kappa / self.omega)

    def truth(self, x: Tensor) -> Tensor:
        z, t = x.split(1, dim=1)
        damped = self.swing * torch.exp(-z / self.depth)
        return damped * torch.sin(self.omega * t - z / self.depth)

    def predict(self, x: Tensor) -> Tensor:
        return self.swing * self.net(x)

    def at_surface(self, t: Tensor) -> Tensor:
        return self.predict(beside(0.0, t))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        zt = self.collocation(batch)
        temp = self.predict(zt)
        t_z, t_t = d(temp, zt).split(1, dim=1)
        heat = (t_t - self.kappa * part(t_z, zt, 0)) * self.residual / (self.swing * self.omega)
        days = line(0, 365, 25)
        air = self.swing * torch.sin(self.omega * days)
        deep, first = beside(6.0, days), beside(line(0, 6, 25), 0.0)
        surface = rms2((self.at_surface(days) - air) / self.swing)
        bottom = rms2((self.predict(deep) - self.truth(deep)) / self.swing)
        initial = rms2((self.predict(first) - self.truth(first)) / self.swing)
        return self.total(heat=rms2(heat), surface=surface, bottom=bottom, initial=initial)


class SoilHeatPlotted(SoilHeat):
    @torch.no_grad()
    def at_surface(self, t: Tensor) -> Tensor:
        return super().at_surface(t)


class Conductivity(Pinn):
    """Heads at boreholes, Darcy h' = -q / K for K a second network; q is trained, too.

    Slug tests give K at three wells. The error is that of h and of K.
    """

    def __init__(self, flux: float = 0.4, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.k_net = mlp(1, width=16, box=self.box)
        self.flux = nn.Parameter(torch.tensor(flux))
        self.register_buffer("holes", line(0, 1, 25))
        self.register_buffer("heads", self.truth(self.holes.double()).float())

    def k_true(self, x: Tensor) -> Tensor:
        return 1 + 0.5 * torch.sin(math.pi * x)

    def truth(self, x: Tensor) -> Tensor:
        fine = torch.linspace(0, 1, 4001, dtype=torch.float64)
        fall = torch.cumulative_trapezoid(1 / self.k_true(fine), fine)
        fall = torch.cat([torch.zeros(1, dtype=torch.float64), fall])
        return 1.5 - fall[(x[:, 0] * 4000).round().long()][:, None]

    def k_of(self, x: Tensor) -> Tensor:
        return F.softplus(self.k_net(x))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        darcy = d(self.net(x), x) + self.flux / self.k_of(x)
        heads = F.mse_loss(self.net(self.holes), self.heads)
        wells = torch.tensor([[0.0], [0.5], [1.0]])
        slug = F.mse_loss(self.k_of(wells), self.k_true(wells))
        return weighed(self, {"darcy": msq(darcy), "heads": heads, "slug": slug})

    @torch.no_grad()
    def error(self) -> float:
        x = line(0, 1, 200)
        off = (self.k_of(x) - self.k_true(x)).norm() / self.k_true(x).norm()
        return max(super().error(), float(off))


class Phreatic(Pinn):
    """Head above a datum by differences: (T/dx^2) second difference + N = 0; lengths in km.

    The head is ``datum + rise net``, held at both ends.
    """

    def __init__(
        self, datum: float = 0.0, rise: float = 4e-4, dx: float = 0.05, **options: Any
    ) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.datum, self.rise, self.dx = datum, rise, dx

    def truth(self, x: Tensor) -> Tensor:
        return self.rise * 4 * x * (1 - x)

    def head(self, x: Tensor) -> Tensor:
        return self.datum + self.rise * self.net(x)

    def predict(self, x: Tensor) -> Tensor:
        """Above the datum."""
        return self.rise * self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch).detach()
        left, here, right = (self.head(x + i * self.dx) for i in (-1, 0, 1))
        bend = (left - 2 * here + right) / self.dx**2
        flow = bend / (8 * self.rise) + 1
        ends = (self.head(torch.tensor([[0.0], [1.0]])) - self.datum) / self.rise
        return self.total(flow=msq(flow), ends=10 * msq(ends))
