"""Beams, a pendulum and a membrane."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from scipy.integrate import solve_ivp
from scipy.stats import qmc
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.broken.fourth.base import Task, dense, slope


class MixedBeam(Task):
    """Simply supported beam with unit load by two networks: M'' = -1, w'' = -M / EI.

    `only`: names of the networks that the optimizer gets.
    """

    def __init__(self, *, stiffness: float = 0.1, only: str = "", **training: Any) -> None:
        super().__init__(**training)
        self.deflection = dense(1, 1, **self.options)
        self.moment = dense(1, 1, **self.options)
        self.stiffness, self.only = stiffness, only
        self.ends = torch.tensor([[0.0], [1.0]])

    def configure_optimizers(self) -> Any:
        chosen = [p for name, p in self.named_parameters() if self.only in name]
        return self.opt(chosen)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = torch.rand(32, 1, requires_grad=True)
        w, m = self.deflection(x), self.moment(x)
        equilibrium = slope(slope(m, x), x) + 1
        curvature = slope(slope(w, x), x) + m / self.stiffness
        supports = self.deflection(self.ends), self.moment(self.ends)
        terms = {
            "equilibrium": (equilibrium**2).mean(),
            "curvature": (curvature**2).mean(),
            "support_w": 20 * (supports[0] ** 2).mean(),
            "support_m": 20 * (supports[1] ** 2).mean(),
        }
        self.log_dict(terms)
        return sum(terms.values(), torch.zeros(()))

    def compare(self) -> tuple[Tensor, Tensor]:
        x = torch.linspace(0, 1, 101)[:, None]
        return self.deflection(x), (x**4 - 2 * x**3 + x) / 24 / self.stiffness


class Beam(Task):
    """Clamped-free beam w'''' = 24 with w(0) = w'(0) = 0 and a free end; w(1) = 3.

    `weights`: of the load and of the four end conditions.
    """

    def __init__(
        self, *, weights: tuple[float, ...] = (0.01, 10, 10, 1, 1), **training: Any
    ) -> None:
        super().__init__(**training)
        self.w = dense(1, 1, **self.options)
        self.weights = weights

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = torch.linspace(0, 1, 26).unsqueeze(-1).requires_grad_()
        d = [self.w(x)]
        for _ in range(4):
            d.append(slope(d[-1], x))
        terms = [
            (d[4] - 24).pow(2).mean(),
            d[0][0].pow(2).sum(),
            d[1][0].pow(2).sum(),
            d[2][-1].pow(2).sum(),
            d[3][-1].pow(2).sum(),
        ]
        loss = torch.zeros(())
        for name, weight, term in zip("qwabv", self.weights, terms, strict=True):
            if weight:
                self.log(f"loss_{name}", term)
                loss = loss + weight * term
        return loss

    def compare(self) -> tuple[Tensor, Tensor]:
        x = torch.linspace(0, 1, 101)[:, None]
        return self.w(x), x**4 - 4 * x**3 + 6 * x**2


class Pendulum(Task):
    """phi'' = -sin(phi) from rest at `angle`, as two equations.

    `ramp`: steps over which the times grow to `span`; `released`: with the initial angle.
    """

    def __init__(
        self,
        *,
        angle: float = 1.0,
        span: float = 4.0,
        ramp: int = 0,
        released: bool = True,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        self.angle, self.span, self.ramp, self.released = angle, span, ramp, released
        self.states = dense(1, 2, **self.options)

    def forward(self, t: Tensor) -> Tensor:
        return self.states(2 * t / self.span - 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        reach = min(1.0, 0.1 + self.global_step / self.ramp) if self.ramp else 1.0
        t = (reach * self.span * torch.rand(100, 1)).requires_grad_()
        phi, omega = self(t).split(1, dim=1)
        kinematics = nn.functional.mse_loss(slope(phi, t), omega)
        momentum = nn.functional.mse_loss(slope(omega, t), -torch.sin(phi))
        phi_0, omega_0 = self(torch.zeros(1, 1))[0]
        rest = omega_0**2
        self.log_dict({"kinematics": kinematics, "momentum": momentum, "rest": rest})
        loss = kinematics + momentum + 10 * rest
        if self.released:
            angle = (phi_0 - self.angle) ** 2
            self.log("angle", angle)
            loss = loss + 10 * angle
        return loss

    def compare(self) -> tuple[Tensor, Tensor]:
        def swing(_: float, y: Any) -> list[float]:
            return [y[1], -math.sin(y[0])]

        t = torch.linspace(0, self.span, 201).double()
        orbit = solve_ivp(swing, (0, self.span), [self.angle, 0], t_eval=t.numpy(), rtol=1e-9)
        return self(t.float()[:, None])[:, 0], torch.from_numpy(orbit.y[0])


class Membrane(Task):
    """-lap u = f on the unit square; the edges hold by construction; Sobol points in batches.

    `modes`: (wave numbers in x and y, amplitude) of the solution; `place`: moves the points;
    `flat`: the load comes without a column.
    """

    def __init__(
        self,
        *,
        modes: tuple[tuple[int, int, float], ...] = ((1, 1, 1.0), (2, 1, 0.5)),
        place: Callable[[Tensor], Tensor] | None = None,
        flat: bool = False,
        n: int = 256,
        batch: int = 64,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        self.modes, self.batch, self.flat = modes, batch, flat
        self.net = dense(2, 1, **self.options)
        points = torch.tensor(qmc.Sobol(2, seed=1).random(n)).float()
        self.points = place(points) if place else points

    def loader(self, steps: int) -> DataLoader[Any]:
        load = self.load(self.points)
        data = TensorDataset(self.points, load.flatten() if self.flat else load)
        return DataLoader(data, self.batch, shuffle=True)

    def shape(self, xy: Tensor) -> Tensor:
        waves = [
            a * torch.sin(k * math.pi * xy[:, :1]) * torch.sin(m * math.pi * xy[:, 1:])
            for k, m, a in self.modes
        ]
        return torch.stack(waves).sum(0)

    def load(self, xy: Tensor) -> Tensor:
        waves = [
            a
            * (k * k + m * m)
            * torch.sin(k * math.pi * xy[:, :1])
            * torch.sin(m * math.pi * xy[:, 1:])
            for k, m, a in self.modes
        ]
        return math.pi**2 * torch.stack(waves).sum(0)

    def forward(self, xy: Tensor) -> Tensor:
        x, y = xy[:, :1], xy[:, 1:]
        return 8 * x * (1 - x) * y * (1 - y) * self.net(2 * xy - 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        xy, f = batch
        xy.requires_grad_()
        u_x, u_y = slope(self(xy), xy).split(1, dim=1)
        lap = slope(u_x, xy)[:, :1] + slope(u_y, xy)[:, 1:]
        loss = 0.5 * ((lap + f) / 10).square().mean()
        self.log("membrane", loss)
        return loss

    def compare(self) -> tuple[Tensor, Tensor]:
        xy = torch.cartesian_prod(torch.linspace(0, 1, 40), torch.linspace(0, 1, 40))
        return self(xy), self.shape(xy)
