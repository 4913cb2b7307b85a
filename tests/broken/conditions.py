"""Conditions that are missing, or that cannot hold together."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn

from tests.broken.healthy import oscillating
from tests.broken.networks import adam, lbfgs, uniform
from tests.broken.odes import Decay, Inverse, Oscillator, Slope, System
from tests.broken.pdes import Advection, Heat, Mixed, Poisson, Square, Wave
from tests.broken.pinn import Pinn, d
from tests.broken.run import Run

UNIT = ((0.0, 1.0), (0.0, 1.0))
POISSON: dict[str, Any] = {"steps": 1500, "weights": {"bc": 100}}


class SourceForgotten(Poisson):
    def f(self, x: Tensor) -> Tensor:
        return torch.zeros_like(x)


NOTHING = [
    Run(
        "nothing-oscillator-no-velocity",
        "NOTHING_TO_FIND",
        "set",
        Oscillator,
        {"start": (0.0, 1.0), "steps": 1500},
        {"without": ("velocity",)},
    ),
    Run(
        "nothing-heat-no-start",
        "NOTHING_TO_FIND",
        "set",
        Heat,
        {"steps": 1200, "optim": adam(4e-3)},
        {"without": ("ic",)},
    ),
    Run("nothing-decay", "NOTHING_TO_FIND", "set", Decay, {"steps": 1000}, {"without": ("ic",)}),
    Run(
        "nothing-poisson-no-source",
        "NOTHING_TO_FIND",
        "set",
        Poisson,
        POISSON,
        {"problem": SourceForgotten},
    ),
    Run(
        "nothing-system-no-start",
        "NOTHING_TO_FIND",
        "set",
        System,
        {"rhs": oscillating, "start": (1, 0), "steps": 1500, "batch": 20},
        {"without": ("start",)},
    ),
    Run(
        "nothing-advection-no-profile",
        "NOTHING_TO_FIND",
        "set",
        Advection,
        {"steps": 2000, "optim": adam(5e-3), "net": {"depth": 3}},
        {"without": ("initial", "inflow")},
    ),
    Run(
        "nothing-wave-no-profile",
        "NOTHING_TO_FIND",
        "set",
        Wave,
        {"steps": 25, "optim": lbfgs(), "weights": {"u0": 10, "walls": 10}},
        {"without": ("u0",)},
    ),
]


class Opposed(Decay):
    """A second condition at the start that contradicts the first."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        pde = d(u, t) + self.k * u
        now = self.net(self.at(0.0))
        return self.total(
            pde=(pde**2).mean(), ic=((now - 1) ** 2).mean(), rest=((now + 1) ** 2).mean()
        )


class WrongSign(Heat):
    """Heat flows from cold to warm; the values at the end of time were measured."""

    sign = -1.0

    def pde(self, x: Tensor) -> Tensor:
        first = d(self.net(x), x)
        return first[:, :1] - self.sign * self.kappa * d(first[:, 1:], x)[:, 1:]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pde = self.pde(self.collocation(batch))
        at_end = self.initial + torch.tensor([1.0, 0.0])
        known = torch.cat([self.initial, self.walls, at_end])
        data = self.net(known) - self.truth(known)
        return self.total(pde=(pde**2).mean(), data=(data**2).mean())


class RightSign(WrongSign):
    sign = 1.0


