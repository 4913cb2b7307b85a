"""Boundary value problems on a line, direct and inverse."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.broken.eleventh.common import DNN, Problem, Siren, gradients, lhs, mse


class Glacier(Problem):
    """Ice in a channel of half width 1, Glen's law: -(eta u')' = 1, symmetric, no slip."""

    n = 3.0

    def __init__(self, eps: float = 0.03, **options: Any) -> None:
        super().__init__(**options)
        self.eps = eps
        self.net = DNN(self.lb, self.ub, **self.net_options)
        self.y_f = torch.linspace(0, 1, 41)[:, None]

    def truth(self, y: Tensor) -> Tensor:
        return (1 - y ** (self.n + 1)) / (self.n + 1)

    def predict(self, x: Tensor) -> Tensor:
        return (1 - x**2) * self.net(x**2)

    def viscosity(self, u_y: Tensor) -> Tensor:
        return (u_y**2 + self.eps**2) ** ((1 / self.n - 1) / 2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        y = self.y_f.clone().requires_grad_()
        u_y = gradients(self.predict(y), y)
        loss = mse(self.viscosity(u_y) * u_y + y)
        self.log("momentum", loss)
        return loss


class Beam(Problem):
    """Simply supported beam under a sine load, E I w'''' = q."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.net = DNN(self.lb, self.ub, **self.net_options)
        self.x_f = lhs(60, self.lb, self.ub)

    def truth(self, x: Tensor) -> Tensor:
        return torch.sin(math.pi * x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.x_f.clone().requires_grad_()
        f = gradients(self.net(x), x, 4) / math.pi**4 - torch.sin(math.pi * x)
        ends = torch.tensor([[0.0], [1.0]], requires_grad=True)
        w = self.net(ends)
        loss_w, loss_m = mse(w), mse(gradients(w, ends, 2) / math.pi**2)
        self.log("loss_f", mse(f))
        self.log("loss_w", loss_w)
        self.log("loss_m", loss_m)
        return mse(f) + 10 * loss_w + loss_m


class Permeability(Problem):
    """Heads in a column give K(x) of a second network: (K h')' = 0, K h'(0) = -1."""

    n_out = 2

    def __init__(self, both: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.both = both
        self.net_h = DNN(self.lb, self.ub, **self.net_options)
        self.net_K = DNN(self.lb, self.ub, **self.net_options)
        self.x_d = torch.linspace(0, 1, 40)[:, None]

    def truth(self, x: Tensor) -> Tensor:
        h = 1 - x - 0.1 * torch.sin(2 * math.pi * x)
        return torch.cat([h, 1 / (1 + 0.2 * math.pi * torch.cos(2 * math.pi * x))], dim=1)

    def predict(self, x: Tensor) -> Tensor:
        return torch.cat([self.net_h(x), torch.exp(self.net_K(x))], dim=1)

    def configure_optimizers(self) -> Any:
        parameters = list(self.net_h.parameters())
        if self.both:
            parameters += list(self.net_K.parameters())
        return self.optim(parameters)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = torch.cat([torch.zeros(1, 1), torch.rand(60, 1)]).requires_grad_()
        flux = torch.exp(self.net_K(x)) * gradients(self.net_h(x), x)
        loss_q, loss_f = mse(flux[:1] + 1), mse(gradients(flux, x))
        loss_d = F.mse_loss(self.net_h(self.x_d), self.truth(self.x_d)[:, :1])
        self.log_dict({"flux": loss_q, "darcy": loss_f, "heads": loss_d})
        return loss_q + 0.1 * loss_f + 10 * loss_d


class Ditches(Problem):
    """Groundwater between two ditches, a^2 h'' - h = -1, by central differences."""

    a = 0.3

    def __init__(self, dx: float = 1e-2, **options: Any) -> None:
        super().__init__(**options)
        self.dx = dx
        self.net = DNN(self.lb, self.ub, **self.net_options)

    def truth(self, x: Tensor) -> Tensor:
        return 1 - torch.cosh((x - 0.5) / self.a) / math.cosh(0.5 / self.a)

    def laplacian(self, x: Tensor) -> Tensor:
        h = self.net
        return (h(x + self.dx) - 2 * h(x) + h(x - self.dx)) / self.dx**2

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = torch.linspace(0, 1, 50)[:, None]
        residual = self.a**2 * self.laplacian(x) - self.net(x) + 1
        walls = self.net(torch.tensor([[0.0], [1.0]]))
        loss = F.mse_loss(residual, torch.zeros_like(residual)) + 5 * mse(walls)
        self.log("loss", loss)
        return loss


class Rod(Problem):
    """-T'' = q with heat flows along the outward normal at both ends and one thermometer."""

    def __init__(self, flow: tuple[float, float], **options: Any) -> None:
        super().__init__(**options)
        self.flow = flow
        self.net = DNN(self.lb, self.ub, **self.net_options)
        self.register_buffer("x_f", lhs(50, self.lb, self.ub))

    def truth(self, x: Tensor) -> Tensor:
        return torch.sin(3 * x + 0.5)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.x_f.clone().requires_grad_()
        pde = -gradients(self.net(x), x, 2) - 9 * torch.sin(3 * x + 0.5)
        ends = torch.tensor([[0.0], [1.0]], requires_grad=True)
        T_n = gradients(self.net(ends), ends) * torch.tensor([[-1.0], [1.0]])
        middle = torch.tensor([[0.5]])
        self.loss_dict["pde"] = mse(pde)
        self.loss_dict["neumann"] = mse(T_n - torch.tensor(self.flow)[:, None])
        self.loss_dict["thermometer"] = mse(self.net(middle) - self.truth(middle))
        self.log_dict(self.loss_dict)
        return sum(self.loss_dict.values())


class Screened(Problem):
    """u - e^2 u'' = f with two waves in u, walls built in."""

    k = 20 * math.pi

    def __init__(self, siren: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.net = (Siren if siren else DNN)(self.lb, self.ub, **self.net_options)
        self.e = 1 / self.k

    def truth(self, x: Tensor) -> Tensor:
        return torch.sin(2 * math.pi * x) + torch.sin(self.k * x)

    def f(self, x: Tensor) -> Tensor:
        low = 1 + (2 * math.pi * self.e) ** 2
        return low * torch.sin(2 * math.pi * x) + 2 * torch.sin(self.k * x)

    def predict(self, x: Tensor) -> Tensor:
        return 4 * x * (1 - x) * self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = torch.linspace(0, 1, 200)[:, None].requires_grad_()
        u = self.predict(x)
        loss = mse(u - self.e**2 * gradients(u, x, 2) - self.f(x))
        self.log("residual", loss)
        return loss


class LayeredRock(Problem):
    """Conduction through two beds, 2 km deep, a network for each; T in C, q in W/m^2."""

    k, T0, T1, depth = (4.0, 1.0), 10.0, 90.0, 1000.0

    def __init__(self, raw: bool = False, **options: Any) -> None:
        self.ub = (2000.0,)
        super().__init__(**options)
        self.upper = DNN((0.0,), (self.depth,), **self.net_options)
        self.lower = DNN((self.depth,), self.ub, **self.net_options)
        self.dT, self.q = (1.0, 1.0) if raw else (80.0, 0.06)

    def truth(self, z: Tensor) -> Tensor:
        q = (self.T1 - self.T0) / (self.depth / self.k[0] + self.depth / self.k[1])
        middle = self.T0 + q * self.depth / self.k[0]
        below = middle + q * (z - self.depth) / self.k[1]
        return torch.where(z < self.depth, self.T0 + q * z / self.k[0], below)

    def layer(self, i: int, z: Tensor) -> Tensor:
        return 50.0 + 50.0 * (self.upper, self.lower)[i](z)

    def predict(self, x: Tensor) -> Tensor:
        return torch.where(x < self.depth, self.layer(0, x), self.layer(1, x))

    def flux(self, i: int, z: Tensor) -> Tensor:
        return self.k[i] * gradients(self.layer(i, z), z)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        pde = torch.zeros(())
        for i in range(2):
            z = (self.depth * (i + torch.rand(40, 1))).requires_grad_()
            pde = pde + mse(gradients(self.flux(i, z), z) * self.depth / self.q)
        zi = torch.tensor([[self.depth]], requires_grad=True)
        top = self.layer(0, torch.zeros(1, 1)) - self.T0
        bottom = self.layer(1, torch.full((1, 1), 2000.0)) - self.T1
        jump_T = self.layer(0, zi) - self.layer(1, zi)
        jump_q = self.flux(0, zi) - self.flux(1, zi)
        self.loss_dict = {
            "pde": pde,
            "dirichlet": mse(top / self.dT) + mse(bottom / self.dT),
            "jump_T": mse(jump_T / self.dT),
            "jump_q": mse(jump_q / self.q),
        }
        self.log_dict(self.loss_dict)
        return sum(self.loss_dict.values())
