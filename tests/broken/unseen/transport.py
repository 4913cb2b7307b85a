"""A pattern that is carried along a ring, and one that takes over a line by reacting."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from tests.broken.unseen.tools import judged, relative, ticks


class Ring(nn.Module):
    """x on a ring of length 1 by the harmonics up to the given one; t in [0, 1] as it is."""

    k: Tensor

    def __init__(self, harmonics: int) -> None:
        super().__init__()
        self.register_buffer("k", 2 * torch.pi * torch.arange(1.0, harmonics + 1))

    def forward(self, tx: Tensor) -> Tensor:
        phase = tx[:, 1:] * self.k
        return torch.hstack([tx[:, :1], phase.sin(), phase.cos()])


class Carousel(pl.LightningModule):
    """u_t + c u_x = 0, u(0, x) = sin(2 pi m x), with fresh points in each step.

    ``harmonics``: of the ring that the network is given.
    """

    def __init__(self, c: float = 0.05, m: int = 1, harmonics: int = 1, net: Any = None) -> None:
        super().__init__()
        self.c, self.m = c, m
        self.encode = Ring(harmonics)
        self.mlp = nn.Sequential(nn.Linear(1 + 2 * harmonics, 40), nn.Tanh(), nn.Linear(40, 40))
        self.mlp.extend([nn.Tanh(), nn.Linear(40, 1)])

    def u(self, tx: Tensor) -> Tensor:
        return self.mlp(self.encode(tx))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        tx = torch.rand(200, 2).requires_grad_()
        gradient = torch.autograd.grad(self.u(tx).sum(), tx, create_graph=True)[0]
        transport = (gradient[:, 0] + self.c * gradient[:, 1]).pow(2).mean()
        start = torch.rand(80, 2) * torch.tensor([0.0, 1.0])
        initial = (self.u(start)[:, 0] - self.wave(start)).pow(2).mean()
        self.log("advect", transport)
        self.log("initial", initial)
        return 0.5 * transport + 5 * initial

    def wave(self, tx: Tensor) -> Tensor:
        return torch.sin(2 * torch.pi * self.m * (tx[:, 1] - self.c * tx[:, 0]))

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=4e-3)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: 0.999**step)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]

    def loader(self, steps: int) -> Any:
        return ticks(steps)

    def error(self) -> float:
        axis = torch.linspace(0, 1, 100)
        tx = torch.cartesian_prod(torch.linspace(0, 1, 20), axis)
        return relative(self.u(tx)[:, 0], self.wave(tx))


class Reaction(pl.LightningModule):
    """u_t = rho u (1 - u) for 0 < x < 1, 0 < t < 1, from small values that hold by construction.

    ``tolerance``: a time counts once the residuals before it add up to less; 0 for all at once.
    """

    def __init__(self, rho: float = 9.0, tolerance: float = 0.0, net: Any = None) -> None:
        super().__init__()
        self.rho, self.tolerance = rho, tolerance
        self.hidden = nn.Sequential(nn.Linear(2, 32), nn.Tanh(), nn.Linear(32, 32), nn.Tanh())
        self.last = nn.Linear(32, 1)
        self.t = torch.linspace(0, 1, 40)
        self.x = torch.linspace(0, 1, 8)

    @staticmethod
    def seed(x: Tensor) -> Tensor:
        return 0.01 + 0.02 * torch.sin(torch.pi * x) ** 2

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        z = torch.stack([2 * t - 1, 2 * x - 1], dim=-1)
        return self.seed(x) + t * self.last(self.hidden(z)).squeeze(-1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t, x = torch.meshgrid(self.t, self.x, indexing="ij")
        t = t.clone().requires_grad_()
        u = self(t, x)
        u_t = torch.autograd.grad(u.sum(), t, create_graph=True)[0]
        rows = (u_t / self.rho - u * (1 - u)).square().mean(dim=1)
        if self.tolerance:
            earlier = torch.cumsum(rows, 0).detach() - rows.detach()
            rows = torch.exp(-earlier / self.tolerance) * rows
        loss = 200 * rows.mean()
        self.log("reaction", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)

    def loader(self, steps: int) -> Any:
        return ticks(steps)

    def error(self) -> float:
        t, x = torch.cartesian_prod(torch.linspace(0, 1, 60), torch.linspace(0, 1, 20)).unbind(1)
        seed, growth = self.seed(x), torch.exp(self.rho * t)
        return relative(self(t, x), seed * growth / (1 - seed + seed * growth))


TRANSPORT = [
    judged(
        "reaction", "CAUSALITY", Reaction, {"steps": 1800, "tolerance": 1e-3}, {"tolerance": 0.0}
    ),
    judged(
        "carousel-ripples",
        "SPECTRAL_BIAS",
        Carousel,
        {"steps": 2200, "m": 12, "harmonics": 12},
        {"harmonics": 1},
    ),
    judged("carousel-clean", "CLEAN", Carousel, {"steps": 1000, "c": 0.5}),
]
