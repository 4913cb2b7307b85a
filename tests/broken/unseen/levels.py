"""Stationary equations on a line and a two-level atom, with torch.func or L-BFGS."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from scipy.stats import qmc
from torch import Tensor, nn
from torch.func import jvp

from tests.broken.unseen.tools import judged, line, relative, ticks


class Sine(nn.Module):
    def __init__(self, omega: float = 1.0) -> None:
        super().__init__()
        self.omega = omega

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.omega * x)


class Rabi(pl.LightningModule):
    """i c' = w/2 (0 1; 1 0) c for the two complex amplitudes of an atom, as four real outputs.

    Args:
        second: How long a unit of the clock is in the units of the input.
        known: What is inside while the initial state is predicted.
    """

    def __init__(
        self,
        w: float = 3.0,
        second: float = 1.0,
        scaled: bool = True,
        known: Callable[[], Any] = torch.enable_grad,
        lr: float = 3e-3,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.w, self.second, self.known, self.lr = w, second, known, lr
        self.factor = 1 / second if scaled else 1.0
        self.amplitudes = nn.Sequential(
            nn.Linear(1, 32), nn.GELU(), nn.Linear(32, 32), nn.GELU(), nn.Linear(32, 4)
        )
        times = qmc.LatinHypercube(1, seed=11).random(80)
        self.times = torch.from_numpy(2 * second * times).float()

    def psi(self, t: Tensor) -> Tensor:
        return self.amplitudes(self.factor * t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        c, c_t = jvp(self.psi, (self.times,), (torch.ones_like(self.times),))[:2]
        re_1, im_1, re_2, im_2 = c.T
        right = self.w / 2 * torch.stack([im_2, -re_2, im_1, -re_1], dim=1)
        schroedinger = 0.5 * ((self.second * c_t - right) ** 2).mean()
        with self.known():
            state = self.psi(torch.zeros(1, 1))
        prepared = nn.functional.mse_loss(state, torch.tensor([[1.0, 0.0, 0.0, 0.0]]))
        self.log("H", schroedinger)
        self.log("psi0", prepared)
        return schroedinger + prepared

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr, betas=(0.9, 0.99))

    def loader(self, steps: int) -> Any:
        return ticks(steps)

    def error(self) -> float:
        t = line(0, 2, 200)
        c, s = torch.cos(self.w * t / 2), torch.sin(self.w * t / 2)
        truth = torch.cat([c, 0 * t, 0 * t, -s], dim=1)
        return relative(self.psi(self.second * t), truth)


class Steady(pl.LightningModule):
    """u'' = f on [0, 1] with u = 2 + cos(pi x) + x: fluxes at both ends, and the value at 0.

    ``twice``: whether the second derivative keeps its graph. ``flux``: what comes in at 1.
    """

    def __init__(
        self,
        anchored: bool = True,
        twice: bool = True,
        flux: float = 1.0,
        lbfgs: bool = True,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.anchored, self.twice, self.flux, self.lbfgs = anchored, twice, flux, lbfgs
        self.first, self.second = nn.Linear(1, 20), nn.Linear(20, 20)
        self.third = nn.Linear(20, 1)
        self.x = line(0, 1, 32)

    def forward(self, x: Tensor) -> Tensor:
        return self.third(torch.tanh(self.second(torch.tanh(self.first(x)))))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.x.clone().requires_grad_()
        u = self(x)
        ones = torch.ones_like(u)
        ux = torch.autograd.grad(u, x, ones, create_graph=True)[0]
        uxx = torch.autograd.grad(ux, x, ones, create_graph=self.twice, retain_graph=True)[0]
        residual = (uxx + math.pi**2 * torch.cos(math.pi * x)) / math.pi**2
        terms = {
            "poisson": (residual * residual).mean(),
            "flux": (ux[0] - 1).pow(2).sum() + (ux[-1] - self.flux).pow(2).sum(),
        }
        if self.anchored:
            terms["anchor"] = (u[0] - 3).pow(2).sum()
        total = torch.stack([*terms.values()]).sum()
        self.log_dict({**terms, "total": total})
        return total

    def configure_optimizers(self) -> Any:
        if self.lbfgs:
            return torch.optim.LBFGS(self.parameters(), max_iter=5, line_search_fn="strong_wolfe")
        return torch.optim.Adam(self.parameters(), lr=5e-3)

    def loader(self, steps: int) -> Any:
        return ticks(steps)

    def error(self) -> float:
        x = line(0, 1, 200)
        return relative(self(x), 2 + torch.cos(math.pi * x) + x)


class Room(pl.LightningModule):
    """u'' / m^2 + 0.16 u = -0.84 sin(m x) on [0, 1], held at the ends by a factor."""

    def __init__(
        self, m: float = 12 * math.pi, sine: float = 8.0, width: int = 48, net: Any = None
    ) -> None:
        super().__init__()
        self.m = m
        first = nn.Linear(1, width)
        act: list[nn.Module] = [Sine(sine), Sine()] if sine else [nn.Tanh(), nn.Tanh()]
        if sine:
            nn.init.uniform_(first.weight, -2, 2)
        self.pressure = nn.Sequential(first, act[0], nn.Linear(width, width), act[1])
        self.pressure.append(nn.Linear(width, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x * (1 - x) * 4 * self.pressure(2 * x - 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = torch.rand(160, 1, requires_grad=True)
        p = self(x)
        for _ in range(2):
            (p,) = torch.autograd.grad(p.sum(), x, create_graph=True)
        r = p / self.m**2 + 0.16 * self(x) + 0.84 * torch.sin(self.m * x)
        loss = r.pow(2).mean()
        self.log("helmholtz", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)

    def loader(self, steps: int) -> Any:
        return ticks(steps)

    def error(self) -> float:
        x = line(0, 1, 500)
        return relative(self(x), torch.sin(self.m * x))


class Mode(pl.LightningModule):
    """u'' + e^2 u = 0, u(0) = u(1) = 0 with unknown e; ``normed``: the mean of u^2 is a half."""

    x: Tensor

    def __init__(self, normed: bool = True, guess: float = 2.6, net: Any = None) -> None:
        super().__init__()
        self.normed = normed
        self.e = nn.Parameter(torch.tensor(guess))
        self.mode = nn.Sequential(nn.Linear(1, 24), Sine(), nn.Linear(24, 24), Sine())
        self.mode.append(nn.Linear(24, 1))
        self.register_buffer("x", line(0, 1, 50))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.x.detach().requires_grad_()
        u = self.mode(x)
        u_xx = u
        for _ in range(2):
            (u_xx,) = torch.autograd.grad(u_xx, x, torch.ones_like(u), create_graph=True)
        loss = {
            "sturm": torch.mean((u_xx + self.e**2 * u) ** 2) / 100,
            "walls": 5 * (u[0] ** 2 + u[-1] ** 2).sum(),
        }
        if self.normed:
            loss["norm"] = 5 * (u.pow(2).mean() - 0.5) ** 2
            loss["sign"] = torch.relu(-u[25:26]).pow(2).mean()
        self.log_dict(loss)
        total = torch.stack([*loss.values()]).sum()
        self.log("loss", total)
        return total

    def configure_optimizers(self) -> Any:
        groups: list[dict[str, Any]] = [{"params": self.mode.parameters()}]
        return torch.optim.Adam([*groups, {"params": [self.e], "lr": 1e-2}], lr=4e-3)

    def loader(self, steps: int) -> Any:
        return ticks(steps)

    def error(self) -> float:
        x = line(0, 1, 200)
        return relative(self.mode(x), torch.sin(math.pi * x))


LEVELS = [
    judged("rabi-state", "DETACHED", Rabi, {"steps": 1000}, {"known": torch.no_grad}),
    judged(
        "rabi-nanoseconds",
        "INPUTS_NOT_SCALED",
        Rabi,
        {"steps": 1000, "second": 1e-4},
        {"scaled": False},
    ),
    judged("rabi-clean", "CLEAN", Rabi, {"steps": 1400, "w": 2.5, "lr": 4e-3}),
    judged("steady-graph", "DETACHED", Steady, {"steps": 1000, "lbfgs": False}, {"twice": False}),
    judged("steady-anchor", "NOT_UNIQUE", Steady, {"steps": 100}, {"anchored": False}),
    judged(
        "steady-flux", "CONTRADICTION", Steady, {"steps": 1000, "lbfgs": False}, {"flux": -12.0}
    ),
    judged("steady-clean", "CLEAN", Steady, {"steps": 120}),
    judged("room", "SPECTRAL_BIAS", Room, {"steps": 1500}, {"sine": 0.0}),
    judged("mode", "NOTHING_TO_FIND", Mode, {"steps": 1500}, {"normed": False}),
]
