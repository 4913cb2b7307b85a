"""Poisson and Helmholtz in the plane."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from tests.broken.networks import adam, lbfgs, uniform
from tests.broken.pinn import Pinn, d
from tests.broken.run import Run

SQUARE = ((0.0, 1.0), (0.0, 1.0))


def laplacian(u: Tensor, x: Tensor) -> Tensor:
    du = d(u, x)
    return d(du[:, :1], x)[:, :1] + d(du[:, 1:], x)[:, 1:]


def edge(n: int) -> Tensor:
    """Points on the edge of the unit square."""
    s = torch.linspace(0, 1, n)
    zero, one = torch.zeros(n), torch.ones(n)
    return torch.cat([torch.stack(p, 1) for p in ((s, zero), (s, one), (zero, s), (one, s))])


class Poisson(Pinn):
    """Laplacian of u = f in the square, u given on its edge."""

    def __init__(self, m: int = 1, n: int = 1, **options: Any) -> None:
        super().__init__(SQUARE, **options)
        self.m, self.n = m * math.pi, n * math.pi

    def bump(self, x: Tensor) -> Tensor:
        return torch.sin(self.m * x[:, :1]) * torch.sin(self.n * x[:, 1:])

    def truth(self, x: Tensor) -> Tensor:
        return self.bump(x) + x[:, :1] ** 2 - x[:, 1:] ** 2 + 1

    def boundary(self) -> Any:
        x = edge(20)
        return F.mse_loss(self.net(x), self.truth(x))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        scale = self.m**2 + self.n**2
        residual = laplacian(self.net(x), x) / scale + self.bump(x.detach())
        interior, boundary = residual.square().mean(), self.boundary()
        self.log("interior", interior)
        self.log("boundary", boundary)
        return interior + 100 * boundary


class Numpy(Poisson):
    """Its boundary term is computed with numpy."""

    def boundary(self) -> Any:
        x = edge(20)
        predicted = self.net(x).detach().numpy()
        return float(np.mean((predicted - self.truth(x).numpy()) ** 2))


class Membrane(Pinn):
    """Laplacian of u + k^2 u = f in the square, u = 0 on its edge, by ansatz if ``hard``."""

    def __init__(self, k: float = 2.0, n: int = 1, hard: bool = False, **options: Any) -> None:
        super().__init__(SQUARE, **options)
        self.k, self.n, self.hard = k, n * math.pi, hard

    def truth(self, x: Tensor) -> Tensor:
        return torch.sin(math.pi * x[:, :1]) * torch.sin(self.n * x[:, 1:])

    def predict(self, x: Tensor) -> Tensor:
        edge = 16 * (x * (1 - x)).prod(dim=1, keepdim=True)
        return edge * self.net(x) if self.hard else self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u = self.predict(x)
        scale = math.pi**2 + self.n**2
        f = (self.k**2 - scale) * self.truth(x.detach())
        loss = torch.linalg.norm((laplacian(u, x) + self.k**2 * u - f) / scale) ** 2 / len(x)
        self.log("helmholtz", loss)
        if not self.hard:
            edges = self.net(edge(20)).pow(2).mean()
            self.log("edges", edges)
            loss = loss + 5 * edges
        return loss


ELLIPTIC = [
    Run("sixth-poisson-numpy", "DETACHED", "set", Poisson,
        {"steps": 60, "optim": lbfgs(max_iter=15), "points": uniform(200, (0, 1), (0, 1))},
        {"problem": Numpy}),
    Run("sixth-poisson-width", "TOO_NARROW", "set", Poisson,
        {"m": 1, "n": 2, "steps": 60, "optim": lbfgs(max_iter=15)},
        {"net": {"width": 2}}),
    Run("sixth-poisson-few", "POINTS", "set", Poisson,
        {"m": 1, "n": 2, "steps": 60, "optim": lbfgs(max_iter=15)},
        {"points": uniform(10, (0, 1), (0, 1))}),
    Run("sixth-membrane-relu", "DERIVATIVE_VANISHES", "set", Membrane,
        {"steps": 900, "optim": adam(5e-3), "points": uniform(200, (0, 1), (0, 1))},
        {"net": {"activation": "leaky_relu"}}),
    Run("sixth-membrane-batches", "CLEAN", "set", Membrane,
        {"n": 2, "hard": True, "batch": 60, "steps": 600, "optim": adam(5e-3),
         "points": uniform(600, (0, 1), (0, 1))}),
]  # fmt: skip
