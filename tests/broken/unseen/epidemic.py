"""An epidemic with rates that are sought from counted cases."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn as nn
from scipy.integrate import odeint
from torch import Tensor

from tests.broken.unseen.tools import judged, line, relative, ticks


def outbreak(y: Any, t: float, beta: float, gamma: float) -> list[float]:
    s, i, _ = y
    return [-beta * s * i, beta * s * i - gamma * i, gamma * i]


class Epidemic(pl.LightningModule):
    """SIR with counted cases at 20 days; contact rate and recovery rate are sought.

    ``counted``: what one person counts as in the data. ``known``: rates that are given instead.
    """

    t: Tensor
    days: Tensor
    cases: Tensor

    def __init__(
        self,
        trained: str = "all",
        counted: float = 1.0,
        known: tuple[float, float] | None = None,
        w_data: float = 10.0,
        w_ode: float = 1.0,
        detached: bool = False,
        lr: float = 5e-3,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.trained, self.known, self.w_data, self.w_ode = trained, known, w_data, w_ode
        self.detached, self.lr = detached, lr
        self.mlp = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        self.mlp.append(nn.Linear(32, 3))
        self.beta = nn.Parameter(torch.tensor(1.0))
        self.gamma = nn.Parameter(torch.tensor(1.0))
        days = line(0, 1, 21)
        self.register_buffer("days", days)
        self.register_buffer("cases", counted * self.solved(days))
        self.register_buffer("t", line(0, 1, 80))

    @staticmethod
    def solved(t: Tensor) -> Tensor:
        return torch.tensor(odeint(outbreak, [0.9, 0.1, 0.0], t[:, 0].numpy(), (6.0, 2.0))).float()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.t.clone().requires_grad_()
        y = self.mlp(t)
        rates = [torch.autograd.grad(y[:, k].sum(), t, create_graph=True)[0] for k in range(3)]
        s, i, _ = y.split(1, dim=1)
        beta, gamma = self.known or (self.beta, self.gamma)
        infected, recovered = beta * s * i, gamma * i
        right = (-infected, infected - recovered, recovered)
        physics = sum((a - b).pow(2).mean() for a, b in zip(rates, right, strict=True))
        y_days = self.mlp(self.days)
        if self.detached:
            y_days = torch.tensor(y_days.tolist())
        data = nn.MSELoss()(y_days, self.cases)
        self.log("sir/data", data)
        self.log("sir/physics", physics)
        return self.w_data * data + self.w_ode * physics

    def configure_optimizers(self) -> Any:
        every = self.parameters() if self.trained == "all" else self.mlp.parameters()
        return torch.optim.Adam(every, lr=self.lr)

    def loader(self, steps: int) -> Any:
        return ticks(steps)

    def error(self) -> float:
        t = line(0, 1, 200)
        field = relative(self.mlp(t), self.solved(t))
        if self.known:
            return field
        return max(field, abs(self.beta.item() / 6 - 1), abs(self.gamma.item() / 2 - 1))


SIR = {"steps": 2000}

EPIDEMIC = [
    judged("sir-rates", "NOT_TRAINED", Epidemic, SIR, {"trained": "network"}),
    judged("sir-tolist", "DETACHED", Epidemic, SIR, {"detached": True}),
    judged(
        "sir-other-rates",
        "CONTRADICTION",
        Epidemic,
        SIR | {"known": (6.0, 2.0)},
        {"known": (0.5, 6.0)},
    ),
    judged("sir-weights", "IMBALANCE", Epidemic, SIR, {"w_data": 1e-5, "w_ode": 100.0}),
    judged("sir-early", "EARLY", Epidemic, {"steps": 150}),
    judged("sir-clean", "CLEAN", Epidemic, {"steps": 2200, "w_data": 5.0, "lr": 6e-3}),
]
