"""Option prices, waves of light, and measured signals."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim.lr_scheduler import CosineAnnealingLR
from torch.utils.data import DataLoader, TensorDataset

from tests.broken.fourth.base import Task, dense, slope


class Call(Task):
    """Black-Scholes equation of a call with strike 100, a year to go, price in units of it.

    `raw`: the network gets the price of the share in cents; `weights`: of equation, payoff, edges.
    """

    rate, sigma, strike = 0.05, 0.3, 100.0

    def __init__(
        self,
        *,
        raw: bool = False,
        weights: tuple[float, float, float] = (1, 10, 10),
        **training: Any,
    ) -> None:
        super().__init__(**training)
        self.raw, self.weights = raw, weights
        self.price = dense(2, 1, **self.options)
        self.s = torch.linspace(0, 200, 41)[:, None]

    def value(self, s: Tensor, t: Tensor) -> Tensor:
        return self.price(torch.cat([100 * s if self.raw else s / 100 - 1, t], 1))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        s = (200 * torch.rand(128, 1)).requires_grad_()
        t = torch.rand(128, 1).requires_grad_()
        v = self.value(s, t)
        v_s = slope(v, s)
        drift = slope(v, t) + self.rate * s * v_s - self.rate * v
        pde = (drift + 0.5 * self.sigma**2 * s**2 * slope(v_s, s)).square().mean()
        payoff = (self.value(self.s, torch.ones(41, 1)) - (self.s / 100 - 1).relu()).square().mean()
        t = torch.rand(20, 1)
        worthless = self.value(torch.zeros(20, 1), t).square().mean()
        far = self.value(torch.full((20, 1), 200.0), t) - 2 + torch.exp(-self.rate * (1 - t))
        edges = worthless + far.square().mean()
        self.log_dict({"bs_pde": pde, "bs_payoff": payoff, "bs_edges": edges})
        return self.weights[0] * pde + self.weights[1] * payoff + self.weights[2] * edges

    def exact(self, s: Tensor, t: Tensor) -> Tensor:
        left = (1 - t).clamp(min=1e-9)
        spread = self.sigma * left.sqrt()
        up = ((s / 100).log() + (self.rate + self.sigma**2 / 2) * left) / spread
        cdf = torch.special.ndtr
        return s / 100 * cdf(up) - torch.exp(-self.rate * left) * cdf(up - spread)

    def compare(self) -> tuple[Tensor, Tensor]:
        s, t = torch.cartesian_prod(torch.linspace(5, 195, 40), torch.linspace(0, 0.9, 20)).T
        s, t = s[:, None], t[:, None]
        return self.value(s, t), self.exact(s, t)


class Guide(Task):
    """E'' + k^2 E = 0 for a complex field as two outputs, E(0) = 1, E' = i k E at the far end."""

    def __init__(self, *, k: float = 4.0, anneal: int = 0, **training: Any) -> None:
        super().__init__(**training)
        self.k, self.anneal = k, anneal
        self.field = dense(1, 2, **self.options)

    def configure_optimizers(self) -> Any:
        optimizer = self.opt(self.parameters())
        if self.anneal:
            scheduler = CosineAnnealingLR(optimizer, self.anneal)
            return {
                "optimizer": optimizer,
                "lr_scheduler": {"scheduler": scheduler, "interval": "step"},
            }
        return optimizer

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        z = torch.linspace(0, 1, 80)[:, None].requires_grad_()
        re, im = self.field(z).split(1, dim=-1)
        re_z, im_z = slope(re, z), slope(im, z)
        helmholtz = torch.cat([slope(re_z, z), slope(im_z, z)]) / self.k**2 + torch.cat([re, im])
        source = (re[0] - 1) ** 2 + im[0] ** 2
        outgoing = (re_z[-1] / self.k + im[-1]) ** 2 + (im_z[-1] / self.k - re[-1]) ** 2
        self.log("opt/helmholtz", helmholtz.pow(2).mean())
        self.log("opt/source", source.sum())
        self.log("opt/outgoing", outgoing.sum())
        return helmholtz.pow(2).mean() + source.sum() + outgoing.sum()

    def compare(self) -> tuple[Tensor, Tensor]:
        z = torch.linspace(0, 1, 200)[:, None]
        return self.field(z), torch.cat([(self.k * z).cos(), (self.k * z).sin()], 1)


def fringes(x: Tensor) -> Tensor:
    """Two-beam interference, slow."""
    return torch.cos(5 * x) * torch.exp(-0.5 * x**2) + 0.3 * x


class Signal(Task):
    """A network fitted to a measured signal on [-1, 1], in mini-batches of a dict.

    `pick`: index of the measurement -> which one is read; `row`: values without a column;
    `offset`: what lies under the signal (kept apart from it in the error); `remove`: whether
    it is subtracted before; `where`: places of the measurements.
    """

    def __init__(
        self,
        *,
        signal: Callable[[Tensor], Tensor] = fringes,
        n: int = 96,
        batch: int = 32,
        pick: Callable[[int], int] | None = None,
        row: bool = False,
        offset: float = 0.0,
        remove: bool = True,
        where: tuple[float, float] = (-1.0, 1.0),
        **training: Any,
    ) -> None:
        super().__init__(**training)
        self.signal, self.batch, self.row = signal, batch, row
        self.offset, self.remove = offset, remove
        self.net = dense(1, 1, **self.options)
        index = [pick(i) if pick else i for i in range(n)]
        self.x = torch.linspace(*where, n)[index, None]

    def loader(self, steps: int) -> DataLoader[Any]:
        values = self.signal(self.x) + (0.0 if self.remove else self.offset)
        if self.row:
            values = values.flatten()
        return DataLoader(TensorDataset(self.x, values), self.batch, shuffle=True)

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x) if self.remove else self.net(x) + self.offset

    def training_step(self, batch: Any, batch_idx: int) -> Mapping[str, Tensor]:
        x, y = batch
        misfit = (self(x) - y).pow(2).mean()
        self.log("misfit", misfit)
        return {"loss": misfit}

    def compare(self) -> tuple[Tensor, Tensor]:
        x = torch.linspace(-1, 1, 300)[:, None]
        return self.net(x), self.signal(x)


def carrier(x: Tensor) -> Tensor:
    """A fast carrier with a slow envelope."""
    return torch.sin(16 * math.pi * x) * (1 + 0.3 * x) + 0.2 * x
