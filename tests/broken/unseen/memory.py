"""Equations that remember: an integral, whose optimizer is stepped by hand, and a delay."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from tests.broken.unseen.tools import judged, line, relative, ticks


class Volterra(pl.LightningModule):
    """u' = size - (integral of u from 0 to t), u(0) = 0, so that u = size sin t, on [0, 3].

    The integral is a trapezoidal sum over the points; the optimizer is stepped by hand.
    """

    def __init__(
        self,
        size: float = 1.0,
        unit: float = 1.0,
        sgd: float = 0.0,
        summed: bool = False,
        n: int = 61,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.size, self.unit, self.sgd, self.summed = size, unit, sgd, summed
        self.trunk = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        self.leaf = nn.Linear(32, 1)
        self.t = line(0, 3, n)
        step = 3 / (n - 1)
        weights = torch.tril(torch.full((n, n), step))
        weights[:, 0] -= step / 2
        weights -= torch.eye(n) * step / 2
        weights[0] = 0
        self.trapezoid = weights

    def forward(self, t: Tensor) -> Tensor:
        return self.unit * self.leaf(self.trunk(t - 1.5))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        optimizer.zero_grad()
        t = self.t.detach().requires_grad_()
        u = self(t)
        (du,) = torch.autograd.grad(u, t, torch.ones_like(u), create_graph=True)
        r = (du + self.trapezoid @ u - self.size) ** 2
        memory = r.sum() if self.summed else r.mean()
        zero = (u[0] ** 2).sum()
        loss = memory + 10 * zero
        self.log("memory", memory)
        self.log("zero", zero)
        self.log("objective", loss)
        self.manual_backward(loss)
        optimizer.step()

    def configure_optimizers(self) -> Any:
        if self.sgd:
            return torch.optim.SGD(self.parameters(), lr=self.sgd)
        return torch.optim.Adam(self.parameters(), lr=3e-3)

    def loader(self, steps: int) -> Any:
        return ticks(steps)

    def error(self) -> float:
        t = line(0, 3, 300)
        return relative(self(t), self.size * torch.sin(t))


class Delay(pl.LightningModule):
    """u'(t) = -u(t - 1) on [0, 3] with u = 1 up to t = 0, which holds exactly.

    ``squeezed``: the rate loses its second axis on the way to the loss.
    """

    def __init__(
        self,
        squeezed: bool = False,
        optimizer: str = "Adam",
        lr: float = 4e-3,
        width: int = 32,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.squeezed, self.optimizer, self.lr = squeezed, optimizer, lr
        self.core = nn.ModuleList(
            [nn.Linear(1, width), nn.Linear(width, width), nn.Linear(width, 1)]
        )

    def forward(self, t: Tensor) -> Tensor:
        z = t / 1.5 - 1
        for layer in self.core[:-1]:
            z = nn.functional.silu(2 * layer(z))
        return 1 + torch.relu(t) * self.core[-1](z)

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        t = (3 * torch.rand(100, 1)).requires_grad_()
        rate = torch.autograd.grad(self(t).sum(), t, create_graph=True)[0]
        rate = rate.squeeze(-1) if self.squeezed else rate
        loss = (rate + self(t - 1)).square().mean()
        self.log("delay_eq", loss, on_step=True)
        return {"loss": loss}

    def configure_optimizers(self) -> Any:
        return getattr(torch.optim, self.optimizer)(self.parameters(), lr=self.lr)

    def loader(self, steps: int) -> Any:
        return ticks(steps)

    def error(self) -> float:
        t = line(0, 3, 300)
        u = 1 - t
        u = u + torch.relu(t - 1) ** 2 / 2
        u = u - torch.relu(t - 2) ** 3 / 6
        return relative(self(t), u)


MEMORY = [
    judged(
        "volterra-thousands",
        "OUTPUTS_NOT_SCALED",
        Volterra,
        {"steps": 1000, "size": 4000.0, "unit": 4000.0},
        {"unit": 1.0},
    ),
    judged(
        "volterra-sum",
        "DIVERGED",
        Volterra,
        {"steps": 3000, "sgd": 0.01},
        {"summed": True},
    ),
    judged("volterra-clean", "CLEAN", Volterra, {"steps": 1200, "n": 41}),
    judged("delay-squeezed", "BROADCAST", Delay, {"steps": 1000}, {"squeezed": True}),
    judged(
        "delay-clipped",
        "STEP_TOO_SHORT",
        Delay,
        {"steps": 2500, "optimizer": "SGD", "lr": 0.02},
        {"trainer": {"gradient_clip_val": 1e-5}},
    ),
    judged("delay-clean", "CLEAN", Delay, {"steps": 1000, "optimizer": "NAdam", "lr": 2e-3}),
]
