"""Evolutions in space and time."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.broken.eleventh.common import DNN, ModifiedMLP, Problem, gradients, lhs, mse

PI = math.pi


def column(value: float, other: Tensor) -> Tensor:
    return torch.full_like(other, value)


class ShallowWater(Problem):
    """Seiche in a closed basin: h_t + u_x = 0, u_t + h_x = 0."""

    lb, ub, n_out = (0.0, 0.0), (1.0, 1.0), 2

    def __init__(self, grad: Any = gradients, **options: Any) -> None:
        super().__init__(**options)
        self.grad = grad
        self.net = DNN(self.lb, self.ub, 2, **self.net_options)
        self.register_buffer("X_f", lhs(300, self.lb, self.ub))
        self.x0, self.tb = torch.linspace(0, 1, 50)[:, None], torch.rand(50, 1)

    def truth(self, X: Tensor) -> Tensor:
        x, t = X[:, :1], X[:, 1:]
        h, u = torch.cos(PI * x) * torch.cos(PI * t), torch.sin(PI * x) * torch.sin(PI * t)
        return torch.cat([h, u], dim=1)

    def net_hu(self, x: Tensor, t: Tensor) -> tuple[Tensor, Tensor]:
        out = self.net(torch.cat([x, t], dim=1))
        return out[:, 0:1], out[:, 1:2]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, t = (c.clone().requires_grad_() for c in self.X_f.split(1, dim=1))
        h, u = self.net_hu(x, t)
        mass = self.grad(h, t) + self.grad(u, x)
        momentum = self.grad(u, t) + self.grad(h, x)
        h0, u0 = self.net_hu(self.x0, column(0, self.x0))
        left = self.net_hu(column(0, self.tb), self.tb)[1]
        right = self.net_hu(column(1, self.tb), self.tb)[1]
        self.loss_dict = {
            "mass": mse(mass),
            "momentum": mse(momentum),
            "initial": mse(h0 - torch.cos(PI * self.x0)) + mse(u0),
            "walls": mse(left) + mse(right),
        }
        self.log_dict(self.loss_dict)
        return (
            self.loss_dict["mass"]
            + self.loss_dict["momentum"]
            + 10 * (self.loss_dict["initial"] + self.loss_dict["walls"])
        )


class KleinGordon(Problem):
    """u_tt - u_xx + u = f, sampled in chunks of ten."""

    lb, ub = (0.0, 0.0), (1.0, 2.0)

    def __init__(self, seed: int | None = None, **options: Any) -> None:
        super().__init__(**options)
        self.net = DNN(self.lb, self.ub, **self.net_options)
        chunks = [lhs(10, self.lb, self.ub, seed=seed) for _ in range(25)]
        self.register_buffer("X_f", torch.cat(chunks))

    def truth(self, X: Tensor) -> Tensor:
        x, t = X[:, :1], X[:, 1:]
        return torch.sin(PI * x) * torch.cos(2.5 * t) + x

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, t = (c.clone().requires_grad_() for c in self.X_f.split(1, dim=1))
        u = self.net(torch.cat([x, t], dim=1))
        wave = torch.sin(PI * x) * torch.cos(2.5 * t)
        f = gradients(u, t, 2) - gradients(u, x, 2) + u
        f = f - (PI**2 - 2.5**2 + 1) * wave - x
        s = torch.linspace(0, 1, 40)[:, None]
        t0 = torch.zeros(40, 1, requires_grad=True)
        u0 = self.net(torch.cat([s, t0], dim=1))
        ends = torch.cat([torch.cat([column(e, s), 2 * s], dim=1) for e in (0, 1)])
        loss_ic = mse(u0 - torch.sin(PI * s) - s) + mse(gradients(u0, t0))
        loss_bc = mse(self.net(ends) - ends[:, :1])
        self.log("f", mse(f))
        self.log("ic", loss_ic)
        self.log("bc", loss_bc)
        return mse(f) + 20 * loss_ic + 20 * loss_bc


class Borehole(Problem):
    """Climate of a century goes down a borehole: T_t = kappa T_zz, z in m, t in years."""

    lb, ub = (0.0, 1900.0), (60.0, 2000.0)
    kappa, w = 32.0, 2 * PI / 80

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.net = DNN(self.lb, self.ub, **self.net_options)
        self.register_buffer("X_f", lhs(300, self.lb, self.ub))
        top = lhs(60, self.lb, self.ub)
        top[:, 0] = 0
        start = lhs(60, self.lb, self.ub)
        start[:, 1] = 1900
        bottom = lhs(60, self.lb, self.ub)
        bottom[:, 0] = 60
        self.register_buffer("X_u", torch.cat([top, start, bottom]))
        self.register_buffer("T_u", self.truth(self.X_u))

    def truth(self, X: Tensor) -> Tensor:
        s = X[:, :1] / math.sqrt(2 * self.kappa / self.w)
        return torch.exp(-s) * torch.cos(self.w * (X[:, 1:] - 1900) - s)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        z, t = (c.clone().requires_grad_() for c in self.X_f.split(1, dim=1))
        T = self.net(torch.cat([z, t], dim=1))
        f = (gradients(T, t) - self.kappa * gradients(T, z, 2)) / self.w
        loss_u, loss_f = F.mse_loss(self.net(self.X_u), self.T_u), mse(f)
        self.log_dict({"loss_u": loss_u, "loss_f": loss_f})
        return 5 * loss_u + loss_f


class Maxwell(Problem):
    """Standing wave in a cavity: E_t = -B_x, B_t = -E_x, E = 0 at the mirrors."""

    lb, ub, n_out = (0.0, 0.0), (1.0, 0.6), 2

    def __init__(self, terms: tuple[str, ...] = ("E0", "B0"), **options: Any) -> None:
        super().__init__(**options)
        self.terms = terms
        self.net = DNN(self.lb, self.ub, 2, **self.net_options)

    def truth(self, X: Tensor) -> Tensor:
        x, t = 2 * PI * X[:, :1], 2 * PI * X[:, 1:]
        return torch.cat([torch.sin(x) * torch.cos(t), -torch.cos(x) * torch.sin(t)], dim=1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, t = torch.rand(200, 1).requires_grad_(), (0.6 * torch.rand(200, 1)).requires_grad_()
        E, B = self.net(torch.cat([x, t], dim=1)).split(1, dim=1)
        faraday, ampere = gradients(B, t) + gradients(E, x), gradients(E, t) + gradients(B, x)
        s = torch.rand(50, 1)
        E0, B0 = self.net(torch.cat([s, column(0, s)], dim=1)).split(1, dim=1)
        mirrors = torch.cat([torch.cat([column(e, s), 0.6 * s], dim=1) for e in (0, 1)])
        initial = {"E0": E0 - torch.sin(2 * PI * s), "B0": B0}
        loss = {"faraday": mse(faraday) / 10, "ampere": mse(ampere) / 10}
        loss["mirrors"] = 3 * mse(self.net(mirrors)[:, 0])
        loss |= {name: 5 * mse(initial[name]) for name in self.terms}
        self.log_dict(loss)
        return sum(loss.values())


class Consolidation(Problem):
    """Terzaghi: pore pressure p_t = c p_zz in Pa, drained at the top, tight below."""

    lb, ub = (0.0, 0.0), (1.0, 1.0)
    p0, c = 2e4, 0.5

    def __init__(self, scale: float = 2e4, **options: Any) -> None:
        super().__init__(**options)
        self.scale = scale
        self.net = DNN(self.lb, self.ub, **self.net_options)

    def truth(self, X: Tensor) -> Tensor:
        decay = torch.exp(-self.c * PI**2 / 4 * X[:, 1:])
        return self.p0 * torch.sin(PI / 2 * X[:, :1]) * decay

    def predict(self, x: Tensor) -> Tensor:
        return self.scale * self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        z, t = torch.rand(200, 1).requires_grad_(), torch.rand(200, 1).requires_grad_()
        p = self.predict(torch.cat([z, t], dim=1))
        f = (gradients(p, t) - self.c * gradients(p, z, 2)) / self.p0
        s = torch.rand(50, 1)
        base = torch.ones(50, 1, requires_grad=True)
        tight = gradients(self.predict(torch.cat([base, s], dim=1)), base) / self.p0
        drained = self.predict(torch.cat([column(0, s), s], dim=1)) / self.p0
        X0 = torch.cat([s, column(0, s)], dim=1)
        start = (self.predict(X0) - self.truth(X0)) / self.p0
        loss = f.pow(2).mean() + tight.pow(2).mean()
        loss = loss + 5 * drained.pow(2).mean() + 5 * start.pow(2).mean()
        self.log("loss", loss)
        return loss


class Periodic(Problem):
    """u_t + u_x = nu u_xx on a circle, periodic by its inputs, a gated network."""

    lb, ub, nu = (0.0, 0.0), (2 * PI, 1.5), 0.1

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.net = ModifiedMLP(3, **self.net_options)

    def truth(self, X: Tensor) -> Tensor:
        x, t = X[:, :1] - X[:, 1:], X[:, 1:]
        return torch.exp(-self.nu * t) * torch.sin(x) + 0.5 * torch.exp(
            -4 * self.nu * t
        ) * torch.cos(2 * x)

    def predict(self, x: Tensor) -> Tensor:
        return self.net(torch.cat([torch.sin(x[:, :1]), torch.cos(x[:, :1]), x[:, 1:]], dim=1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        X = lhs(200, self.lb, self.ub)
        x, t = (c.requires_grad_() for c in X.split(1, dim=1))
        u = self.predict(torch.cat([x, t], dim=1))
        u_x = gradients(u, x)
        loss_f = mse(gradients(u, t) + u_x - self.nu * gradients(u_x, x))
        X0 = lhs(60, self.lb, (2 * PI, 1e-9))
        loss_0 = F.mse_loss(self.predict(X0), self.truth(X0))
        self.log_dict({"pde": loss_f, "ic": loss_0})
        return loss_f + 10 * loss_0
