"""Equations in time that have to be solved from its beginning on."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from tests.broken.unseen.tools import judged, line, relative, ticks


class Rotor(pl.LightningModule):
    """x' = w y, y' = -w x with (x, y) = (0, 1) at t = 0 by construction, on [0, span].

    ``window``: "all" times in each step, or a tenth of them that "slides" on for ``pace`` steps
    and leaves what lies behind.
    """

    def __init__(
        self,
        w: float = 2.0,
        span: float = 3.0,
        window: str = "all",
        pace: int = 1500,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.w, self.span, self.window, self.pace = w, span, window, pace
        self.flow = nn.Sequential(
            nn.Linear(1, 48), nn.Tanh(), nn.Linear(48, 48), nn.Tanh(), nn.Linear(48, 2)
        )

    def state(self, t: Tensor) -> Tensor:
        return torch.tensor([0.0, 1.0]) + torch.tanh(t) * self.flow(2 * t / self.span - 1)

    def times(self) -> Tensor:
        t = torch.rand(120, 1)
        part = min(1.0, self.global_step / self.pace)
        if self.window == "slides":
            t = 0.1 * t + 0.9 * part
        return self.span * t

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.times().requires_grad_()
        x, y = self.state(t).unbind(1)
        x_t, y_t = (torch.autograd.grad(z.sum(), t, create_graph=True)[0][:, 0] for z in (x, y))
        loss_x = torch.mean((x_t / self.w - y) ** 2)
        loss_y = torch.mean((y_t / self.w + x) ** 2)
        self.log("eq/x", loss_x)
        self.log("eq/y", loss_y)
        return loss_x + loss_y

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)

    def loader(self, steps: int) -> Any:
        return ticks(steps)

    def error(self) -> float:
        t = line(0, self.span, 400)
        z = torch.cat([torch.sin(self.w * t), torch.cos(self.w * t)], 1)
        return relative(self.state(t), z)


class Takeover(pl.LightningModule):
    """u' = r u (1 - u^p) from u(0) = 0.02 by construction: nearly nothing, then all at once.

    ``causal``: weight of a time by what is unsolved before it (Wang et al. 2022), 0 for none.
    """

    grid: Tensor

    def __init__(
        self, r: float = 10.0, p: int = 1, causal: float = 0.0, lr: float = 3e-3, net: Any = None
    ) -> None:
        super().__init__()
        self.r, self.p, self.causal, self.lr = r, p, causal, lr
        self.dense = nn.Sequential(nn.Linear(1, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        self.dense.append(nn.Linear(32, 1))
        self.register_buffer("grid", line(0, 1, 100))

    def share(self, t: Tensor) -> Tensor:
        return 0.02 + t * self.dense(2 * t - 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.grid.clone().requires_grad_()
        u = self.share(t)
        u_t = torch.autograd.grad(u, t, torch.ones_like(u), create_graph=True)[0]
        r = (u_t / self.r - u * (1 - u**self.p)).pow(2)
        if self.causal:
            before = torch.cumsum(r.detach(), 0) - r.detach()
            r = torch.exp(-self.causal * before) * r
        self.log("logistic", r.mean())
        return 100 * r.mean()

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def loader(self, steps: int) -> Any:
        return ticks(steps)

    def error(self) -> float:
        t = line(0, 1, 300)
        fading = (0.02**-self.p - 1) * torch.exp(-self.p * self.r * t)
        return relative(self.share(t), (1 + fading) ** (-1 / self.p))


TIMES = [
    judged("rotor-slides", "POINTS", Rotor, {"steps": 1000, "pace": 900}, {"window": "slides"}),
    judged("takeover", "CAUSALITY", Takeover, {"steps": 2000, "causal": 1e3}, {"causal": 0.0}),
    judged(
        "double-well",
        "CAUSALITY",
        Takeover,
        {"steps": 2000, "p": 2, "r": 8.0, "causal": 3e3},
        {"causal": 0.0},
    ),
]
