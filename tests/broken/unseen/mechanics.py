"""A swing with two networks, a beam of fourth order, a string, and a switch over a long time."""

from __future__ import annotations

from itertools import chain
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
import torch.nn as nn
from scipy.integrate import solve_ivp
from torch import Tensor

from tests.broken.unseen.tools import judged, line, relative, ticks


def grad(y: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(y, x, grad_outputs=torch.ones_like(y), create_graph=True)[0]


def small_net(width: int = 32) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
    )


class Swing(pl.LightningModule):
    """A pendulum, angle' = speed, speed' = -g sin(angle), with a network for each.

    Args:
        plain_list: The networks are kept in a list that Lightning does not look into.
        frozen: The network of the speed keeps what it has.
    """

    def __init__(
        self,
        g: float = 4.0,
        span: float = 2.0,
        angle: float = 1.0,
        plain_list: bool = False,
        frozen: bool = False,
        lr: float = 3e-3,
        width: int = 32,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.g, self.span, self.angle, self.lr = g, span, angle, lr
        self.theta_net, speed = small_net(width), small_net(width)
        self.speed_nets: Any = [speed] if plain_list else nn.ModuleList([speed])
        speed.requires_grad_(not frozen)

    def forward(self, t: Tensor) -> tuple[Tensor, Tensor]:
        s = 2 * t / self.span - 1
        near = torch.tanh(t)
        return self.angle + near * self.theta_net(s), near * self.speed_nets[0](s)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = (self.span * torch.rand(100, 1)).requires_grad_()
        theta, omega = self(t)
        kinematics = torch.mean((grad(theta, t) - omega) ** 2)
        newton = torch.mean((grad(omega, t) + self.g * torch.sin(theta)) ** 2)
        self.log_dict({"kinematics": kinematics, "newton": newton})
        return kinematics + newton

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(filter(lambda p: p.requires_grad, self.parameters()), lr=self.lr)

    def loader(self, steps: int) -> Any:
        return ticks(steps)

    def error(self) -> float:
        t = np.linspace(0, self.span, 300)
        solved = solve_ivp(
            lambda _, y: [y[1], -self.g * np.sin(y[0])],
            (0, self.span),
            [self.angle, 0.0],
            t_eval=t,
            rtol=1e-8,
        )
        found = torch.cat(self(torch.tensor(t).float()[:, None]), dim=1)
        return relative(found, torch.tensor(solved.y.T))


class HalfParabola(nn.Module):
    """The square of what is positive: it has no third derivative."""

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) ** 2