class WithData(Decay):
    """Measurements of a decay at rate 2, and the equation with a rate that is assumed."""

    def truth(self, t: Tensor) -> Tensor:
        return torch.exp(-2 * t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        misfit = u - self.truth(t).detach()
        return self.total(ode=((d(u, t) + self.k * u) ** 2).mean(), data=10 * (misfit**2).mean())


class Flux(Pinn):
    """u'' = f on [0, 1] with both slopes and one value: solvable only where f has their mean."""

    def __init__(self, source: float = 0.0, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.source = source

    def truth(self, x: Tensor) -> Tensor:
        return torch.cos(math.pi * x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        ends = torch.tensor([[0.0], [1.0]], requires_grad=True)
        u_ends = self.net(ends)
        f = -(math.pi**2) * self.truth(x.detach()) + self.source
        return self.total(
            pde=(d(d(self.net(x), x), x) - f).square().mean(),
            flux=d(u_ends, ends).square().mean(),
            value=(u_ends[0] - 1).square().mean(),
        )


class WallsOf(Square):
    """Walls held at a value that the solution has nowhere, and a point in the middle at 1."""

    def __init__(self, wall: float = 0.0, **options: Any) -> None:
        super().__init__(**options)
        self.wall = wall

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        grad = d(self.net(x), x)
        laplacian = sum(d(grad[:, [i]], x)[:, [i]] for i in range(2))
        return self.total(
            inside=nn.functional.mse_loss(laplacian, self.f(x.detach())),
            walls=100 * (self.net(self.edges) - self.wall).square().mean(),
            middle=100 * (self.net(self.at(0.5, 0.5)) - 1).square().mean(),
        )


CONTRADICTION = [
    Run(
        "contradiction-heat-corners",
        "CONTRADICTION",
        "set",
        Heat,
        {"steps": 1500, "optim": adam(4e-3)},
        {"lift": 1.0},
        note="the initial profile is 1 + sin, the walls are 0",
    ),
    Run(
        "contradiction-two-starts",
        "CONTRADICTION",
        "set",
        Decay,
        {"steps": 1500},
        {"problem": Opposed},
    ),
    Run(
        "contradiction-wrong-sign",
        "CONTRADICTION",
        "set",
        RightSign,
        {"steps": 1500, "optim": adam(4e-3), "kappa": 0.2},
        {"problem": WrongSign},
    ),
    Run(
        "contradiction-wrong-rate",
        "CONTRADICTION",
        "set",
        WithData,
        {"k": 2.0, "steps": 1500},
        {"k": -3.0},
    ),
    Run(
        "contradiction-flux",
        "CONTRADICTION",
        "set",
        Flux,
        {"steps": 40, "optim": lbfgs(), "net": {"activation": "sin"}},
        {"source": 8.0},
    ),
    Run(
        "contradiction-walls",
        "CONTRADICTION",
        "set",
        WallsOf,
        {"steps": 1500, "points": uniform(150, *UNIT)},
        {"wall": 1.0},
    ),
]


class TwoRates(Inverse):
    """u' = -(k + c) u: of k and c only the sum is in the data."""

    def __init__(self, known: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.known = known
        self.c = nn.Parameter(torch.tensor(0.2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        physics = ((d(u, t) + (self.k + self.c) * u) ** 2).mean()
        data = ((self.net(self.times) - self.truth(self.times)) ** 2).mean()
        known = {"c": self.c.square()} if self.known else {}
        return self.total(physics=physics, data=data, **known)


NOT_UNIQUE = [
    Run(
        "not-unique-slope-no-start",
        "NOT_UNIQUE",
        "set",
        Slope,
        {"steps": 1500, "u": lambda t: 2 + torch.sin(2 * t)},
        {"without": ("start",)},
    ),
    Run(
        "not-unique-oscillator-no-velocity",
        "NOT_UNIQUE",
        "set",
        Oscillator,
        {"start": (1.0, 1.5), "steps": 1500},
        {"without": ("velocity",)},
    ),
    Run("not-unique-poisson-no-walls", "NOT_UNIQUE", "set", Poisson, POISSON, {"without": ("bc",)}),
    Run(
        "not-unique-square-one-wall",
        "NOT_UNIQUE",
        "set",
        Square,
        {"steps": 1500, "weights": {"walls": 100}, "points": uniform(150, *UNIT)},
        {"walls": (0,)},
    ),
    Run(
        "not-unique-heat-no-walls",
        "NOT_UNIQUE",
        "set",
        Heat,
        {"steps": 1500, "optim": adam(4e-3), "kappa": 0.3},
        {"without": ("bc",)},
    ),
    Run(
        "not-unique-two-networks-no-ends",
        "NOT_UNIQUE",
        "set",
        Mixed,
        {"steps": 1500, "weights": {"ends": 10}},
        {"without": ("ends",)},
    ),
    Run(
        "not-unique-advection-no-inflow",
        "NOT_UNIQUE",
        "set",
        Advection,
        {"steps": 2000, "optim": adam(5e-3), "net": {"depth": 3}, "c": 1.0},
        {"without": ("inflow",)},
    ),
    Run(
        "not-unique-two-coefficients",
        "NOT_UNIQUE",
        "set",
        TwoRates,
        {"steps": 1500},
        {"known": False},
    ),
]

CONDITIONS = [*NOTHING, *CONTRADICTION, *NOT_UNIQUE]
