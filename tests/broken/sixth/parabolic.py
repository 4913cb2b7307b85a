"""Heat, Burgers, Allen-Cahn, Schrodinger and Korteweg-de Vries in space and time."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.broken.networks import Points, adam, uniform
from tests.broken.pinn import Pinn, d
from tests.broken.run import Run


def line(n: int, low: float, high: float) -> Tensor:
    return torch.linspace(low, high, n)[:, None]


def beside(x: Tensor, value: float) -> Tensor:
    """Points (x, value)."""
    return torch.cat([x, torch.full_like(x, value)], dim=1)


class Heat(Pinn):
    """u_t = a u_xx on a rod with cold ends; ``unit`` is that of the network's output."""

    def __init__(
        self, a: float = 0.1, size: float = 1.0, unit: float = 1.0, **options: Any
    ) -> None:
        super().__init__(((0.0, 1.0), (0.0, 1.0)), **options)
        self.a, self.size, self.unit = a, size, unit

    def truth(self, x: Tensor) -> Tensor:
        first = torch.sin(math.pi * x[:, :1]) * torch.exp(-self.a * math.pi**2 * x[:, 1:])
        third = torch.sin(2 * math.pi * x[:, :1]) * torch.exp(-4 * self.a * math.pi**2 * x[:, 1:])
        return self.size * (first + 0.5 * third)

    def predict(self, x: Tensor) -> Tensor:
        return self.unit * self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u = self.predict(x)
        du = d(u, x)
        residual = du[:, 1:] - self.a * d(du[:, :1], x)[:, :1]
        s, t = line(40, 0, 1), line(20, 0, 1)
        start = beside(s, 0.0)
        ends = torch.cat([beside(t, 0.0), beside(t, 1.0)]).flip(1)
        terms = {
            "pde": F.mse_loss(residual, torch.zeros_like(residual)),
            "initial": F.mse_loss(self.predict(start), self.truth(start)),
            "ends": self.predict(ends).square().mean(),
        }
        return self.total(**{name: term / self.unit**2 for name, term in terms.items()})


def mesh(n: int, each: bool = True) -> Points:
    """The mesh of n places and n times as a list of points."""

    def points() -> Tensor:
        x, t = torch.linspace(0, 1, n), torch.linspace(0, 1, n)
        times = t.repeat_interleave(n) if each else t.repeat(n)
        return torch.stack([x.repeat(n), times], dim=1)

    return points


class Burgers(Pinn):
    """u_t + u u_x = nu u_xx, a front that walks to the right."""

    def __init__(self, nu: float = 0.1, **options: Any) -> None:
        super().__init__(((-1.0, 1.0), (0.0, 1.0)), **options)
        self.nu = nu

    def truth(self, x: Tensor) -> Tensor:
        s, t = x[:, :1], x[:, 1:]
        return 0.5 - 0.5 * torch.tanh((s + 0.3 - t / 2) / (4 * self.nu))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        xt = self.collocation(batch)
        u = self.net(xt)
        du = torch.autograd.grad(u.sum(), xt, create_graph=True)[0]
        u_x, u_t = du[:, 0:1], du[:, 1:2]
        u_xx = torch.autograd.grad(u_x.sum(), xt, create_graph=True)[0][:, 0:1]
        f = u_t + u * u_x - self.nu * u_xx
        t = line(20, 0, 1)
        known = torch.cat([beside(line(40, -1, 1), 0.0), *(beside(t, e).flip(1) for e in (-1, 1))])
        loss_f = torch.mean(f**2)
        loss_u = torch.mean((self.net(known) - self.truth(known)) ** 2)
        self.log("loss_f", loss_f)
        self.log("loss_u", loss_u)
        return loss_u + loss_f


def broad(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=5.0)
        nn.init.normal_(layer.bias, std=5.0)


