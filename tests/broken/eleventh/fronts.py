"""Waves that travel, and problems in the plane."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.broken.eleventh.common import DNN, Problem, gradients, lhs, mse

PI = math.pi


class KdV(Problem):
    """A soliton: u_t + 6 u u_x + u_xxx = 0."""

    lb, ub, c = (-7.0, 0.0), (7.0, 3.0), 2.0

    def __init__(self, n_f: int = 300, **options: Any) -> None:
        super().__init__(**options)
        self.net = DNN(self.lb, self.ub, **self.net_options)
        self.register_buffer("X_f", lhs(n_f, self.lb, self.ub))
        x, t = torch.linspace(-7, 7, 80)[:, None], torch.linspace(0, 3, 20)[:, None]
        start = torch.cat([x, torch.zeros_like(x)], dim=1)
        ends = [torch.cat([torch.full_like(t, e), t], dim=1) for e in (-7.0, 7.0)]
        self.register_buffer("X_u", torch.cat([start, *ends]))
        self.register_buffer("u", self.truth(self.X_u))

    def truth(self, X: Tensor) -> Tensor:
        s = X[:, :1] + 3 - self.c * X[:, 1:]
        return self.c / 2 / torch.cosh(math.sqrt(self.c) / 2 * s) ** 2

    def net_f(self, x: Tensor, t: Tensor) -> Tensor:
        u = self.net(torch.cat([x, t], dim=1))
        u_x = gradients(u, x)
        return gradients(u, t) + 6 * u * u_x + gradients(u_x, x, 2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, t = (c.clone().requires_grad_() for c in self.X_f.split(1, dim=1))
        loss_f, loss_u = mse(self.net_f(x, t)), mse(self.net(self.X_u) - self.u)
        self.log("loss_f", loss_f)
        self.log("loss_u", loss_u)
        return loss_f + 10 * loss_u


class Fisher(Problem):
    """u_t = u_xx + u (1 - u), Ablowitz and Zeppetella's front."""

    lb, ub = (-6.0, 0.0), (12.0, 4.0)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.net = DNN(self.lb, self.ub, **self.net_options)
        self.register_buffer("X_f", lhs(300, self.lb, self.ub))
        x, t = torch.linspace(-6, 12, 80)[:, None], torch.linspace(0, 4, 30)[:, None]
        start = torch.cat([x, torch.zeros_like(x)], dim=1)
        ends = [torch.cat([torch.full_like(t, e), t], dim=1) for e in (-6.0, 12.0)]
        self.register_buffer("X_u", torch.cat([start, *ends]))
        self.register_buffer("u", self.truth(self.X_u))

    def truth(self, X: Tensor) -> Tensor:
        s = (X[:, :1] - 5 / math.sqrt(6) * X[:, 1:]) / math.sqrt(6)
        return (1 + torch.exp(s)) ** -2

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, t = (c.clone().requires_grad_() for c in self.X_f.split(1, dim=1))
        u = self.net(torch.cat([x, t], dim=1))
        f = gradients(u, t) - gradients(u, x, 2) - u * (1 - u)
        self.loss_dict = {"f": mse(f), "u": F.mse_loss(self.net(self.X_u), self.u)}
        self.log_dict(self.loss_dict)
        return self.loss_dict["f"] + self.loss_dict["u"]


class Channel(Problem):
    """Long waves u_tt = u_xx between walls, given height and rate at the start."""

    lb, ub = (0.0, 0.0), (1.0, 1.0)

    def __init__(self, rate: bool = True, **options: Any) -> None:
        super().__init__(**options)
        self.rate = rate
        self.net = DNN(self.lb, self.ub, **self.net_options)

    def truth(self, X: Tensor) -> Tensor:
        x, t = PI * X[:, :1], PI * X[:, 1:]
        return torch.sin(x) * (torch.cos(t) + 1.5 * torch.sin(t))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, t = torch.rand(200, 1).requires_grad_(), torch.rand(200, 1).requires_grad_()
        u = self.net(torch.cat([x, t], dim=1))
        loss = mse(gradients(u, t, 2) - gradients(u, x, 2)) / PI**2
        s, t0 = torch.rand(50, 1), torch.zeros(50, 1, requires_grad=True)
        u0 = self.net(torch.cat([s, t0], dim=1))
        loss = loss + 5 * mse(u0 - torch.sin(PI * s))
        if self.rate:
            loss = loss + mse(gradients(u0, t0) - 1.5 * PI * torch.sin(PI * s))
        walls = torch.cat([torch.cat([torch.full_like(s, e), s], dim=1) for e in (0.0, 1.0)])
        loss = loss + 5 * mse(self.net(walls))
        self.log("train_loss", loss)
        return loss


def rim(n: int) -> Tensor:
    """n points on each side of the unit square."""
    s = torch.linspace(0, 1, n)[:, None]
    o, i = torch.zeros_like(s), torch.ones_like(s)
    return torch.cat([torch.cat(p, dim=1) for p in ((s, o), (s, i), (o, s), (i, s))])


