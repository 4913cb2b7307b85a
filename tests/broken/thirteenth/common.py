"""What the three students took from the course: a net, derivatives, the error."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader


class PINN(nn.Module):
    """Fully connected; inputs are brought to [-1, 1] as in Raissi's code."""

    def __init__(
        self,
        lb: Sequence[float],
        ub: Sequence[float],
        n_out: int,
        hidden: Sequence[int] = (32, 32),
        act: Callable[[], nn.Module] = nn.Tanh,
        normalise: bool = True,
        fourier: float = 0.0,
        dropout: float = 0.0,
        init: Callable[[nn.Module], Any] | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("lb", torch.tensor(lb))
        self.register_buffer("ub", torch.tensor(ub))
        self.normalise = normalise
        self.register_buffer("b", fourier * torch.randn(len(lb), 32) if fourier else None)
        layers: list[nn.Module] = []
        n = 64 if fourier else len(lb)
        for width in hidden:
            layers += [nn.Linear(n, width), act()]
            if dropout:
                layers.append(nn.Dropout(dropout))
            n = width
        layers.append(nn.Linear(n, n_out))
        self.layers = nn.Sequential(*layers)
        if init:
            self.layers.apply(init)

    def forward(self, x: Tensor) -> Tensor:
        if self.normalise:
            x = 2.0 * (x - self.lb) / (self.ub - self.lb) - 1.0
        if self.b is not None:
            x = torch.cat([torch.sin(x @ self.b), torch.cos(x @ self.b)], 1)
        return self.layers(x)


def grad(u: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(u, x, torch.ones_like(u), create_graph=True)[0]


def rand(n: int, lb: Sequence[float], ub: Sequence[float]) -> Tensor:
    low, high = torch.tensor(lb), torch.tensor(ub)
    return low + (high - low) * torch.rand(n, len(lb))


class Lesson(pl.LightningModule):
    """The shape that all homework had."""

    lb: Sequence[float] = (0.0,)
    ub: Sequence[float] = (1.0,)
    n_out = 1

    def __init__(
        self,
        net: dict[str, Any] | None = None,
        optimizer: Callable[..., torch.optim.Optimizer] = partial(torch.optim.Adam, lr=3e-3),
        scheduler: Callable[..., Any] | None = None,
    ) -> None:
        super().__init__()
        self.net = PINN(self.lb, self.ub, self.n_out, **(net or {}))
        self.make_optimizer, self.make_scheduler = optimizer, scheduler

    def loader(self, steps: int) -> DataLoader[Any]:
        return DataLoader(range(steps), batch_size=None)

    def configure_optimizers(self) -> Any:
        optimizer = self.make_optimizer(self.parameters())
        if self.make_scheduler is None:
            return optimizer
        scheduler = self.make_scheduler(optimizer)
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": scheduler, "interval": "step", "monitor": "loss"},
        }

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x)

    def truth(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    @torch.no_grad()
    def error(self) -> float:
        n = 400 if len(self.lb) == 1 else 40
        axes = [torch.linspace(a, b, n) for a, b in zip(self.lb, self.ub, strict=True)]
        x = torch.cartesian_prod(*axes).reshape(-1, len(self.lb))
        training = self.training
        u, truth = self.eval().predict(x), self.truth(x)
        self.train(training)
        error = float((u - truth).norm() / truth.norm())
        return error if math.isfinite(error) else math.inf
