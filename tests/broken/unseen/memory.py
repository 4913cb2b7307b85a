"""Equations that remember (an integral, a delay), and stiff or long ones trained by hand."""

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
