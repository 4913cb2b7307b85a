"""Coffee that cools, a town that grows, an epidemic: inverse problems and units."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from scipy.integrate import solve_ivp
from torch import Tensor, nn
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from tests.broken.run import Run
from tests.broken.third.tools import NO_NET, counter, diff, rel_l2


class Coffee(pl.LightningModule):
    """T' = r (T_env - T) with r unknown; temperatures in units of `t_scale` from the room's."""

    def __init__(
        self,
        net: Mapping[str, Any] = NO_NET,
        minutes: bool = True,
        r_trained: bool = True,
        lr: float = 3e-3,
        unit: float = 75.0,
        optim: Any = torch.optim.Adam,
        room: float = 0.0,
    ):
        super().__init__()
        width = net.get("width", 32)
        self.net = nn.Sequential(
            nn.Linear(1, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
        )
        self.r = nn.Parameter(torch.tensor([1.0]))
        self.r_trained, self.lr, self.unit, self.optim = r_trained, lr, unit, optim
        self.end = 1.0 if minutes else 1000.0
        self.t_data = torch.linspace(0, 0.6, 10)[:, None] * self.end
        noise = 0.3 * torch.randn(10, 1)
        self.T_data = (self.temperature(self.t_data) + room + noise) / unit
        self.t_phys = self.end * torch.linspace(0, 1, 60)[:, None]

    def temperature(self, t: Tensor) -> Tensor:
        return 75.0 * torch.exp(-3.0 * t / self.end)

    def training_step(self, batch, batch_idx):
        data = mse_loss(self.net(self.t_data), self.T_data)
        t = self.t_phys.clone().requires_grad_(True)
        temp = self.net(t)
        cooling = mse_loss(self.end * diff(temp, t), -self.r * temp)
        loss = data + 0.1 * cooling
        self.log("mse_data", data)
        self.log("mse_ode", cooling)
        self.log("train_loss", loss)
        return loss

    def configure_optimizers(self):
        params = list(self.net.parameters()) + ([self.r] if self.r_trained else [])
        return self.optim(params, lr=self.lr)

    def loader(self, steps):
        return counter(steps)

    @torch.no_grad()
    def error(self):
        t = torch.linspace(0, 1, 200)[:, None] * self.end
        u = rel_l2(self.unit * self.net(t), self.temperature(t))
        return max(u, rel_l2(self.r, torch.tensor([3.0])))


class Town(pl.LightningModule):
    """P' = g P (1 - P/C) between two years, from the census of the first; P in `persons`."""

    def __init__(
        self,
        net: Mapping[str, Any] = NO_NET,
        years: bool = False,
        persons: float = 1.0,
        growth: float = 3.0,
        lr: float = 5e-3,
        causal: float = 0.0,
        p0: float = 0.3,
        momentum: float | None = None,
    ):
        super().__init__()
        self.first = nn.Linear(1, 40)
        self.second = nn.Linear(40, 40)
        self.last = nn.Linear(40, 1)
        self.years, self.persons, self.growth = years, persons, growth
        self.lr, self.causal, self.momentum, self.p0 = lr, causal, momentum, p0
        s = torch.linspace(0, 1, 101).reshape(-1, 1)
        self.register_buffer("year", 1900 + 100 * s if years else s)
        self.per = 100.0 if years else 1.0

    def forward(self, t):
        return self.last(torch.tanh(self.second(torch.tanh(self.first(t)))))

    def training_step(self, batch, batch_idx):
        t = self.year.clone().requires_grad_()
        P = self(t)
        ode = self.per * diff(P, t) - self.growth * P * (1 - P / self.persons)
        start = P[0] - self.p0 * self.persons
        sq = (ode / self.growth).pow(2)
        if self.causal:
            before = torch.cumsum(sq.detach(), 0) - sq.detach()
            sq = torch.exp(-self.causal * before) * sq
        loss_ode, loss_start = sq.sum() / 101, 10 * (start**2).sum()
        self.log_dict({"ode": loss_ode, "census": loss_start}, prog_bar=True)
        return loss_ode + loss_start

    def configure_optimizers(self):
        if self.momentum is not None:
            return torch.optim.SGD(self.parameters(), self.lr, momentum=self.momentum)
        return torch.optim.NAdam(self.parameters(), lr=self.lr)

    def loader(self, steps):
        return counter(steps)

    @torch.no_grad()
    def error(self):
        s = torch.linspace(0, 1, 101).reshape(-1, 1)
        true = self.persons / (1 + (1 / self.p0 - 1) * torch.exp(-self.growth * s))
        return rel_l2(self(self.year), true)


def epidemic(t: np.ndarray, beta: float, gamma: float) -> np.ndarray:
    def rhs(_, y):
        return [-beta * y[0] * y[1], beta * y[0] * y[1] - gamma * y[1], gamma * y[1]]

    return solve_ivp(rhs, (0, 1), [0.9, 0.1, 0.0], t_eval=t, rtol=1e-8).y.T