class Beam(pl.LightningModule):
    """stiffness w'''' = load sin(pi x), simply supported; w = deflection sin(pi x).

    ``size`` multiplies the output, ``w_ends`` and ``w_load`` the terms of the loss.
    """

    def __init__(
        self,
        stiffness: float = 1.0,
        deflection: float = 1.0,
        size: float = 1.0,
        acts: tuple[type[nn.Module], type[nn.Module]] = (nn.Tanh, nn.Tanh),
        w_ends: float = 1.0,
        w_load: float = 1.0,
        lr: float = 2e-3,
        clip: float = 0.0,
        points: int = 30,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.stiffness, self.deflection, self.size = stiffness, deflection, size
        self.w_ends, self.w_load, self.lr, self.clip = w_ends, w_load, lr, clip
        self.fc1, self.fc2, self.fc3 = nn.Linear(1, 20), nn.Linear(20, 20), nn.Linear(20, 1)
        self.act1, self.act2 = (act() for act in acts)
        self.x = line(0, 1, points)

    def forward(self, x: Tensor) -> Tensor:
        return self.size * self.fc3(self.act2(self.fc2(self.act1(self.fc1(2 * x - 1)))))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.x.clone().requires_grad_(True)
        w = self(x)
        w_xx = grad(grad(w, x), x)
        w_xxxx = grad(grad(w_xx, x), x)
        load = self.stiffness * self.deflection * torch.sin(torch.pi * x)
        beam = (self.stiffness * w_xxxx / torch.pi**4 - load).square().mean()
        ends = torch.cat([w[[0, -1]], w_xx[[0, -1]] / torch.pi**2]) / self.deflection
        supports = ends.square().sum()
        self.log("loss/beam", beam)
        self.log("loss/supports", supports)
        return self.w_load * beam + self.w_ends * supports

    def configure_optimizers(self) -> Any:
        layers = (self.fc1, self.fc2, self.fc3)
        weights = chain.from_iterable(layer.parameters() for layer in layers)
        return torch.optim.Adam(weights, lr=self.lr)

    def loader(self, steps: int) -> Any:
        return ticks(steps)

    def error(self) -> float:
        x = line(0, 1, 200)
        return relative(self(x), self.deflection * torch.sin(torch.pi * x))


class String(pl.LightningModule):
    """u_tt = u_xx on a string of length 1 that is fixed by a factor x (1 - x).

    ``plucked``: whether its shape sin(pi x) at the start enters; ``released``: whether its speed
    there does, pi ``struck`` sin(pi x).
    """

    def __init__(
        self,
        released: bool = True,
        plucked: bool = True,
        struck: float = 0.0,
        lr: float = 3e-3,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.released, self.plucked, self.lr = released, plucked, lr
        self.struck = struck
        self.body = nn.Sequential(
            nn.Linear(2, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh(), nn.Linear(40, 1)
        )

    def u(self, t: Tensor, x: Tensor) -> Tensor:
        return 4 * x * (1 - x) * self.body(torch.cat([t, x], 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t, x = torch.rand(2, 150, 1).requires_grad_().unbind(0)
        u = self.u(t, x)
        wave = (grad(grad(u, t), t) - grad(grad(u, x), x)).pow(2).mean() / 10
        x_0 = line(0, 1, 30)
        t_0 = torch.zeros(30, 1, requires_grad=True)
        u_0 = self.u(t_0, x_0)
        losses = {"wave": wave}
        if self.plucked:
            losses["shape"] = 10 * (u_0 - torch.sin(torch.pi * x_0)).pow(2).mean()
        if self.released:
            speed = self.struck * torch.pi * torch.sin(torch.pi * x_0)
            losses["velocity"] = (grad(u_0, t_0) - speed).pow(2).mean()
        self.log_dict(losses)
        return torch.stack(list(losses.values())).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def loader(self, steps: int) -> Any:
        return ticks(steps)

    def error(self) -> float:
        t, x = torch.cartesian_prod(torch.linspace(0, 1, 40), torch.linspace(0, 1, 40)).split(1, 1)
        swing = torch.cos(torch.pi * t) + self.struck * torch.sin(torch.pi * t)
        return relative(self.u(t, x), swing * torch.sin(torch.pi * x))


MECHANICS = [
    judged("swing-list", "NOT_TRAINED", Swing, {"steps": 1500}, {"plain_list": True}),
    judged("swing-frozen", "NOT_TRAINED", Swing, {"steps": 1500, "g": 3.0}, {"frozen": True}),
    judged("swing-narrow", "TOO_NARROW", Swing, {"steps": 2000, "span": 4.0}, {"width": 1}),
    judged("swing-clean", "CLEAN", Swing, {"steps": 1600, "angle": 1.5, "span": 2.5}),
    judged("swing-early", "EARLY", Swing, {"steps": 60, "lr": 1e-3}),
    judged(
        "beam-parabolas",
        "DERIVATIVE_VANISHES",
        Beam,
        {"steps": 700, "acts": (nn.Tanh, nn.Identity)},
        {"acts": (HalfParabola, nn.Identity)},
    ),
    judged(
        "beam-in-metres",
        "OUTPUTS_NOT_SCALED",
        Beam,
        {"steps": 700, "deflection": 1e-4, "stiffness": 1e4, "size": 1e-4},
        {"size": 1.0},
    ),
    judged(
        "beam-newtons",
        "IMBALANCE",
        Beam,
        {"steps": 700, "stiffness": 2000.0, "w_load": 2.5e-7},
        {"w_load": 1.0},
    ),
    judged("beam-clean", "CLEAN", Beam, {"steps": 1500, "lr": 1.5e-3, "points": 25}),
    judged(
        "string-speed", "NOT_UNIQUE", String, {"steps": 1000, "struck": 1.0}, {"released": False}
    ),
    judged("string-shape", "NOTHING_TO_FIND", String, {"steps": 1000}, {"plucked": False}),
]
