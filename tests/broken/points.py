"""Points: shapes that spread, points that repeat, too few, misplaced or forgotten ones."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from tests.broken.healthy import oscillating
from tests.broken.networks import adam, grid, lbfgs, uniform
from tests.broken.odes import Decay, Fit, Inverse, Slope, System, waves
from tests.broken.pdes import Advection, Heat, Poisson, Square
from tests.broken.pinn import d
from tests.broken.run import Run

POISSON: dict[str, Any] = {"steps": 1500, "weights": {"bc": 100}}
UNIT = ((0.0, 1.0), (0.0, 1.0))


class FlatForcing(Poisson):
    """f of shape (N,) beside u_xx of shape (N, 1)."""

    def f(self, x: Tensor) -> Tensor:
        return super().f(x).squeeze(-1)


class FlatData(Inverse):
    """The measurements as a list of numbers."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        measured = self.truth(self.times).flatten()
        data = ((self.net(self.times) - measured) ** 2).mean()
        return self.total(physics=((d(u, t) + self.k * u) ** 2).mean(), data=data)


class FlatSlope(Slope):
    def f(self, t: Tensor) -> Tensor:
        return super().f(t)[:, 0]


class FlatNetwork(Fit):
    """The network gives (N,), the values are (N, 1)."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch).detach()
        prediction = self.net(x).reshape(-1)
        return self.total(data=torch.mean((prediction - self.truth(x)) ** 2))


class FlatStart(Heat):
    """The initial profile is computed from a row of x."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pde = self.pde(self.collocation(batch))
        profile = torch.sin(math.pi * self.initial[:, 1])
        ic = self.net(self.initial) - profile
        bc = self.net(self.walls)
        return self.total(pde=(pde**2).mean(), ic=(ic**2).mean(), bc=(bc**2).mean())


class FlatProduct(Decay):
    """A rate k(t) of shape (N,) times u of shape (N, 1)."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        rate = self.k * (1 + 0 * t.detach()).flatten() * torch.sin(8 * t.detach()[:, 0])
        pde = d(u, t) + rate * u
        ic = self.net(self.at(self.start)) - self.size
        return self.total(pde=(pde**2).mean(), ic=(ic**2).mean())


class Varying(Decay):
    """u' = -k sin(8 t) u."""

    def truth(self, t: Tensor) -> Tensor:
        return torch.exp(self.k * (torch.cos(8 * t) - 1) / 8)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        pde = d(u, t) + self.k * torch.sin(8 * t.detach()) * u
        ic = self.net(self.at(self.start)) - self.size
        return self.total(pde=(pde**2).mean(), ic=(ic**2).mean())


class FlatVarying(Varying):
    training_step = FlatProduct.training_step


BROADCAST = [
    Run("broadcast-forcing", "BROADCAST", "set", Poisson, POISSON, {"problem": FlatForcing}),
    Run("broadcast-data", "BROADCAST", "set", Inverse, {"steps": 1500}, {"problem": FlatData}),
    Run(
        "broadcast-mini-batches",
        "BROADCAST",
        "set",
        Slope,
        {"steps": 1500, "batch": 20},
        {"problem": FlatSlope},
    ),
    Run(
        "broadcast-fit",
        "BROADCAST",
        "set",
        Fit,
        {"u": waves(2), "steps": 1500, "net": {"scaled": True, "width": 40, "activation": "sin"}},
        {"problem": FlatNetwork},
    ),
    Run(
        "broadcast-initial-profile",
        "BROADCAST",
        "set",
        Heat,
        {"steps": 1000, "optim": adam(4e-3), "kappa": 0.03},
        {"problem": FlatStart},
    ),
    Run(
        "broadcast-product",
        "BROADCAST",
        "set",
        Varying,
        {"steps": 1500, "k": 6.0, "optim": adam(5e-3)},
        {"problem": FlatVarying},
    ),
]


def one_of(points: Any, times: int) -> Any:
    """All points are the first of some random ones."""
    return lambda: points()[:1].repeat(times, 1)


def few_of(points: Any, different: int, times: int) -> Any:
    return lambda: points()[:different].repeat(times, 1)


