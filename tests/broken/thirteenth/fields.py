"""Homework of the electrical engineer: fields."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from tests.broken.thirteenth.common import Lesson, grad, rand


class Capacitor(Lesson):
    """Potential in a box, lid at v0 sin(pi x): Laplace; the net gives u in units of `unit`."""

    lb, ub = (0.0, 0.0), (1.0, 1.0)

    def __init__(self, v0: float = 5000.0, unit: float = 5000.0, n: int = 150, **kw: Any) -> None:
        super().__init__(**kw)
        self.v0, self.unit = v0, unit
        self.xy = rand(n, self.lb, self.ub)
        s, o = torch.linspace(0, 1, 25)[:, None], torch.zeros(25, 1)
        sides = [(s, o), (s, o + 1), (o, s), (o + 1, s)]
        self.walls = torch.cat([torch.cat(side, 1) for side in sides])

    def truth(self, xy: Tensor) -> Tensor:
        x, y = math.pi * xy[:, :1], math.pi * xy[:, 1:]
        return self.v0 * torch.sin(x) * torch.sinh(y) / math.sinh(math.pi)

    def predict(self, xy: Tensor) -> Tensor:
        return self.unit * self.net(xy)

    def training_step(self, batch: Any, i: int) -> Tensor:
        xy = self.xy.clone().requires_grad_(True)
        g = grad(self.net(xy), xy)
        lap = grad(g[:, :1], xy)[:, :1] + grad(g[:, 1:], xy)[:, 1:]
        mse_f = lap.pow(2).mean()
        mse_b = F.mse_loss(self.net(self.walls), self.truth(self.walls) / self.unit)
        self.log("mse_f", mse_f)
        self.log("mse_b", mse_b)
        return mse_f + 100 * mse_b


class Skin(Lesson):
    """Current density in a conductor, real and imaginary part: J'' = 2j J / delta^2."""

    n_out = 2
    delta = 0.4

    def truth(self, x: Tensor) -> Tensor:
        s = x / self.delta
        return torch.exp(-s) * torch.cat([torch.cos(s), -torch.sin(s)], 1)

    def training_step(self, batch: Any, i: int) -> Tensor:
        x = torch.linspace(0, 1, 60).unsqueeze(1).requires_grad_(True)
        re, im = self.net(x).split(1, dim=1)
        k = self.delta**2 / 2
        f_re = k * grad(grad(re, x), x) + im
        f_im = k * grad(grad(im, x), x) - re
        ends = torch.tensor([[0.0], [1.0]])
        loss_f = (f_re**2 + f_im**2).mean()
        loss_b = F.mse_loss(self.net(ends), self.truth(ends))
        self.log("loss_f", loss_f)
        self.log("loss_b", loss_b)
        return loss_f + 10 * loss_b


class Coax(Lesson):
    """Coaxial cable: r u'' + u' = 0, inner conductor at 1, outer at 0."""

    lb, ub = (1.0,), (5.0,)

    def truth(self, r: Tensor) -> Tensor:
        return 1 - torch.log(r) / math.log(5.0)

    def training_step(self, batch: Any, i: int) -> Tensor:
        r = rand(50, self.lb, self.ub).requires_grad_(True)
        u = self.net(r)
        u_r = grad(u, r)
        loss = torch.mean((r * grad(u_r, r) + u_r) ** 2)
        loss = loss + (self.net(torch.tensor([[1.0]])) - 1).pow(2).mean()
        loss = loss + self.net(torch.tensor([[5.0]])).pow(2).mean()
        self.log("loss", loss)
        return loss
