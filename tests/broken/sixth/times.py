"""Ordinary differential equations in time, alone and in systems."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from scipy.integrate import solve_ivp
from torch import Tensor

from tests.broken.networks import adam, grid, lbfgs, sgd
from tests.broken.pinn import Pinn, d
from tests.broken.run import Run


class Evolution(Pinn):
    """u' = rhs(u) from u(0), residuals and outputs in ``units`` of the unknowns."""

    start: tuple[float, ...]
    units: tuple[float, ...]

    def __init__(self, span: float, number: int = 40, **options: Any) -> None:
        self.n_out = len(self.start)
        super().__init__(((0.0, span),), points=grid(0, span, number), **options)
        self.span = span

    def rhs(self, u: Any) -> list[Any]:
        raise NotImplementedError

    def truth(self, t: Tensor) -> Tensor:
        solved = solve_ivp(lambda _, u: self.rhs(u), (0, self.span), self.start, rtol=1e-9,
                           atol=1e-10, t_eval=t[:, 0].numpy())  # fmt: skip
        return torch.as_tensor(solved.y.T)

    def predict(self, t: Tensor) -> Tensor:
        return self.net(t) * torch.tensor(self.units)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.predict(t)
        loss = 0
        for i, (unit, rate) in enumerate(zip(self.units, self.rhs(u.T), strict=True)):
            u_t = torch.autograd.grad(u[:, i].sum(), t, create_graph=True)[0][:, 0]
            loss_i = torch.mean(((u_t - rate) / unit) ** 2)
            self.log(f"ode_{i}", loss_i)
            loss = loss + loss_i
        start = (self.predict(self.at(0.0))[0] - torch.tensor(self.start)) / torch.tensor(
            self.units
        )
        self.log("start", start.square().sum())
        return loss + 10 * start.square().sum()


class LotkaVolterra(Evolution):
    """Hares and lynxes."""

    start, units = (2.0, 1.0), (1.0, 1.0)

    def rhs(self, u: Any) -> list[Any]:
        hares, lynxes = u
        return [1.5 * hares - hares * lynxes, hares * lynxes - 1.5 * lynxes]


class Lorenz(Evolution):
    """sigma = 10, rho = 28, beta = 8/3."""

    start, units = (-8.0, 7.0, 27.0), (10.0, 10.0, 20.0)

    def rhs(self, u: Any) -> list[Any]:
        x, y, z = u
        return [10 * (y - x), x * (28 - z) - y, x * y - 8 / 3 * z]


class Gompertz(Pinn):
    """A tumour grows: u' = a u ln(1 / u); ``causal``: Wang et al.'s epsilon."""

    def __init__(
        self, a: float = 4.0, start: float = 0.05, causal: float = 0.0, **options: Any
    ) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.a, self.start, self.causal = a, start, causal

    def truth(self, t: Tensor) -> Tensor:
        return torch.exp(math.log(self.start) * torch.exp(-self.a * t))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        growth = (d(u, t) + self.a * u * torch.log(u)).square()
        before = torch.cumsum(growth.detach(), dim=0) - growth.detach()
        weight = torch.exp(-self.causal * before / len(t))
        return self.total(
            growth=(weight * growth).mean(),
            start=(self.net(self.at(0.0)) - self.start).square().mean(),
        )


class Atmosphere(Pinn):
    """p' = -p / H up to 20 km; ``unit``: that of the network's output in pascals."""

    def __init__(self, unit: float = 101325.0, **options: Any) -> None:
        super().__init__(((0.0, 20.0),), **options)
        self.unit, self.height = unit, 8.4

    def truth(self, h: Tensor) -> Tensor:
        return 101325.0 * torch.exp(-h / self.height)

    def predict(self, h: Tensor) -> Tensor:
        return self.unit * self.net(h)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        h = self.collocation(batch)
        p = self.predict(h)
        balance = (self.height * d(p, h) + p) / self.unit
        ground = (self.predict(self.at(0.0)) - 101325.0) / self.unit
        loss = F.mse_loss(balance, torch.zeros_like(balance)) + ground.square().sum()
        self.log("train_loss", loss)
        return loss


class Fallout(Pinn):
    """u' = -k u over a century, from 1950 on; caesium-137."""

    def __init__(self, k: float = math.log(2) / 30, **options: Any) -> None:
        super().__init__(((1950.0, 2050.0),), **options)
        self.k = k

    def truth(self, t: Tensor) -> Tensor:
        return torch.exp(-self.k * (t - 1950))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        years = self.collocation(batch)
        u = self.net(years)
        first = self.net(self.at(1950.0)) - 1
        return self.total(
            decay=(d(u, years) / self.k + u).pow(2).mean(), release=10 * first.pow(2).mean()
        )


