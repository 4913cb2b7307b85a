"""Numbers that overflow, are undefined, or lose their digits."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from pinn_ntk.callbacks import NTKBalancer
from tests.broken.networks import adam, grid, lbfgs, sgd, uniform
from tests.broken.odes import Decay, Oscillator, Slope, System
from tests.broken.pdes import Heat, Poisson
from tests.broken.pinn import Pinn, d
from tests.broken.run import Run

POISSON: dict[str, Any] = {"steps": 1500, "weights": {"bc": 100}}


def balanced_often() -> list[pl.Callback]:
    return [NTKBalancer(every_n_steps=50)]


def torricelli(u: Tensor) -> Tensor:
    return -torch.sqrt(u)


def gompertz(u: Tensor) -> Tensor:
    return -u * torch.log(u)


class Radial(Pinn):
    """u'' + u' / r = -4 on [0, 1], u(1) = 0: the flow in a pipe, u = 1 - r^2."""

    def __init__(self, inner: float = 1e-3, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), points=grid(inner, 1.0, 30), **options)

    def truth(self, r: Tensor) -> Tensor:
        return 1 - r**2

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        r = self.collocation(batch)
        u = self.net(r)
        u_r = d(u, r)
        pde = d(u_r, r) + u_r / r + 4
        return self.total(pde=(pde**2).mean(), wall=(self.net(self.at(1.0)) ** 2).mean())


class Duffing(Oscillator):
    """u'' + u + u^3 = f for the same u."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u, v = self.net(t), self.truth(t).detach()
        loss = (d(d(u, t), t) + u + u**3 - (1 - self.omega**2) * v - v**3).pow(2).mean()
        zero = self.at(0.0).requires_grad_()
        u_0 = self.net(zero)
        start = (u_0 - self.start[0]) ** 2 + (d(u_0, zero) / self.omega - self.start[1]) ** 2
        return self.total(duffing=loss, start=start.mean())


DIVERGED = [
    Run(
        "diverged-decay-balancer",
        "DIVERGED",
        "set",
        Decay,
        {"k": 3.0, "steps": 2000, "optim": sgd(0.02)},
        {"callbacks": balanced_often, "steps": 300},
        note="plain descent at this rate is stable until the balancer raises the weights",
    ),
    Run(
        "diverged-poisson-descent",
        "DIVERGED",
        "set",
        Poisson,
        POISSON,
        {"optim": sgd(0.05), "steps": 300},
    ),
    Run(
        "diverged-root-of-negative",
        "DIVERGED",
        "set",
        System,
        {"rhs": torricelli, "start": (0.1,), "span": 0.5, "steps": 1200, "net": {"out": torch.exp}},
        {"net": {"out": None}},
    ),
    Run(
        "diverged-logarithm-of-negative",
        "DIVERGED",
        "set",
        System,
        {"rhs": gompertz, "start": (0.2,), "span": 2, "steps": 1200, "net": {"out": nn.Softplus()}},
        {"net": {"out": None}},
    ),
    Run(
        "diverged-division-by-zero",
        "DIVERGED",
        "set",
        Radial,
        {"steps": 1500},
        {"inner": 0.0, "steps": 300},
    ),
    Run(
        "diverged-duffing-momentum",
        "DIVERGED",
        "set",
        Duffing,
        {"steps": 1500},
        {"optim": sgd(0.3, momentum=0.9), "steps": 300},
    ),
]


class Differences(Poisson):
    """The second derivative by finite differences of step h."""

    def __init__(self, h: float = 1e-4, **options: Any) -> None:
        super().__init__(**options)
        self.h = h

    def pde(self, x: Tensor) -> Tensor:
        x, h = x.detach(), self.h
        u_xx = (self.net(x + h) - 2 * self.net(x) + self.net(x - h)) / h**2
        return u_xx - self.f(x)


class SlopeByDifferences(Slope):
    """Pressure as a background and what is sought; its slope by a central difference."""

    def __init__(self, background: float = 0.0, h: float = 1e-3, **options: Any) -> None:
        super().__init__(**options)
        self.background, self.h = background, h

    def pressure(self, t: Tensor) -> Tensor:
        return self.background + self.net(t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch).detach()
        slope = (self.pressure(t + self.h) - self.pressure(t - self.h)) / (2 * self.h)
        loss = nn.functional.mse_loss(slope, self.f(t))
        start = (self.net(self.at(0.0)) - self.truth(self.at(0.0))).square().mean()
        return self.total(slope=loss, start=start)


class HeatByDifferences(Heat):
    def __init__(self, h: float = 1e-4, **options: Any) -> None:
        super().__init__(**options)
        self.h = h

    def pde(self, x: Tensor) -> Tensor:
        x = x.detach()
        in_t, in_x = self.h * torch.eye(2, dtype=x.dtype)
        u_t = (self.net(x + in_t) - self.net(x - in_t)) / (2 * self.h)
        u_xx = (self.net(x + in_x) - 2 * self.net(x) + self.net(x - in_x)) / self.h**2
        return u_t - self.kappa * u_xx


class OscillatorByDifferences(Oscillator):
    """Leapfrog on the network: u(t + h) - 2 u(t) + u(t - h) = -(omega h)^2 u, over h^2."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t, h = self.collocation(batch).detach(), 1e-4
        before, now, after = self.net(t - h), self.net(t), self.net(t + h)
        ode = (after - 2 * now + before) / h**2 / self.omega**2 + now
        u_0, u_1 = self.net(self.at(0.0)), self.net(self.at(1e-2))
        velocity = (u_1 - u_0) / 1e-2 / self.omega - self.start[1]
        return self.total(
            ode=(ode**2).mean(),
            position=(u_0 - self.start[0]).pow(2).mean(),
            velocity=velocity.pow(2).mean(),
        )


