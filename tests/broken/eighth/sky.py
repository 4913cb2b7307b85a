"""Atmosphere, lakes in time, seismology."""

from __future__ import annotations

import math
from typing import Any

import torch
from scipy.integrate import solve_ivp
from torch import Tensor
from torch.nn import functional as F

from tests.broken.eighth.helpers import G, beside, columns, line, msq, part, weighed
from tests.broken.pinn import Pinn, d

P_0, R_DRY, LAPSE = 101325.0, 287.0, 0.0065


class Barometer(Pinn):
    """Hydrostatic column: (R T / g) p_z + p = 0 with T = 288 - lapse z; metres and pascal.

    ``sonde``: a balloon gives pressures, at heights times this unit.
    """

    def __init__(self, sonde: float = 0.0, **options: Any) -> None:
        super().__init__(((0.0, 10000.0),), **options)
        self.sonde = sonde
        self.register_buffer("heights", line(0, 10000, 21))

    def truth(self, x: Tensor) -> Tensor:
        return P_0 * (1 - LAPSE * x / 288) ** (G / R_DRY / LAPSE)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        z = self.collocation(batch)
        p = self.net(z)
        hydrostatic = R_DRY * (288 - LAPSE * z) / G * d(p, z) + p
        losses = {
            "hydrostatic": msq(hydrostatic / P_0),
            "ground": msq(self.net(self.at(0.0)) / P_0 - 1),
        }
        if self.sonde:
            measured = self.truth(self.heights)
            at = self.net(self.heights * self.sonde)
            losses["sonde"] = F.mse_loss(at / P_0, measured / P_0)
        return weighed(self, losses)


class Ekman(Pinn):
    """K u'' + f v = 0, K v'' - f (u - G) = 0 above the ground; metres, wind in m/s."""

    n_out = 2

    def __init__(self, wind: float = 10.0, depth: float = 400.0, **options: Any) -> None:
        super().__init__(((0.0, 1200.0),), **options)
        self.wind, self.depth = wind, depth

    def truth(self, x: Tensor) -> Tensor:
        s = x / self.depth
        u, v = 1 - torch.exp(-s) * s.cos(), torch.exp(-s) * s.sin()
        return self.wind * torch.cat([u, v], dim=1)

    def predict(self, x: Tensor) -> Tensor:
        return self.wind * self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        z = self.collocation(batch)
        u, v = columns(self.predict(z) / self.wind)
        u_zz, v_zz = d(d(u, z), z), d(d(v, z), z)
        scale = self.depth**2 / 2
        ends = torch.tensor([[0.0], [1200.0]])
        off = (self.predict(ends) - self.truth(ends)) / self.wind
        return self.total(
            along=msq(scale * u_zz + v),
            across=msq(scale * v_zz - (u - 1)),
            ends=off.square().sum(dim=1).mean(),
        )


class Shaking(Pinn):
    """A soil column, rho u_tt = mu u_xx, held at both ends, let go; the residual over ``unit``.

    Lengths in columns, times in travel times of the wave.
    """

    def __init__(self, second: float = 0.0, unit: float = 1.0, **options: Any) -> None:
        super().__init__(((0.0, 1.0), (0.0, 1.0)), **options)
        self.second, self.unit = second, unit

    def truth(self, x: Tensor) -> Tensor:
        x, t = columns(math.pi * x)
        return x.sin() * t.cos() + self.second * (2 * x).sin() * (2 * t).cos()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        xt = self.collocation(batch)
        u = self.net(xt)
        u_x, u_t = columns(d(u, xt))
        wave = (part(u_t, xt, 1) - part(u_x, xt, 0)) / 10 / self.unit
        time, space = line(0, 1, 25), line(0, 1, 25)
        held = self.net(torch.cat([beside(0.0, time), beside(1.0, time)]))
        first = beside(space, 0.0).requires_grad_()
        u_0 = self.net(first)
        return self.total(
            wave=msq(wave),
            held=msq(held),
            released=F.mse_loss(u_0, self.truth(first.detach())),
            rest=msq(part(u_0, first, 1)),
        )