class Tank(Pinn):
    """h' = -k sqrt(h), Torricelli's law for a tank that is almost emptied."""

    def __init__(self, k: float = 1.9, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.k = k

    def truth(self, t: Tensor) -> Tensor:
        return (1 - self.k * t / 2) ** 2

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        h = self.net(t)
        outflow = d(h, t) + self.k * torch.sqrt(h)
        full = self.net(self.at(0.0)) - 1
        return self.total(outflow=outflow.square().mean(), full=full.square().mean())


class Diode(Pinn):
    """A capacitor leaks by a diode, v' = -(exp(v) - 1), from a tiny v in units of ``size``."""

    def __init__(self, size: float = 2e-8, **options: Any) -> None:
        super().__init__(((0.0, 3.0),), **options)
        self.size = size

    def truth(self, t: Tensor) -> Tensor:
        return torch.exp(-t)

    def current(self, v: Tensor) -> Tensor:
        return torch.expm1(self.size * v) / self.size

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        v = self.net(t)
        return self.total(
            circuit=((d(v, t) + self.current(v)) ** 2).mean(),
            charge=((self.net(self.at(0.0)) - 1) ** 2).mean(),
        )


class Shockley(Diode):
    def current(self, v: Tensor) -> Tensor:
        return (torch.exp(self.size * v) - 1) / self.size


class Circuit(Pinn):
    """u' + u = f(t), u(0) = 0: a driven RC circuit with a number of tones."""

    def __init__(self, tones: dict[float, float], span: float = 3.0, **options: Any) -> None:
        super().__init__(((0.0, span),), **options)
        self.tones = tones

    def truth(self, t: Tensor) -> Tensor:
        return sum(a * torch.sin(w * t) for w, a in self.tones.items())

    def drive(self, t: Tensor) -> Tensor:
        return self.truth(t) + sum(a * w * torch.cos(w * t) for w, a in self.tones.items())

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        scale = max(self.tones)
        loss_ode = torch.mean(((d(u, t) + u - self.drive(t.detach())) / scale) ** 2)
        loss_ic = torch.mean(self.net(self.at(0.0)) ** 2)
        self.log("loss_ode", loss_ode, prog_bar=True)
        self.log("loss_ic", loss_ic, prog_bar=True)
        return loss_ode + loss_ic


class Flat(Circuit):
    """The drive comes from a table of times."""

    def drive(self, t: Tensor) -> Tensor:
        return super().drive(t[:, 0])


heavy = partial(sgd, momentum=0.9)
TIMES = [
    Run("sixth-tank-root", "DIVERGED", "set", Tank,
        {"steps": 900, "net": {"out": F.softplus}}, {"net": {"out": None}}),
    Run("sixth-gompertz-causal", "CAUSALITY", "set", Gompertz,
        {"causal": 30.0, "steps": 1500, "optim": adam(5e-3), "net": {"out": F.softplus},
         "weights": {"start": 100.0}},
        {"causal": 0.0}),
    Run("sixth-atmosphere", "OUTPUTS_NOT_SCALED", "set", Atmosphere,
        {"steps": 900, "net": {"scaled": True}}, {"unit": 1.0}),
    Run("sixth-fallout-years", "INPUTS_NOT_SCALED", "set", Fallout,
        {"steps": 1000, "net": {"scaled": True}}, {"net": {"scaled": False}}),
    Run("sixth-diode", "ROUNDING", "set", Diode, {"steps": 700}, {"problem": Shockley}),
    Run("sixth-circuit-table", "BROADCAST", "set", Circuit,
        {"tones": {2.0: 1.0, 5.0: 0.5}, "steps": 1000, "optim": adam(5e-3),
         "net": {"scaled": True}},
        {"problem": Flat}),
    Run("sixth-circuit-clip", "STEP_TOO_SHORT", "set", Circuit,
        {"tones": {2.0: 1.0}, "steps": 1500, "optim": heavy(2e-2),
         "trainer": {"gradient_clip_val": 1.0}},
        {"trainer": {"gradient_clip_val": 1e-3}}),
    Run("sixth-circuit-tones", "SPECTRAL_BIAS", "set", Circuit,
        {"tones": {1.0: 1.0, 24.0: 0.8}, "span": 6.0, "steps": 1500, "points": grid(0, 6, 300),
         "net": {"features": 14.0}, "optim": adam(4e-3)},
        {"net": {"features": 0.0}}),
    Run("sixth-hares-width", "TOO_NARROW", "set", LotkaVolterra,
        {"span": 3.5, "steps": 1500, "optim": adam(8e-3), "net": {"scaled": True}},
        {"net": {"width": 2}}),
    Run("sixth-hares", "EARLY", "set", LotkaVolterra,
        {"span": 3.5, "steps": 150, "optim": adam(8e-3), "net": {"scaled": True}}),
    Run("sixth-lorenz-long", "CAUSALITY", "set", Lorenz,
        {"span": 0.5, "steps": 100, "optim": lbfgs(max_iter=10), "number": 150,
         "net": {"scaled": True, "width": 40}},
        {"span": 4.0}),
    Run("sixth-lorenz", "CLEAN", "set", Lorenz,
        {"span": 0.4, "steps": 80, "optim": lbfgs(max_iter=10), "net": {"scaled": True}}),
]  # fmt: skip
