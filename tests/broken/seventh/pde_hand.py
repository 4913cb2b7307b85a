"""Hand-written Lightning modules for problems in space."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.broken.seventh.ode_hand import relative

PI = math.pi


def gradient(u: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(u, x, grad_outputs=torch.ones_like(u), create_graph=True)[0]


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


class Embedding(nn.Module):
    """Sines and cosines of 1, 2, ... half waves."""

    def __init__(self, number: int) -> None:
        super().__init__()
        self.register_buffer("k", PI * torch.arange(1, number + 1).float())

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([torch.sin(x * self.k), torch.cos(x * self.k)], 1)


class Rod(pl.LightningModule):
    """-u'' = f on [0, 1] in the style of PhysicsInformedNN: net_u, net_f, loss_func."""

    def __init__(
        self,
        waves: int = 1,
        layers: tuple[int, ...] = (1, 30, 30, 1),
        act: type[nn.Module] = nn.Tanh,
        h: float | None = None,
        flat: bool = False,
        embed: int = 0,
        n_f: int = 50,
        w_b: float = 2.0,
        size: float = 1.0,
        scale: float = 1.0,
        lr: float = 5e-3,
        optimizer: Any = torch.optim.Adam,
        init: Callable[[nn.Module], Any] | None = None,
        neumann: bool = False,
        pin: bool = True,
        unit: bool = True,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.waves, self.h, self.flat, self.w_b, self.lr = waves, h, flat, w_b, lr
        self.size, self.scale, self.optimizer = size, scale, optimizer
        self.embed, self.neumann, self.pin, self.unit = embed, neumann, pin, unit
        parts: list[nn.Module] = [Embedding(embed)] if embed else []
        layers = (2 * embed, *layers[1:]) if embed else layers
        for i in range(len(layers) - 1):
            parts.append(nn.Linear(layers[i], layers[i + 1]))
            if i < len(layers) - 2:
                parts.append(act())
        self.dnn = nn.Sequential(*parts)
        if init is not None:
            self.dnn.apply(init)
        self.x_f = torch.linspace(0, 1, n_f).reshape(-1, 1)
        self.x_b = torch.tensor([[0.0], [1.0]])

    def exact(self, x: Tensor) -> Tensor:
        s = torch.cos(self.waves * PI * x) if self.neumann else torch.sin(self.waves * PI * x)
        return self.size * (s + (2.0 if self.neumann else 0.0))

    def f(self, x: Tensor) -> Tensor:
        k = self.waves * PI
        return self.size * k**2 * (torch.cos(k * x) if self.neumann else torch.sin(k * x))

    def net_u(self, x: Tensor) -> Tensor:
        return self.scale * self.dnn(x if self.embed else 2 * x - 1)

    def net_f(self, x: Tensor) -> Tensor:
        u = self.net_u(x)
        f = self.f(x[:, 0]) if self.flat else self.f(x)
        if self.h:
            h = self.h
            u_xx = (self.net_u(x + h) - 2 * u + self.net_u(x - h)) / h**2
        else:
            u_xx = gradient(gradient(u, x), x)
        return (u_xx + f) / ((self.waves * PI) ** 2 if self.unit else 1)

    def loss_func(self) -> Tensor:
        x = self.x_f.clone().requires_grad_(True)
        loss_f = torch.mean((self.net_f(x) / self.scale) ** 2)
        if self.neumann:
            x_b = self.x_b.clone().requires_grad_(True)
            loss_b = torch.mean(gradient(self.net_u(x_b), x_b) ** 2) / 10
            if self.pin:
                loss_b = (
                    loss_b + (self.net_u(self.x_b[:1]) - self.exact(self.x_b[:1])).pow(2).mean()
                )
        else:
            loss_b = torch.mean((self.net_u(self.x_b) / self.scale) ** 2)
        self.log("loss_f", loss_f)
        self.log("loss_b", loss_b)
        return loss_f + self.w_b * loss_b

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        return self.loss_func()

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.dnn.parameters(), lr=self.lr)

    def loader(self, steps: int) -> DataLoader[Any]:
        return DataLoader(torch.arange(steps), batch_size=1)

    predict = net_u

    @torch.no_grad()
    def error(self) -> float:
        x = torch.linspace(0, 1, 400)[:, None]
        return relative(self.predict(x), self.exact(x))


class Membrane(pl.LightningModule):
    """Laplace on the unit square, one side warm; batches hold inner points and wall points."""

    def __init__(
        self,
        width: int = 32,
        lr: float = 5e-3,
        dropout: float = 0.0,
        item: bool = False,
        gamma: float | None = None,
        mu: float = 20.0,
        repeat: bool = False,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.lr, self.item, self.gamma, self.mu = lr, item, gamma, mu
        self.mlp = nn.Sequential(
            nn.Linear(2, width),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(width, width),
            nn.Tanh(),
            nn.Dropout(dropout),
            nn.Linear(width, 1),
        )
        rng = np.random.default_rng(1)
        if repeat:
            inner = np.repeat(rng.random((1, 2)), 300, axis=0)
        else:
            inner = rng.random((300, 2))
        side = rng.random((300, 2))
        wall = np.arange(300) % 4
        side[wall == 0, 0], side[wall == 1, 0] = 0, 1
        side[wall == 2, 1], side[wall == 3, 1] = 0, 1
        self.inner, self.side = torch.from_numpy(inner).float(), torch.from_numpy(side).float()

    @staticmethod
    def truth(p: Tensor) -> Tensor:
        x, y = p[:, :1], p[:, 1:]
        return torch.sin(PI * x) * torch.sinh(PI * y) / math.sinh(PI)

    def predict(self, x: Tensor) -> Tensor:
        return self.mlp(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inner, side = batch
        x, y = inner[:, 0:1].requires_grad_(), inner[:, 1:2].requires_grad_()
        u = self.mlp(torch.cat([x, y], dim=1))
        lap = gradient(gradient(u, x), x) + gradient(gradient(u, y), y)
        interior_loss = torch.linalg.norm(lap) ** 2 / len(lap)
        boundary_loss = nn.functional.mse_loss(self.mlp(side), self.truth(side))
        self.log("interior", interior_loss)
        self.log("boundary", boundary_loss)
        if self.item:
            boundary_loss = boundary_loss.item()
        return interior_loss + self.mu * boundary_loss

    def configure_optimizers(self) -> Any:
        opt = torch.optim.Adam(self.parameters(), lr=self.lr)
        if self.gamma is None:
            return opt
        sched = torch.optim.lr_scheduler.ExponentialLR(opt, gamma=self.gamma)
        return {"optimizer": opt, "lr_scheduler": {"scheduler": sched, "interval": "step"}}

    def loader(self, steps: int) -> DataLoader[Any]:
        return DataLoader(TensorDataset(self.inner, self.side), batch_size=100, shuffle=True)

    @torch.no_grad()
    def error(self) -> float:
        self.eval()
        line = torch.linspace(0, 1, 40)
        p = torch.cartesian_prod(line, line)
        return relative(self.predict(p), self.truth(p))
