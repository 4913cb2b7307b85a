"""First-order equations in physical units: cooling, growth, draining."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn as nn
from torch import Tensor

from tests.broken.unseen.tools import judged, line, relative, ticks


class Relaxation(pl.LightningModule):
    """tau y' = rest - y on [begin, begin + span], y(begin) = first, in whatever units.

    The network sees (t - shift) / clock and its output is multiplied by ``unit``.
    """

    def __init__(
        self,
        tau: float = 1.0,
        begin: float = 0.0,
        span: float = 3.0,
        first: float = 1.0,
        rest: float = 0.0,
        shift: float = 0.0,
        clock: float = 1.0,
        unit: float = 1.0,
        lr: float = 2e-3,
        optimizer: str = "Adam",
        net: Any = None,
    ) -> None:
        super().__init__()
        self.tau, self.begin, self.span, self.first, self.rest = tau, begin, span, first, rest
        self.shift, self.clock, self.unit = shift, clock, unit
        self.lr, self.optimizer = lr, optimizer
        self.layers = nn.Sequential(nn.Linear(1, 40), nn.Tanh(), nn.Linear(40, 40), nn.Tanh())
        self.head = nn.Linear(40, 1)
        self.t_col = line(begin, begin + span, 60)

    def forward(self, t: Tensor) -> Tensor:
        return self.unit * self.head(self.layers((t - self.shift) / self.clock))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.t_col.clone().requires_grad_(True)
        y = self(t)
        (dy,) = torch.autograd.grad(y.sum(), t, create_graph=True)
        loss_ode = nn.functional.mse_loss(self.tau * dy + y, torch.full_like(y, self.rest))
        loss_ic = nn.functional.mse_loss(self(self.t_col[:1]), torch.tensor([[self.first]]))
        loss = loss_ode + loss_ic
        self.log_dict({"loss_ode": loss_ode, "loss_ic": loss_ic, "loss": loss})
        return loss

    def configure_optimizers(self) -> Any:
        return getattr(torch.optim, self.optimizer)(self.parameters(), lr=self.lr)

    def loader(self, steps: int) -> Any:
        return ticks(steps)

    def error(self) -> float:
        t = line(self.begin, self.begin + self.span, 300)
        decay = torch.exp(-(t - self.begin) / self.tau)
        return relative(self(t), self.rest + (self.first - self.rest) * decay)


class Gompertz(pl.LightningModule):
    """A tumour grows: u' = u log(1 / u) with u(0) = 0.1; the unknown is positive."""

    def __init__(self, positive: Callable[[Tensor], Tensor] = torch.exp, net: Any = None) -> None:
        super().__init__()
        self.model = nn.Sequential(
            nn.Linear(1, 24), nn.Tanh(), nn.Linear(24, 24), nn.Tanh(), nn.Linear(24, 1)
        )
        self.positive = positive

    def forward(self, t: Tensor) -> Tensor:
        return self.positive(self.model(t))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = (3 * torch.rand(80, 1)).requires_grad_()
        u = self(t)
        du = torch.autograd.grad(u, t, torch.ones_like(u), create_graph=True)[0]
        growth = torch.mean((du + u * torch.log(u)) ** 2)
        start = torch.mean((self(torch.zeros(1, 1)) - 0.1) ** 2)
        self.log("growth", growth)
        self.log("start", start)
        return growth + 10 * start

    def configure_optimizers(self) -> Any:
        return torch.optim.NAdam(self.parameters(), lr=2e-3)

    def loader(self, steps: int) -> Any:
        return ticks(steps)

    def error(self) -> float:
        t = line(0, 3, 300)
        return relative(self(t), torch.exp(math.log(0.1) * torch.exp(-t)))


class Tank(pl.LightningModule):
    """Torricelli: h' = -sqrt(h), h(0) = 1; the tank is empty from t = 2."""

    t: Tensor

    def __init__(self, floor: float | None = 1e-4, net: Any = None) -> None:
        super().__init__()
        self.floor = floor
        self.h = nn.Sequential(nn.Linear(1, 30), nn.SiLU(), nn.Linear(30, 30), nn.SiLU())
        self.out = nn.Linear(30, 1)
        self.register_buffer("t", line(0, 2.4, 60))

    def height(self, t: Tensor) -> Tensor:
        return 1 + t * self.out(self.h(t))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.t.detach().clone().requires_grad_()
        h = self.height(t)
        velocity = torch.sqrt(h if self.floor is None else h.clamp(min=self.floor))
        rate = torch.autograd.grad(h, t, torch.ones_like(h), create_graph=True)[0]
        outflow = ((rate + velocity) ** 2).mean()
        self.log("outflow", outflow)
        return outflow

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=4e-3)

    def loader(self, steps: int) -> Any:
        return ticks(steps)

    def error(self) -> float:
        t = line(0, 2.4, 200)
        return relative(self.height(t), torch.relu(1 - t / 2) ** 2)


HOUR = {"tau": 1200.0, "span": 3600.0, "first": 1.0, "rest": 0.25, "clock": 1800.0, "steps": 1500}
YEARS = {"tau": 20.0, "begin": 1950.0, "span": 60.0, "shift": 1980.0, "clock": 30.0, "steps": 1500}
AIR = {"first": 101325.0, "unit": 1e5, "steps": 1500, "lr": 3e-3}

KINETICS = [
    judged("tea-in-seconds", "INPUTS_NOT_SCALED", Relaxation, HOUR, {"clock": 1.0}),
    judged("isotope-by-year", "INPUTS_NOT_SCALED", Relaxation, YEARS, {"shift": 0.0, "clock": 1.0}),
    judged("pressure-in-pascal", "OUTPUTS_NOT_SCALED", Relaxation, AIR, {"unit": 1.0}),
    judged(
        "relaxation-sgd",
        "STEP_TOO_SHORT",
        Relaxation,
        {"steps": 3000, "optimizer": "SGD", "lr": 0.03},
        {"lr": 1e-7},
    ),
    judged("gompertz", "DIVERGED", Gompertz, {"steps": 1500}, {"positive": nn.Identity()}),
    judged("tank", "DIVERGED", Tank, {"steps": 1200}, {"floor": None}),
    judged("relaxation-early", "EARLY", Relaxation, {"steps": 45, "tau": 0.7, "lr": 1e-3}),
    judged(
        "relaxation-rmsprop",
        "STEP_TOO_LARGE",
        Relaxation,
        {"steps": 1500, "optimizer": "RMSprop", "lr": 5e-4},
        {"lr": 0.3},
    ),
]