def whole(n: int, high: float) -> Any:
    """Points that were divided as whole numbers."""
    return (torch.arange(n) // n * high)[:, None].float


def choice(values: list[float], n: int) -> Any:
    """Drawn anew, from a few values."""
    return lambda: torch.tensor(values)[torch.randint(len(values), (n, 1))]


class AlwaysTheFirst(Heat):
    """A sampler that starts at the beginning every time."""

    def loader(self, steps: int) -> DataLoader[Any]:
        first = [0] * 64
        return DataLoader(TensorDataset(self.points), batch_size=64, sampler=first)


REPEATED = [
    Run(
        "repeated-whole-numbers",
        "REPEATED_POINTS",
        "set",
        Decay,
        {"steps": 800},
        {"points": whole(40, 1.0)},
    ),
    Run(
        "repeated-two-values",
        "REPEATED_POINTS",
        "set",
        Slope,
        {"steps": 1000, "points": grid(0, 2, 40)},
        {"points": few_of(grid(1.0, 2.0, 3), 2, 20)},
    ),
    Run(
        "repeated-sampler",
        "REPEATED_POINTS",
        "set",
        Heat,
        {"steps": 1200, "batch": 64, "kappa": 0.5, "optim": adam(4e-3)},
        {"problem": AlwaysTheFirst},
    ),
    Run(
        "repeated-three-values",
        "REPEATED_POINTS",
        "set",
        Poisson,
        POISSON | {"a": 2.0},
        {"fresh": True, "points": choice([-0.7, 0.1, 0.4], 40)},
    ),
    Run(
        "repeated-dataset",
        "REPEATED_POINTS",
        "set",
        Fit,
        {"u": waves(1), "steps": 1500, "batch": 20, "net": {"scaled": True, "activation": "sin"}},
        {"points": one_of(uniform(1, (0, 1)), 60)},
    ),
    Run(
        "repeated-expanded",
        "REPEATED_POINTS",
        "set",
        Square,
        {"steps": 1500, "weights": {"walls": 100}, "points": uniform(150, *UNIT)},
        {"points": one_of(uniform(1, (0.1, 0.3), (0.1, 0.9)), 150)},
    ),
]

POINTS = [
    Run(
        "points-seven-for-frequency-twelve",
        "POINTS",
        "set",
        Slope,
        {
            "u": lambda t: 1 - torch.cos(12 * t) / 4,
            "points": grid(0, 2, 100),
            "steps": 2000,
            "net": {"width": 50, "activation": "sin"},
        },
        {"points": grid(0, 2, 7)},
    ),
    Run(
        "points-first-half-only",
        "POINTS",
        "set",
        Slope,
        {"u": lambda t: 1 + torch.sin(4 * t), "steps": 1500, "optim": adam(5e-3)},
        {"points": grid(0, 0.5, 40)},
    ),
    Run(
        "points-square-clump",
        "POINTS",
        "set",
        Square,
        {"steps": 1500, "weights": {"walls": 100}, "points": uniform(150, *UNIT)},
        {"points": uniform(150, (0.0, 0.2), (0.0, 0.2))},
    ),
    Run(
        "points-square-three",
        "POINTS",
        "set",
        Square,
        {"steps": 1500, "weights": {"walls": 100}, "points": uniform(150, *UNIT)},
        {"points": uniform(3, *UNIT)},
    ),
    Run(
        "points-window-forgets",
        "POINTS",
        "set",
        System,
        {"rhs": oscillating, "start": (1, 0), "span": 3.0, "steps": 2000, "grow": 1000},
        {"grow": 0, "forget": 1500},
        note="time windows move on without old points",
    ),
    Run(
        "points-fit-few",
        "POINTS",
        "set",
        Fit,
        {
            "u": waves(2),
            "points": grid(0, 1, 60),
            "steps": 30,
            "optim": lbfgs(),
            "net": {"width": 40},
        },
        {"points": grid(0, 1, 6)},
    ),
    Run(
        "points-poisson-six",
        "POINTS",
        "set",
        Poisson,
        POISSON | {"a": 3.0, "steps": 2000},
        {"points": grid(-1, 1, 6)},
    ),
    Run(
        "points-advection-gap",
        "POINTS",
        "set",
        Advection,
        {"c": 1.0, "steps": 2000, "optim": adam(5e-3), "net": {"depth": 3}},
        {"points": uniform(300, (0.0, 0.15), (0.0, 1.0))},
    ),
]

PLACES = [*BROADCAST, *REPEATED, *POINTS]