class Darcy(Problem):
    """-div(K grad h) = f, K = exp(x - y), h given on the rim."""

    lb, ub = (0.0, 0.0), (1.0, 1.0)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.net = DNN(self.lb, self.ub, **self.net_options)
        self.register_buffer("X_f", lhs(250, self.lb, self.ub))
        self.register_buffer("X_b", rim(30))
        X = self.X_f.clone().requires_grad_()
        self.register_buffer("f", self.operator(self.truth(X), X).detach())

    def truth(self, X: Tensor) -> Tensor:
        x, y = X[:, :1], X[:, 1:]
        return torch.sin(2 * PI * x) * torch.cos(2 * PI * y) + 0.5 * torch.sin(3 * PI * y)

    def operator(self, h: Tensor, X: Tensor) -> Tensor:
        flow = torch.exp(X[:, :1] - X[:, 1:]) * gradients(h, X)
        return -sum(gradients(flow[:, i : i + 1], X)[:, i : i + 1] for i in range(2))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        X = self.X_f.clone().requires_grad_()
        pde = F.mse_loss(self.operator(self.net(X), X), self.f) / 50**2
        rim_loss = F.mse_loss(self.net(self.X_b), self.truth(self.X_b))
        self.log_dict({"pde": pde, "rim": rim_loss})
        return pde + rim_loss


class Stokes(Problem):
    """Creeping flow through a channel with u, v, p; p in units of its drop."""

    lb, ub, n_out = (0.0, 0.0), (1.0, 1.0), 3

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.net = DNN(self.lb, self.ub, 3, **self.net_options)

    def truth(self, X: Tensor) -> Tensor:
        x, y = X[:, :1], X[:, 1:]
        return torch.cat([4 * y * (1 - y), 0 * x, 1 - x], dim=1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = torch.rand(120, 1).requires_grad_(), torch.rand(120, 1).requires_grad_()
        out = self.net(torch.cat([x, y], dim=1))
        u, v, p = out[:, 0:1], out[:, 1:2], out[:, 2:3]
        u_x, u_y, v_x, v_y = (gradients(w, z) for w in (u, v) for z in (x, y))
        f_u = gradients(p, x) - (gradients(u_x, x) + gradients(u_y, y)) / 8
        f_v = gradients(p, y) - (gradients(v_x, x) + gradients(v_y, y)) / 8
        s = torch.rand(40, 1)
        walls = self.net(torch.cat([torch.cat([s, 0 * s], 1), torch.cat([s, 0 * s + 1], 1)]))
        inlet, outlet = (self.net(torch.cat([0 * s + e, s], dim=1)) for e in (0, 1))
        loss = mse(f_u) + mse(f_v) + mse(u_x + v_y) + mse(walls[:, :2]) + mse(outlet[:, 1:])
        loss = loss + mse(inlet[:, 0:1] - 4 * s * (1 - s)) + mse(inlet[:, 1:2])
        self.log("loss", loss)
        return loss


class Helmholtz(Problem):
    """u_xx + u_yy + u = q, zero on the rim."""

    lb, ub = (0.0, 0.0), (1.0, 1.0)

    def __init__(self, w_b: float = 500.0, m: int = 3, **options: Any) -> None:
        super().__init__(**options)
        self.w_b, self.m = w_b, m
        self.net = DNN(self.lb, self.ub, **self.net_options)
        self.register_buffer("X_f", lhs(300, self.lb, self.ub))
        self.register_buffer("X_b", rim(30))

    def truth(self, X: Tensor) -> Tensor:
        return torch.sin(PI * X[:, :1]) * torch.sin(self.m * PI * X[:, 1:])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = (c.clone().requires_grad_() for c in self.X_f.split(1, dim=1))
        X = torch.cat([x, y], dim=1)
        u = self.net(X)
        q = (1 - PI**2 - (self.m * PI) ** 2) * self.truth(X)
        loss_f = mse(gradients(u, x, 2) + gradients(u, y, 2) + u - q)
        loss_b = mse(self.net(self.X_b))
        self.log("loss_f", loss_f)
        self.log("loss_b", loss_b)
        return loss_f + self.w_b * loss_b


class Growth(Problem):
    """Logistic growth u' = r u (1 - u) for all rates at once; inputs t and r."""

    lb, ub = (0.0, 0.5), (2.0, 3.0)

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.net = DNN(self.lb, self.ub, **self.net_options)

    def truth(self, X: Tensor) -> Tensor:
        return 1 / (1 + 4 * torch.exp(-X[:, :1] * X[:, 1:]))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t, r = (2 * torch.rand(150, 1)).requires_grad_(), 0.5 + 2.5 * torch.rand(150, 1)
        u = self.net(torch.cat([t, r], dim=1))
        u0 = self.net(torch.cat([0 * r, r], dim=1))
        loss = mse(gradients(u, t) - r * u * (1 - u)) + 5 * mse(u0 - 0.2)
        self.log("loss", loss)
        return loss