class Epidemic(pl.LightningModule):
    """S, I, R from daily counts in mini-batches with unknown rates; time over 60 days."""

    def __init__(
        self,
        net: Mapping[str, Any] = NO_NET,
        people: float = 1.0,
        day: Any = None,
        trained: str = "",
        known_beta: float | None = None,
        lr: float = 3e-3,
    ):
        super().__init__()
        self.mlp = nn.Sequential(
            nn.Linear(1, 32), nn.SiLU(), nn.Linear(32, 32), nn.SiLU(), nn.Linear(32, 3)
        )
        self.beta = nn.Parameter(torch.tensor(4.0 if known_beta is None else known_beta))
        self.beta.requires_grad_(known_beta is None)
        self.gamma = nn.Parameter(torch.tensor(4.0))
        self.people, self.trained, self.lr = people, trained, lr
        t = np.linspace(0, 1, 60)
        self.days = torch.tensor(t[:, None], dtype=torch.float32)
        counts = people * torch.tensor(epidemic(t, 8.0, 2.0), dtype=torch.float32)
        rows = day or list(range(60))
        self.table = TensorDataset(self.days[rows], counts[rows])

    def training_step(self, batch, batch_idx):
        t, counts = batch
        data = mse_loss(self.mlp(t), counts)
        tc = torch.rand(60, 1).requires_grad_()
        y = self.mlp(tc)
        S, sick, R = y.split(1, dim=1)
        new, well = self.beta * S * sick / self.people, self.gamma * sick
        physics = ((diff(S, tc) + new) ** 2 + (diff(sick, tc) - new + well) ** 2).mean()
        physics = physics + ((diff(R, tc) - well) ** 2).mean()
        self.log("data/mse", data)
        self.log("ode/mse", physics)
        return data + 0.01 * physics

    def configure_optimizers(self):
        chosen = [p for n, p in self.named_parameters() if n.startswith(self.trained)]
        return torch.optim.Adam(chosen, lr=self.lr)

    def loader(self, steps):
        return DataLoader(self.table, batch_size=20, shuffle=True)

    @torch.no_grad()
    def error(self):
        truth = self.people * torch.tensor(epidemic(np.linspace(0, 1, 60), 8.0, 2.0))
        rates = torch.stack([self.beta, self.gamma])
        u = rel_l2(self.mlp(self.days), truth)
        return max(u, rel_l2(rates, torch.tensor([8.0, 2.0])) if math.isfinite(u) else u)


SGD = partial(torch.optim.SGD, momentum=0.9)
CUP: dict[str, Any] = {"steps": 1000, "lr": 5e-3}
SIR: dict[str, Any] = {"steps": 1500, "lr": 5e-3}

COOLING = [
    Run("third-coffee-rate-forgotten", "NOT_TRAINED", "set", Coffee, CUP, {"r_trained": False}),
    Run("third-coffee-seconds", "INPUTS_NOT_SCALED", "set", Coffee, CUP, {"minutes": False}),
    Run("third-coffee-descent", "DIVERGED", "set", Coffee,
        {"steps": 1500, "optim": SGD, "lr": 0.02}, {"unit": 0.1}),
    Run("third-coffee-thermometer", "CONTRADICTION", "set", Coffee, CUP, {"room": 25.0}),
    Run("third-coffee", "CLEAN", "set", Coffee, {**CUP, "net": {"width": 20}}),
    Run("third-town-years", "INPUTS_NOT_SCALED", "set", Town, {"steps": 800}, {"years": True}),
    Run("third-town-persons", "OUTPUTS_NOT_SCALED", "set", Town, {"steps": 800},
        {"persons": 40000.0}),
    Run("third-town-descent", "STEP_TOO_SHORT", "set", Town,
        {"steps": 1500, "lr": 2e-3, "momentum": 0.9, "growth": 3.0}, {"lr": 1e-6}),
    Run("third-town-causal", "CAUSALITY", "set", Town,
        {"steps": 1500, "growth": 5.0, "causal": 20.0}, {"causal": 0.0}),
    Run("third-epidemic-people", "OUTPUTS_NOT_SCALED", "set", Epidemic, SIR, {"people": 5000.0}),
    Run("third-epidemic-day", "REPEATED_POINTS", "set", Epidemic, SIR, {"day": [30] * 60}),
    Run("third-epidemic-wrong-rate", "CONTRADICTION", "set", Epidemic,
        {**SIR, "known_beta": 8.0}, {"known_beta": 1.5}),
    Run("third-epidemic-rates-only", "NOT_TRAINED", "set", Epidemic, SIR, {"trained": "mlp.4"}),
    Run("third-epidemic", "CLEAN", "set", Epidemic, {"steps": 1300, "lr": 8e-3}),
]  # fmt: skip
