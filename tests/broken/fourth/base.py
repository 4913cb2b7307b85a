"""What the problems of this package share: a dense net, the optimizer as argument, the error."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

Optimizer = Callable[..., torch.optim.Optimizer]


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


class CubicRelu(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) ** 3


class Embed(nn.Module):
    """Sines and cosines of fixed wave numbers."""

    def __init__(self, n_in: int, largest: float, number: int = 24) -> None:
        super().__init__()
        self.register_buffer("waves", largest * (2 * torch.rand(number, n_in) - 1))

    def forward(self, x: Tensor) -> Tensor:
        phase = nn.functional.linear(x, self.waves)
        return torch.cat([phase.sin(), phase.cos()], -1)


def dense(
    n_in: int,
    n_out: int,
    *,
    width: int = 24,
    depth: int = 2,
    act: Callable[[], nn.Module] = nn.Tanh,
    drop: float = 0.0,
    embed: float = 0.0,
    init: Callable[[nn.Module], Any] | None = None,
) -> nn.Sequential:
    """Fully connected network; `embed` is the largest wave number of an embedding before it."""
    net = nn.Sequential()
    if embed:
        net.append(Embed(n_in, embed))
        n_in = 48
    for _ in range(depth):
        net.append(nn.Linear(n_in, width)).append(act())
        if drop:
            net.append(nn.Dropout(drop))
        n_in = width
    net.append(nn.Linear(n_in, n_out))
    return net.apply(init) if init else net


ADAM: Optimizer = partial(torch.optim.Adam, lr=3e-3)


class Task(pl.LightningModule):
    """A module that knows its solution; `net`: arguments of `dense`, `opt` and `plan`: training."""

    def __init__(
        self,
        net: Mapping[str, Any] | None = None,
        opt: Optimizer = ADAM,
        plan: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__()
        self.options, self.opt, self.plan = dict(net or {}), opt, plan

    def loader(self, steps: int) -> DataLoader[Any]:
        return DataLoader(range(steps), batch_size=None)

    def configure_optimizers(self) -> Any:
        optimizer = self.opt(self.parameters())
        if self.plan is None:
            return optimizer
        return [optimizer], [{"scheduler": self.plan(optimizer), "interval": "step"}]

    def compare(self) -> tuple[Tensor, Tensor]:
        """Found and true values."""
        raise NotImplementedError

    def error(self) -> float:
        was, _ = self.training, self.eval()
        with torch.no_grad():
            found, true = self.compare()
        self.train(was)
        off = float(torch.linalg.norm(found.double() - true.double()) / true.double().norm())
        return off if math.isfinite(off) else math.inf


def slope(y: Tensor, x: Tensor) -> Tensor:
    """dy/dx of a column."""
    (g,) = torch.autograd.grad(y.sum(), x, create_graph=True)
    return g


def adam(lr: float, **more: Any) -> Optimizer:
    return partial(torch.optim.Adam, lr=lr, **more)
