"""Channels, ducts, pipes."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.broken.eighth.helpers import beside, columns, line, msq, part
from tests.broken.pinn import Pinn, d


class Channel(Pinn):
    """Between plates: mu u'' = -gradient, no slip; SI units, the speed is ``top`` in the middle.

    ``probe``: with a measured speed at some heights. ``step``: derivatives by differences,
    with this share of the width.
    """

    def __init__(
        self,
        gap: float = 0.02,
        mu: float = 1e-3,
        top: float = 1.0,
        sign: float = 1.0,
        probe: bool = False,
        step: float = 0.0,
        **options: Any,
    ) -> None:
        super().__init__(((0.0, gap),), **options)
        self.gap, self.mu, self.top, self.probe, self.step = gap, mu, top, probe, step
        self.gradient = sign * 8 * mu * top / gap**2

    def truth(self, x: Tensor) -> Tensor:
        s = x / self.gap
        return 4 * self.top * s * (1 - s)

    def curvature(self, y: Tensor) -> Tensor:
        if self.step:
            h = self.step * self.gap
            y = y.detach()
            return (self.net(y - h) - 2 * self.net(y) + self.net(y + h)) / h**2
        return d(d(self.net(y), y), y)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        y = self.collocation(batch)
        stokes = (self.mu * self.curvature(y) + self.gradient) / abs(self.gradient)
        plates = self.net(torch.tensor([[0.0], [self.gap]])) / self.top
        terms = {"stokes": msq(stokes), "plates": msq(plates)}
        if self.probe:
            heights = line(0.2 * self.gap, 0.8 * self.gap, 7)
            terms["probe"] = msq((self.net(heights) - self.truth(heights)) / self.top)
        return self.total(**terms)


class Duct(Pinn):
    """Flow along a duct of aspect 2: w_xx + w_yy = -f (manufactured), zero at the walls by form."""

    def __init__(self, cells: int = 1, **options: Any) -> None:
        super().__init__(((0.0, 2.0), (0.0, 1.0)), **options)
        self.a, self.b = cells * math.pi / 2, cells * math.pi

    def truth(self, x: Tensor) -> Tensor:
        x, y = columns(x)
        lean = 1 + 0.5 * torch.sin(self.a * x)
        return torch.sin(self.a * x) * torch.sin(self.b * y) * lean

    def predict(self, x: Tensor) -> Tensor:
        a, b = columns(x)
        return a * (2 - a) * b * (1 - b) * 4 * self.net(x)

    def laplace(self, w: Tensor, x: Tensor) -> Tensor:
        w_x, w_y = columns(d(w, x))
        return part(w_x, x, 0) + part(w_y, x, 1)

    def source(self, x: Tensor) -> Tensor:
        with torch.enable_grad():
            x = x.detach().requires_grad_()
            return -self.laplace(self.truth(x), x).detach()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        poisson = self.laplace(self.predict(x), x) + self.source(x)
        loss = msq(poisson)
        self.log("poisson", loss)
        return {"loss": loss}


class Vortices(Pinn):
    """Steady Navier-Stokes with a force that keeps Taylor-Green vortices; outputs u, v, p."""

    n_out = 3

    def __init__(self, nu: float = 0.1, level: float = 2.0, **options: Any) -> None:
        super().__init__(((0.0, 3.0), (0.0, 3.0)), **options)
        self.nu, self.level = nu, level

    def truth(self, x: Tensor) -> Tensor:
        x, y = columns(x)
        p = self.level + 0.25 * (torch.cos(2 * x) + torch.cos(2 * y))
        return torch.cat([x.sin() * y.cos(), -x.cos() * y.sin(), p], dim=1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        xy = self.collocation(batch)
        u, v, p = columns(self.net(xy))
        (u_x, u_y), (v_x, v_y), (p_x, p_y) = (columns(d(w, xy)) for w in (u, v, p))
        exact = self.truth(xy.detach())
        force_x, force_y = 2 * self.nu * exact[:, :1], 2 * self.nu * exact[:, 1:2]
        lap_u = part(u_x, xy, 0) + part(u_y, xy, 1)
        lap_v = part(v_x, xy, 0) + part(v_y, xy, 1)
        along = u * u_x + v * u_y + p_x - self.nu * lap_u - force_x
        across = u * v_x + v * v_y + p_y - self.nu * lap_v - force_y
        s = line(0, 3, 15)
        rim = torch.cat([beside(0.0, s), beside(3.0, s), beside(s, 0.0), beside(s, 3.0)])
        off = (self.net(rim) - self.truth(rim))[:, :2]
        corner = self.at(0.0, 0.0)
        gauge = (self.net(corner) - self.truth(corner))[:, 2]
        return self.total(
            continuity=msq(u_x + v_y),
            momentum=msq(along) + msq(across),
            rim=msq(off),
            gauge=msq(gauge),
        )
