"""Coefficients from data."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tests.broken.networks import adam, lbfgs, mlp
from tests.broken.pinn import Pinn, d
from tests.broken.run import Run


class Damped(Pinn):
    """u'' + 2 c u' + w^2 u = 0 with data of u and an unknown c, mass and spring known."""

    def __init__(self, w: float = 4.0, **options: Any) -> None:
        super().__init__(((0.0, 2.0),), **options)
        self.c = nn.Parameter(torch.zeros(1))
        self.w = w
        t = torch.linspace(0, 2, 30)[:, None]
        self.register_buffer("t_obs", t)
        self.register_buffer("u_obs", self.truth(t))

    def truth(self, t: Tensor) -> Tensor:
        frequency = math.sqrt(4.0**2 - 0.8**2)
        return torch.exp(-0.8 * t) * torch.cos(frequency * t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        u_t = torch.autograd.grad(u, t, torch.ones_like(u), create_graph=True)[0]
        u_tt = torch.autograd.grad(u_t, t, torch.ones_like(u_t), create_graph=True)[0]
        physics = torch.mean(((u_tt + 2 * self.c * u_t + self.w**2 * u) / 16) ** 2)
        data = torch.mean((self.net(self.t_obs) - self.u_obs) ** 2)
        self.log("physics", physics)
        self.log("data", data)
        return physics + 5 * data

    def error(self) -> float:
        return max(super().error(), abs(self.c.item() / 0.8 - 1))


class Spring(Damped):
    """Its spring pushes."""

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        u_t = d(u, t)
        physics = torch.mean(((d(u_t, t) + 2 * self.c * u_t - self.w**2 * u) / 16) ** 2)
        data = torch.mean((self.net(self.t_obs) - self.u_obs) ** 2)
        self.log("physics", physics)
        self.log("data", data)
        return physics + 5 * data


class Conductivity(Pinn):
    """(k u')' = -f with unknown k(x): a network for u, another for k; u is measured."""

    def __init__(self, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.net_k = mlp(1, 1, width=24, out=F.softplus)
        self.register_buffer("places", torch.linspace(0, 1, 40)[:, None])

    def truth(self, x: Tensor) -> Tensor:
        return torch.cat([x + x**2 / 2, 0.4 + torch.sin(math.pi * x)], dim=1)

    def predict(self, x: Tensor) -> Tensor:
        return torch.cat([self.net(x), self.net_k(x)], dim=1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        flux = self.net_k(x) * d(self.net(x), x)
        s = math.pi * x.detach()
        source = math.pi * torch.cos(s) * (1 + x.detach()) + 0.4 + torch.sin(s)
        pde = torch.mean((d(flux, x) - source) ** 2)
        measured = self.truth(self.places)[:, :1]
        data = F.mse_loss(self.net(self.places), measured)
        wall = F.mse_loss(self.net_k(self.at(0.0)), torch.tensor([[0.4]]))
        return self.total(pde=pde, data=100 * data, wall=10 * wall)

    @torch.no_grad()
    def error(self) -> float:
        x = self.test_points()
        gap, truth = self.predict(x.float()) - self.truth(x), self.truth(x)
        return float((gap.norm(dim=0) / truth.norm(dim=0)).max())


def weights_of_u(module: Any) -> Iterable[Any]:
    return module.net.parameters()


class Growth(Pinn):
    """u' = r u (1 - u) with unknown r and a table of u."""

    def __init__(self, flat: bool = False, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.rate = nn.Parameter(torch.tensor(1.0))
        t = torch.linspace(0, 1, 25)[:, None]
        u = self.truth(t)
        self.register_buffer("t_data", t)
        self.register_buffer("u_data", u.flatten() if flat else u)

    def truth(self, t: Tensor) -> Tensor:
        return torch.sigmoid(6 * t - 3)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        u = self.net(t)
        loss_f = torch.mean((d(u, t) - self.rate * u * (1 - u)) ** 2)
        loss_d = torch.mean((self.net(self.t_data) - self.u_data) ** 2)
        self.log("loss_f", loss_f)
        self.log("loss_d", loss_d)
        return loss_f + 10 * loss_d

    def error(self) -> float:
        return max(super().error(), abs(self.rate.item() / 6 - 1))


class Drift(Pinn):
    """v u' = D u'' with data of u; D is sought, and v too if it is not given."""

    def __init__(self, known: bool = True, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.diffusion = nn.Parameter(torch.tensor(1.0))
        self.velocity = nn.Parameter(torch.tensor(1.0), requires_grad=not known)
        x = torch.linspace(0, 1, 15)[:, None]
        self.register_buffer("x_data", x)

    def truth(self, x: Tensor) -> Tensor:
        return torch.expm1(4 * x) / math.expm1(4)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        c = self.net(x)
        c_x = d(c, x)
        loss = {
            "transport": (self.velocity * c_x - self.diffusion * d(c_x, x)).square().mean(),
            "data": 50 * F.mse_loss(self.net(self.x_data), self.truth(self.x_data)),
        }
        self.log_dict(loss)
        return sum(loss.values())

    def error(self) -> float:
        return max(super().error(), abs(self.diffusion.item() / 0.25 - 1))


class Kinetics(Pinn):
    """s' = -V s / (K + s) with unknown V, data of the substrate s; K is known."""

    def __init__(self, **options: Any) -> None:
        super().__init__(((0.0, 1.0),), **options)
        self.v = nn.Parameter(torch.tensor(1.0))
        self.register_buffer("times", torch.linspace(0, 1, 12)[:, None])

    def truth(self, t: Tensor) -> Tensor:
        """By bisection of s + K ln s = 1 - V t with K = 1/2 and V = 2."""
        low, high = torch.full_like(t, 1e-6), torch.ones_like(t)
        for _ in range(50):
            s = (low + high) / 2
            above = s + 0.5 * torch.log(s) > 1 - 2 * t
            low, high = torch.where(above, low, s), torch.where(above, s, high)
        return (low + high) / 2

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch)
        s = self.net(t)
        kinetics = (0.5 + s) * d(s, t) + self.v * s
        data = self.net(self.times) - self.truth(self.times)
        return self.total(kinetics=kinetics.pow(2).mean(), data=data.pow(2).mean())

    def error(self) -> float:
        return max(super().error(), abs(self.v.item() / 2 - 1))


OSCILLATOR = {"steps": 1300, "optim": adam(5e-3), "net": {"scaled": True}}
INVERSE = [
    Run("sixth-damper-parameters", "NOT_TRAINED", "set", Damped, OSCILLATOR,
        {"trained": weights_of_u}),
    Run("sixth-damper-spring", "CONTRADICTION", "set", Damped, OSCILLATOR,
        {"problem": Spring}),
    Run("sixth-conductivity", "NOT_TRAINED", "set", Conductivity,
        {"steps": 80, "optim": lbfgs(max_iter=15)}, {"trained": weights_of_u}),
    Run("sixth-growth-table", "BROADCAST", "set", Growth,
        {"steps": 1300, "optim": adam(8e-3)}, {"flat": True}),
    Run("sixth-drift-both", "NOT_UNIQUE", "set", Drift,
        {"steps": 1200, "optim": adam(5e-3)}, {"known": False}),
    Run("sixth-kinetics", "CLEAN", "set", Kinetics,
        {"steps": 60, "optim": lbfgs(max_iter=10)}),
]  # fmt: skip
