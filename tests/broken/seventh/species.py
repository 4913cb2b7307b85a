"""Predators and prey, each with a network of its own; hand-written."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as fn
from torch.utils.data import DataLoader

from tests.broken.seventh.ode_hand import relative, solve


class TwoSpecies(pl.LightningModule):
    """Lotka-Volterra with one network for the prey and one for the predators."""

    def __init__(
        self,
        both: bool = True,
        lr: float = 5e-3,
        decay: float = 0.0,
        width: int = 32,
        net: Any = None,
    ) -> None:
        super().__init__()

        def block() -> nn.Sequential:
            return nn.Sequential(
                nn.Linear(1, width),
                nn.SiLU(),
                nn.Linear(width, width),
                nn.SiLU(),
                nn.Linear(width, 1),
            )

        self.prey, self.pred = block(), block()
        self.both, self.lr, self.decay, self.T = both, lr, decay, 4.0

    def predict(self, x: Tensor) -> Tensor:
        s = x / 2 - 1
        return torch.cat([self.prey(s), self.pred(s)], 1)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        t = batch.requires_grad_()
        x, y = self.predict(t).split(1, dim=1)
        x_t = torch.autograd.grad(x.sum(), t, create_graph=True)[0]
        y_t = torch.autograd.grad(y.sum(), t, create_graph=True)[0]
        loss_x = fn.mse_loss(x_t, x - x * y)
        loss_y = fn.mse_loss(y_t, x * y - y)
        u0 = self.predict(torch.zeros(1, 1))
        loss_0 = fn.mse_loss(u0, torch.tensor([[1.5, 0.7]]))
        self.log("x", loss_x)
        self.log("y", loss_y)
        self.log("start", loss_0)
        return loss_x + loss_y + loss_0

    def configure_optimizers(self) -> Any:
        params = self.parameters() if self.both else self.prey.parameters()
        return torch.optim.AdamW(params, lr=self.lr, weight_decay=self.decay)

    def loader(self, steps: int) -> DataLoader[Any]:
        return DataLoader(self.T * torch.rand(200, 1), batch_size=50, shuffle=True)

    def error(self) -> float:
        t = torch.linspace(0, self.T, 200)[:, None]
        truth = solve(lambda _, u: [u[0] - u[0] * u[1], u[0] * u[1] - u[1]], [1.5, 0.7], t)
        return relative(self.predict(t).detach(), truth)