class AllenCahn(Pinn):
    """u_t = u_xx + u - u^3, the front between 1 and 0."""

    def __init__(self, **options: Any) -> None:
        super().__init__(((-5.0, 5.0), (0.0, 1.5)), **options)

    def truth(self, x: Tensor) -> Tensor:
        s, t = x[:, :1], x[:, 1:]
        return torch.sigmoid(-(s - 3 / math.sqrt(2) * t) / math.sqrt(2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u = self.net(x)
        du = d(u, x)
        loss = {"pde": (du[:, 1:] - d(du[:, :1], x)[:, :1] - u + u**3).pow(2).mean()}
        start, t = beside(line(50, -5, 5), 0.0), line(20, 0, 1.5)
        loss["ic"] = 5 * F.mse_loss(self.net(start), self.truth(start))
        for side, place in (("left", -5.0), ("right", 5.0)):
            end = beside(t, place).flip(1)
            loss["bc_" + side] = F.mse_loss(self.net(end), self.truth(end))
        self.log_dict(loss)
        return torch.stack(list(loss.values())).sum()


class Schrodinger(Pinn):
    """i psi_t = -psi_xx / 2 in a box, two states at once; outputs are Re psi and Im psi."""

    n_out = 2

    def __init__(self, **options: Any) -> None:
        super().__init__(((0.0, math.pi), (0.0, 1.0)), **options)

    def truth(self, x: Tensor) -> Tensor:
        s, t = x[:, :1], x[:, 1:]
        re = torch.sin(s) * torch.cos(t / 2) + torch.sin(2 * s) * torch.cos(2 * t)
        im = -torch.sin(s) * torch.sin(t / 2) - torch.sin(2 * s) * torch.sin(2 * t)
        return torch.cat([re, im], dim=1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        re, im = self.net(x).split(1, dim=1)
        d_re, d_im = d(re, x), d(im, x)
        f_re = d_re[:, 1:] + 0.5 * d(d_im[:, :1], x)[:, :1]
        f_im = d_im[:, 1:] - 0.5 * d(d_re[:, :1], x)[:, :1]
        start, t = beside(line(50, 0, math.pi), 0.0), line(20, 0, 1)
        walls = torch.cat([beside(t, 0.0), beside(t, math.pi)]).flip(1)
        return self.total(
            physics=(f_re**2 + f_im**2).mean(),
            start=(self.net(start) - self.truth(start)).pow(2).sum(dim=1).mean(),
            walls=self.net(walls).pow(2).sum(dim=1).mean(),
        )


def positive(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.uniform_(layer.weight)
        nn.init.uniform_(layer.bias)


class Soliton(Pinn):
    """u_t + 6 u u_x + u_xxx = 0, Korteweg and de Vries's soliton."""

    def __init__(self, c: float = 2.0, **options: Any) -> None:
        super().__init__(((-4.0, 5.0), (0.0, 1.0)), **options)
        self.c = c

    def truth(self, x: Tensor) -> Tensor:
        phase = math.sqrt(self.c) / 2 * (x[:, :1] - self.c * x[:, 1:])
        return self.c / 2 / torch.cosh(phase) ** 2

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u = self.net(x)
        du = d(u, x)
        u_x, u_t = du[:, :1], du[:, 1:]
        u_xxx = d(d(u_x, x)[:, :1], x)[:, :1]
        start, t = beside(line(60, -4, 5), 0.0), line(20, 0, 1)
        ends = torch.cat([beside(t, -4.0), beside(t, 5.0)]).flip(1)
        pde = torch.mean((u_t + 6 * u * u_x + u_xxx) ** 2)
        data = torch.mean((self.net(start) - self.truth(start)) ** 2)
        data = data + torch.mean((self.net(ends) - self.truth(ends)) ** 2)
        self.log("pde", pde)
        self.log("data", data)
        return pde + 20 * data


cosine = partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=1200)
exponential = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.9)
slowly = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.999)
FRONT = {"net": {"scaled": True}, "steps": 900, "points": uniform(200, (-1, 1), (0, 1))}

PARABOLIC = [
    Run("sixth-heat-concentration", "OUTPUTS_NOT_SCALED", "set", Heat,
        {"size": 2e-4, "unit": 2e-4, "steps": 1000, "optim": adam(5e-3)}, {"unit": 1.0}),
    Run("sixth-heat-start", "EARLY", "set", Heat, {"steps": 120}),
    Run("sixth-heat-weights", "IMBALANCE", "set", Heat,
        {"weights": {"initial": 10.0, "ends": 10.0}, "steps": 1000, "optim": adam(5e-3)},
        {"weights": {"initial": 1e-4, "ends": 10.0}}),
    Run("sixth-burgers", "CLEAN", "set", Burgers, FRONT),
    Run("sixth-burgers-init", "SATURATED", "set", Burgers, FRONT | {"net": {"depth": 3}},
        {"net": {"init": broad}}),
    Run("sixth-burgers-rand", "POINTS", "set", Burgers,
        FRONT | {"nu": 0.03, "steps": 1200}, {"points": lambda: torch.rand(200, 2)}),
    Run("sixth-allen-cahn-rate", "STEP_TOO_LARGE", "set", AllenCahn,
        {"net": {"scaled": True}, "steps": 900, "fresh": True}, {"optim": adam(0.5)}),
    Run("sixth-allen-cahn-schedule", "STEP_TOO_SHORT", "set", AllenCahn,
        {"net": {"scaled": True}, "steps": 900, "schedule": slowly}, {"schedule": exponential}),
    Run("sixth-schrodinger", "EARLY", "set", Schrodinger,
        {"net": {"scaled": True, "width": 40}, "steps": 120, "optim": adam(2e-3)}),
    Run("sixth-schrodinger-init", "SATURATED", "set", Schrodinger,
        {"net": {"scaled": True, "width": 48}, "steps": 1200, "optim": adam(4e-3),
         "schedule": cosine, "points": uniform(200, (0, math.pi), (0, 1))},
        {"net": {"init": positive}}),
    Run("sixth-soliton", "EARLY", "set", Soliton,
        {"net": {"scaled": True}, "steps": 150, "points": uniform(250, (-4, 5), (0, 1))}),
]  # fmt: skip
