"""Homework of the chemist: things that diffuse."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from tests.broken.thirteenth.chemist import Conditions, Reaction
from tests.broken.thirteenth.common import grad


class Chromatography(Reaction):
    """Peak in a column: c_t + v c_x = D c_xx."""

    lb, ub, n_points = (0.0, 0.0), (2.0, 1.0), 300
    v, diffusivity = 1.0, 0.01

    def __init__(self, **kw: Any) -> None:
        super().__init__(**kw)
        o = torch.zeros(60, 1)
        s = torch.linspace(0, 1, 60)[:, None]
        self.edge = torch.cat([torch.cat(e, 1) for e in [(2 * s, o), (o, s), (o + 2, s)]])

    def truth(self, xt: Tensor) -> Tensor:
        x, t = xt[:, :1], xt[:, 1:]
        s2 = 0.03 + 2 * self.diffusivity * t
        return torch.sqrt(0.03 / s2) * torch.exp(-((x - 0.5 - self.v * t) ** 2) / (2 * s2))

    def equation(self, xt: Tensor) -> Tensor:
        g = grad(self.net(xt), xt)
        return g[:, 1:] + self.v * g[:, :1] - self.diffusivity * grad(g[:, :1], xt)[:, :1]

    def conditions(self) -> Conditions:
        return [("edge", 10.0, lambda: self.net(self.edge) - self.truth(self.edge))]


class Membrane(Reaction):
    """Solvent that leaves a film: c_t = D c_xx, c = 0 at both faces."""

    lb, ub, n_points = (0.0, 0.0), (1.0, 1.0), 150

    def __init__(self, loaded: bool = True, **kw: Any) -> None:
        super().__init__(**kw)
        self.loaded = loaded
        self.t = torch.linspace(0, 1, 40)[:, None]

    def truth(self, xt: Tensor) -> Tensor:
        return torch.sin(math.pi * xt[:, :1]) * torch.exp(-xt[:, 1:])

    def equation(self, xt: Tensor) -> Tensor:
        g = grad(self.net(xt), xt)
        return g[:, 1:] - grad(g[:, :1], xt)[:, :1] / math.pi**2

    def conditions(self) -> Conditions:
        left = torch.cat([torch.zeros(40, 1), self.t], 1)
        right = torch.cat([torch.ones(40, 1), self.t], 1)
        start = torch.cat([self.t, torch.zeros(40, 1)], 1)
        conditions = [
            ("left", 1.0, lambda: self.net(left)),
            ("right", 1.0, lambda: self.net(right)),
        ]
        if self.loaded:
            conditions.append(("start", 1.0, lambda: self.net(start) - self.truth(start)))
        return conditions


class Sphere(Reaction):
    """Porous sphere, hard surface c = 1 + (1 - x^2) net: x c'' + 2 c' = x phi^2 c."""

    phi = 2.5

    def truth(self, x: Tensor) -> Tensor:
        x = x.clamp_min(1e-3)
        return torch.sinh(self.phi * x) / (x * math.sinh(self.phi))

    def predict(self, x: Tensor) -> Tensor:
        return 1 + (1 - x**2) * self.net(x)

    def equation(self, x: Tensor) -> Tensor:
        c = self.predict(x)
        c_x = grad(c, x)
        return x * grad(c_x, x) + 2 * c_x - x * self.phi**2 * c

    def conditions(self) -> Conditions:
        return []