class LostInBackground(Decay):
    """The equation of T = 1e7 + u from T - 1e7: the small part of a large sum."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        temperature = 1e7 + self.net(t)
        u = temperature - 1e7
        pde = d(u, t) + self.k * u
        ic = 1e7 + self.net(self.at(0.0)) - (1e7 + 1.0)
        return self.total(pde=(pde**2).mean(), ic=(ic**2).mean())


DOUBLE = {"dtype": torch.float64}
SINGLE = {"dtype": torch.float32}

ROUNDING = [
    Run(
        "rounding-poisson-differences",
        "ROUNDING",
        "set",
        Differences,
        POISSON | DOUBLE,
        SINGLE,
    ),
    Run(
        "rounding-pressure-differences",
        "ROUNDING",
        "set",
        SlopeByDifferences,
        {"background": 4e6, "steps": 1200, "net": {"activation": "silu"}} | DOUBLE,
        SINGLE,
    ),
    Run(
        "rounding-heat-differences",
        "ROUNDING",
        "set",
        HeatByDifferences,
        {
            "steps": 1200,
            "optim": adam(4e-3),
            "h": 3e-5,
            "points": uniform(150, (0.0, 1.0), (0.0, 1.0)),
        }
        | DOUBLE,
        SINGLE,
    ),
    Run(
        "rounding-oscillator-differences",
        "ROUNDING",
        "set",
        OscillatorByDifferences,
        {"steps": 1500} | DOUBLE,
        SINGLE,
    ),
    Run(
        "rounding-differences-lbfgs",
        "ROUNDING",
        "set",
        Differences,
        {
            "steps": 40,
            "optim": lbfgs(),
            "h": 1e-4,
            "weights": {"bc": 100},
            "net": {"activation": "sin"},
        }
        | DOUBLE,
        SINGLE,
    ),
    Run(
        "rounding-slope-tiny-step",
        "ROUNDING",
        "set",
        SlopeByDifferences,
        {"h": 1e-7, "u": lambda t: 1 + torch.sin(3 * t), "steps": 1200, "batch": 20} | DOUBLE,
        SINGLE,
    ),
    Run(
        "rounding-background", "ROUNDING", "set", LostInBackground, {"steps": 1000} | DOUBLE, SINGLE
    ),
]

NUMBERS = [*DIVERGED, *ROUNDING]
