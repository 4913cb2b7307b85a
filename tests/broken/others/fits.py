"""Curves fitted to measurements, in mini-batches of pairs."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset

from tests.broken.others.graded import Graded, dense

ADAM: Any = partial(torch.optim.Adam, lr=3e-3)


class Readings(Dataset[Any]):
    """Pairs of a position and what was read there."""

    def __init__(self, x: Tensor, y: Tensor) -> None:
        self.x, self.y = x, y

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> Any:
        return self.x[i], self.y[i]


class FirstOnly(Readings):
    """The index is divided by the length instead of taken modulo it."""

    def __getitem__(self, i: int) -> Any:
        return super().__getitem__(i // len(self))


class Encoding(nn.Module):
    """sin and cos of octaves of the input."""

    def __init__(self, octaves: int) -> None:
        super().__init__()
        self.register_buffer("k", torch.pi * 2.0 ** torch.arange(octaves))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([(x * self.k).sin(), (x * self.k).cos()], dim=1)


class Curve(Graded):
    """y = curve(x) from n readings; ``low`` and ``high`` in the units of the instrument."""

    def __init__(
        self,
        curve: Callable[[Tensor], Tensor],
        low: float = -1.0,
        high: float = 1.0,
        n: int = 200,
        batch: int = 50,
        hidden: tuple[int, ...] = (32, 32),
        act: Any = nn.Tanh,
        octaves: int = 0,
        standardise: bool = True,
        offset: float = 0.0,
        readings: Any = Readings,
        start: Callable[[nn.Module], None] | None = None,
        optim: Any = ADAM,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.box, self.exact, self.n, self.batch = ((low, high),), curve, n, batch
        self.standardise, self.offset, self.readings = standardise, offset, readings
        self.optim = optim
        body = dense(2 * octaves or 1, *hidden, 1, act=act)
        self.model = nn.Sequential(Encoding(octaves), body) if octaves else body
        if start:
            self.model.apply(start)

    def forward(self, x: Tensor) -> Tensor:
        (low, high) = self.box[0]
        if self.standardise:
            x = (x - (low + high) / 2) / ((high - low) / 2)
        return self.model(x)

    def loader(self, steps: int) -> Any:
        low, high = self.box[0]
        x = torch.linspace(low, high, self.n)[:, None]
        pairs = self.readings(x, self.exact(x) + self.offset)
        return DataLoader(pairs, batch_size=self.batch, shuffle=True)

    def difference(self, x: Tensor, y: Tensor) -> Tensor:
        return self(x) + self.offset - y

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x, y = batch
        loss = torch.mean(self.difference(x, y) ** 2)
        self.log("data/mse", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return self.optim(self.model.parameters())


class FlatCurve(Curve):
    """The readings lose their last axis, the predictions keep theirs."""

    def difference(self, x: Tensor, y: Tensor) -> Tensor:
        return self(x) - y.squeeze(-1)


def large(layer: nn.Module, deviation: float = 30.0) -> None:
    """Standard normal weights as in a course on statistics, times a temperature."""
    if isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=deviation)


def low_bias(layer: nn.Module, bias: float = -8.0) -> None:
    """All hidden biases far below zero."""
    if isinstance(layer, nn.Linear) and layer.out_features > 1:
        nn.init.constant_(layer.bias, bias)