class Lake(Pinn):
    """c' = inflow - c / residence over calendar years, the inflow with a yearly cycle."""

    def __init__(self, first: float = 1995.0, residence: float = 2.0, **options: Any) -> None:
        super().__init__(((first, first + 5),), **options)
        self.first, self.residence = first, residence

    def truth(self, x: Tensor) -> Tensor:
        s = x - self.first
        return torch.exp(-s / self.residence) + 0.3 * torch.sin(2 * s)

    def inflow(self, t: Tensor) -> Tensor:
        s = t - self.first
        return 0.6 * torch.cos(2 * s) + 0.3 * torch.sin(2 * s) / self.residence

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        c = self.net(t)
        budget = d(c, t) - self.inflow(t) + c / self.residence
        start = self.net(self.at(self.first)) - 1
        loss = budget.pow(2).mean() + start.pow(2).mean()
        self.log("loss", loss)
        return loss


class LakeByYear(Lake):
    def inflow(self, t: Tensor) -> Tensor:
        years = t[:, 0]
        return super().inflow(years)


class Evolution(Pinn):
    """u' = rates(u) from u(0), with points that spread over the time in ``spread`` steps."""

    def __init__(
        self,
        rates: Any,
        start: tuple[float, ...],
        days: float,
        spread: int = 0,
        size: float = 1.0,
        **options: Any,
    ) -> None:
        self.n_out = len(start)
        super().__init__(((0.0, days),), **options)
        self.rates, self.start, self.days = rates, start, days
        self.spread, self.size = spread, size

    def truth(self, x: Tensor) -> Tensor:
        def rates(_: float, u: Any) -> Any:
            return self.rates(torch.as_tensor(u)[None])[0].numpy()

        t = x[:, 0].numpy()
        solved = solve_ivp(rates, (0, self.days), self.start, t_eval=t, rtol=1e-9, atol=1e-11)
        return torch.as_tensor(solved.y.T)

    def predict(self, x: Tensor) -> Tensor:
        first = torch.tensor(self.start, dtype=x.dtype)
        return first + self.size * torch.tanh(x) * self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch).detach()
        if self.spread:
            t = t * min(1.0, 0.1 + self.global_step / self.spread)
        t.requires_grad_()
        u = self.predict(t)
        slope = torch.cat([d(u_i, t) for u_i in columns(u)], dim=1)
        loss = msq((slope - self.rates(u)) / self.size)
        self.log("rates", loss)
        return loss


class Trace(Pinn):
    """A seismometer, u' = f, u(0) = 0, with a fast phase of ``f_2`` over a slow of one cycle."""

    def __init__(self, f_2: float = 12.0, share: float = 0.6, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.f_2, self.share = f_2, share

    def truth(self, x: Tensor) -> Tensor:
        x = 2 * math.pi * x
        return torch.sin(x) + self.share * torch.sin(self.f_2 * x)

    def slope(self, t: Tensor) -> Tensor:
        x, w = 2 * math.pi * t, 2 * math.pi
        return w * torch.cos(x) + w * self.f_2 * self.share * torch.cos(self.f_2 * x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        motion = (d(u, t) - self.slope(t.detach())) / (2 * math.pi * self.f_2)
        return self.total(motion=msq(motion), start=msq(self.net(self.at(0.0))))


class Ripples(Pinn):
    """Ripples on a dune: an echo sounder gives the bed, far from equilibrium b'' = curvature."""

    def __init__(self, ripples: float = 15.0, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.ripples = ripples

    def truth(self, x: Tensor) -> Tensor:
        return torch.sin(math.pi * x) + 0.5 * torch.sin(2 * math.pi * self.ripples * x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        w = 2 * math.pi * self.ripples
        b = self.net(x)
        steep = (math.pi * torch.cos(math.pi * x) + 0.5 * w * torch.cos(w * x)).detach()
        echo = F.mse_loss(b, self.truth(x.detach()))
        gradient = F.mse_loss(d(b, x) / w, steep / w)
        loss = echo + 0.1 * gradient
        self.log_dict({"echo": echo, "gradient": gradient})
        return loss
