"""Boundary value problems on a line."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from torch import Tensor

from tests.broken.networks import Points, adam, grid, sgd, uniform
from tests.broken.pinn import Pinn, d
from tests.broken.run import Run


class Helmholtz(Pinn):
    """u'' + k^2 u = f with u = 0 at both ends by ansatz, for a sum of sines."""

    def __init__(self, modes: dict[int, float], k: float = 1.0, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.modes, self.k = modes, k

    def sines(self, x: Tensor, second: bool = False) -> Tensor:
        waves = {math.pi * n: a for n, a in self.modes.items()}
        return sum(a * (-(w**2) if second else 1) * torch.sin(w * x) for w, a in waves.items())

    def truth(self, x: Tensor) -> Tensor:
        return self.sines(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u = self.predict(x)
        f = self.sines(x.detach(), second=True) + self.k**2 * self.sines(x.detach())
        pde = (d(d(u, x), x) + self.k**2 * u - f) / (math.pi * max(self.modes)) ** 2
        return self.total(pde=pde.square().mean())

    def predict(self, x: Tensor) -> Tensor:
        return 4 * x * (1 - x) * self.net(x)


def sampler(n: int) -> Points:
    """Random points, the same for everybody."""

    def points() -> Tensor:
        return torch.rand(n, 1, generator=torch.Generator().manual_seed(1234))

    return points


class Beam(Pinn):
    """EI u'''' = q on simple supports, one of which has settled; ``unit`` is that of the load."""

    def __init__(self, stiffness: float = 1.0, unit: float = 100.0, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.stiffness, self.unit = stiffness, unit

    def truth(self, x: Tensor) -> Tensor:
        return torch.sin(math.pi * x) + x

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u_4 = d(d(d(d(self.net(x), x), x), x), x)
        load = self.stiffness * math.pi**4 * torch.sin(math.pi * x.detach())
        ends = torch.tensor([[0.0], [1.0]], requires_grad=True)
        u = self.net(ends)
        loss = {
            "beam": torch.mean(((self.stiffness * u_4 - load) / self.unit) ** 2),
            "supports": torch.mean((u - self.truth(ends.detach())) ** 2),
            "moments": torch.mean(d(d(u, ends), ends) ** 2) / 100,
        }
        self.log_dict(loss)
        return loss["beam"] + 10 * (loss["supports"] + loss["moments"])


class Bratu(Pinn):
    """u'' + k exp(u) = 0 with u = 0 at both ends, the lower solution."""

    def __init__(self, theta: float = 3.0, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.theta = theta
        self.k = theta**2 / 2 / math.cosh(theta / 4) ** 2

    def truth(self, x: Tensor) -> Tensor:
        inner = torch.cosh((x - 0.5) * self.theta / 2)
        return -2 * torch.log(inner / math.cosh(self.theta / 4))

    def predict(self, x: Tensor) -> Tensor:
        return x * (1 - x) * self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u = self.predict(x)
        loss = torch.mean((d(d(u, x), x) + self.k * torch.exp(u)) ** 2)
        self.log("train_loss", loss)
        return loss


class Fin(Pinn):
    """u'' = m^2 u in a cooling fin of the given length in metres, hot at its root."""

    def __init__(self, length: float = 2e-3, **options: Any) -> None:
        super().__init__(((0.0, length),), **options)
        self.length, self.ml = length, 3.0

    def truth(self, x: Tensor) -> Tensor:
        return torch.cosh(self.ml * (1 - x / self.length)) / math.cosh(self.ml)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u = self.net(x)
        tip = self.at(self.length).requires_grad_()
        return self.total(
            fin=((self.length**2 * d(d(u, x), x) / self.ml**2 - u) ** 2).mean(),
            root=((self.net(self.at(0.0)) - 1) ** 2).mean(),
            tip=((self.length * d(self.net(tip), tip)) ** 2).mean(),
        )


class Differences(Pinn):
    """u'' = f with u = 0 at both ends by ansatz; u'' by central differences."""

    def __init__(self, h: float = 1e-2, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.h = h

    def truth(self, x: Tensor) -> Tensor:
        return torch.sin(2 * math.pi * x)

    def predict(self, x: Tensor) -> Tensor:
        return x * (1 - x) * self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, h = self.collocation(batch).detach(), self.h
        u_xx = (self.predict(x + h) - 2 * self.predict(x) + self.predict(x - h)) / h**2
        loss = torch.mean((u_xx / (2 * math.pi) ** 2 + self.truth(x)) ** 2)
        self.log("loss", loss)
        return loss


class Legendre(Pinn):
    """((1 - x^2) u')' + 12 u = 0 with u(0) = 0 and u(1) = 1: the third polynomial."""

    def __init__(self, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)

    def truth(self, x: Tensor) -> Tensor:
        return (5 * x**3 - 3 * x) / 2

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u = self.net(x)
        ode = d((1 - x**2) * d(u, x), x) / 12 + u
        return self.total(
            ode=(ode**2).mean(),
            odd=(self.net(self.at(0.0)) ** 2).mean(),
            norm=((self.net(self.at(1.0)) - 1) ** 2).mean(),
        )


class Neumann(Pinn):
    """u'' = f with the flux out of both ends, and one value; ``out``: outward normal at 0."""

    def __init__(self, normal: float = -1.0, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.normal = normal

    def truth(self, x: Tensor) -> Tensor:
        return 1 + torch.cos(2 * x) + x

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        poisson = d(d(self.net(x), x), x) + 4 * torch.cos(2 * x.detach())
        left, right = self.at(0.0).requires_grad_(), self.at(1.0).requires_grad_()
        flux_left = self.normal * d(self.net(left), left) + 1
        flux_right = d(self.net(right), right) - (1 - 2 * math.sin(2))
        return self.total(
            poisson=(poisson**2).mean(),
            flux=(flux_left**2 + flux_right**2).mean(),
            value=((self.net(left) - 2) ** 2).mean(),
        )


momentum = partial(sgd, momentum=0.9)
LINES = [
    Run("sixth-helmholtz-features", "SPECTRAL_BIAS", "set", Helmholtz,
        {"modes": {4: 1.0, 12: 0.7}, "points": grid(0, 1, 200), "steps": 1500,
         "net": {"features": 18.0}},
        {"net": {"features": 0.0}}),
    Run("sixth-helmholtz-generator", "REPEATED_POINTS", "set", Helmholtz,
        {"modes": {1: 1.0, 3: 0.6}, "points": uniform(8, (0, 1)), "fresh": True, "steps": 1500,
         "optim": adam(4e-3), "net": {"scaled": True}},
        {"points": sampler(8)}),
    Run("sixth-beam-square", "DERIVATIVE_VANISHES", "set", Beam,
        {"steps": 700, "net": {"width": 24}}, {"net": {"activation": "square_of_relu"}}),
    Run("sixth-beam-steel", "IMBALANCE", "set", Beam,
        {"stiffness": 5e4, "unit": 5e6, "steps": 700, "net": {"width": 24}}, {"unit": 1.0}),
    Run("sixth-bratu-sgd", "DIVERGED", "set", Bratu,
        {"steps": 800, "optim": momentum(3e-3)}, {"optim": momentum(0.3)}),
    Run("sixth-fin-metres", "INPUTS_NOT_SCALED", "set", Fin,
        {"steps": 800, "net": {"scaled": True}}, {"net": {"scaled": False}}),
    Run("sixth-differences-step", "ROUNDING", "set", Differences,
        {"steps": 1200, "optim": adam(5e-3)}, {"h": 1e-5}),
    Run("sixth-legendre-norm", "NOTHING_TO_FIND", "set", Legendre,
        {"steps": 1200, "optim": adam(5e-3), "weights": {"norm": 10.0, "odd": 10.0}},
        {"without": ("norm",)}),
    Run("sixth-legendre-rmsprop", "STEP_TOO_LARGE", "set", Legendre,
        {"steps": 1200, "optim": partial(torch.optim.RMSprop, lr=1e-3)},
        {"optim": partial(torch.optim.RMSprop, lr=0.3)}),
    Run("sixth-neumann-dropout", "RANDOM_OR_DECAY", "set", Neumann,
        {"steps": 900, "net": {"width": 48}}, {"net": {"dropout": 0.2}}),
    Run("sixth-neumann-value", "NOT_UNIQUE", "set", Neumann,
        {"steps": 900}, {"without": ("value",)}),
    Run("sixth-neumann-normal", "CONTRADICTION", "set", Neumann,
        {"steps": 900}, {"normal": 1.0}),
]  # fmt: skip
