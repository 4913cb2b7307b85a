"""Homework of the meteorologist: waves, pressure and things that swing."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from scipy.integrate import solve_ivp
from torch import Tensor

from tests.broken.thirteenth.common import grad, rand
from tests.broken.thirteenth.weather import Domain


class Rossby(Domain):
    """Linear wave on the beta plane, l = 1: (psi_xx - psi)_t + beta psi_x = 0."""

    lb, ub = (0.0, 0.0), (math.pi, 1.0)
    beta = 2.0

    def truth(self, xt: Tensor) -> Tensor:
        return torch.cos(xt[:, :1] + self.beta / 2 * xt[:, 1:])

    def vorticity(self) -> Tensor:
        xt = self.inside(120)
        g = grad(self.net(xt), xt)
        zeta_t = grad(grad(g[:, 1:], xt)[:, :1], xt)[:, :1] - g[:, 1:]
        return zeta_t + self.beta * g[:, :1]

    def constraints(self) -> dict[str, Callable[[], Tensor]]:
        return {
            "vorticity": self.vorticity,
            "initial": lambda: self.known(1, 0.0),
            "west": lambda: self.known(0, 0.0),
            "east": lambda: self.known(0, math.pi),
        }


class Geostrophic(Domain):
    """Pressure from observed winds: p_x = v, p_y = -u, and a barometer at the corner."""

    lb, ub = (0.0, 0.0), (1.0, 1.0)

    def __init__(self, barometer: bool = True, **kw: Any) -> None:
        super().__init__(**kw)
        self.barometer = barometer

    def truth(self, xy: Tensor) -> Tensor:
        x, y = xy[:, :1], xy[:, 1:]
        return 1.5 + 0.5 * torch.sin(3 * x) * torch.cos(2 * y)

    def wind(self) -> Tensor:
        xy = self.inside(150)
        x, y = xy.detach().split(1, 1)
        v = 1.5 * torch.cos(3 * x) * torch.cos(2 * y)
        u = torch.sin(3 * x) * torch.sin(2 * y)
        g = grad(self.net(xy), xy)
        return torch.cat([g[:, :1] - v, g[:, 1:] + u], 1)

    def constraints(self) -> dict[str, Callable[[], Tensor]]:
        constraints: dict[str, Callable[[], Tensor]] = {"wind": self.wind}
        if self.barometer:
            corner = torch.zeros(1, 2)
            constraints["barometer"] = lambda: self.net(corner) - self.truth(corner)
        return constraints


class Swing(Domain):
    """Pendulum released at 1 rad."""

    def __init__(self, span: float = 4.0, **kw: Any) -> None:
        self.ub = (span,)
        super().__init__(**kw)
        self.span = span

    def truth(self, t: Tensor) -> Tensor:
        solved = solve_ivp(
            lambda _, y: [y[1], -math.sin(y[0])],
            (0, self.span),
            [1.0, 0.0],
            t_eval=t[:, 0].double().clamp(0, self.span).numpy(),
            rtol=1e-8,
        )
        return torch.tensor(solved.y[:1].T, dtype=torch.float32)

    def newton(self) -> Tensor:
        t = self.inside(100)
        th = self.net(t)
        return grad(grad(th, t), t) + torch.sin(th)

    def release(self) -> Tensor:
        t = torch.zeros(1, 1, requires_grad=True)
        th = self.net(t)
        return torch.cat([th - 1, grad(th, t)], 1)

    def constraints(self) -> dict[str, Callable[[], Tensor]]:
        return {"newton": self.newton, "release": self.release}


class Lorenz(Domain):
    """Lorenz-63 in units of 10 with a hard start, s = start + t net."""

    n_out = 3
    start = (-0.8, 0.7, 2.7)

    def __init__(self, span: float = 0.4, **kw: Any) -> None:
        self.ub = (span,)
        super().__init__(**kw)
        self.span = span

    @staticmethod
    def tendency(s: Tensor) -> Tensor:
        x, y, z = s.split(1, 1)
        return torch.cat([10 * (y - x), 28 * x - y - 10 * x * z, 10 * x * y - 8 / 3 * z], 1)

    def predict(self, t: Tensor) -> Tensor:
        return torch.tensor([self.start]) + 5 * t * self.net(t)

    def truth(self, t: Tensor) -> Tensor:
        solved = solve_ivp(
            lambda _, s: self.tendency(torch.tensor(s)[None])[0].numpy(),
            (0, self.span),
            self.start,
            t_eval=t[:, 0].double().clamp(0, self.span).numpy(),
            rtol=1e-7,
        )
        return torch.tensor(solved.y.T, dtype=torch.float32)

    def equations(self) -> Tensor:
        t = rand(100, self.lb, self.ub).requires_grad_()
        s = self.predict(t)
        s_t = torch.cat([grad(s[:, [i]], t) for i in range(3)], 1)
        return 0.1 * (s_t - self.tendency(s))

    def constraints(self) -> dict[str, Callable[[], Tensor]]:
        return {"lorenz": self.equations}
