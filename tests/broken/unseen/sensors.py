"""Pure fits of measured curves, in mini-batches."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from itertools import pairwise
from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn as nn
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, TensorDataset

from tests.broken.unseen.tools import judged, line, relative

Curve = Callable[[Tensor], Tensor]
ADAM = partial(torch.optim.Adam, lr=3e-3)


def swell(x: Tensor) -> Tensor:
    return torch.sin(3 * x) + 0.5 * x


def hum(x: Tensor) -> Tensor:
    """A slow wave with a fast one upon it, of the same size."""
    return torch.sin(2 * x) + torch.sin(40 * x)


def bumps(x: Tensor) -> Tensor:
    """Four peaks of different heights."""
    peaks = ((-0.75, 1.0), (-0.3, -0.8), (0.2, 1.2), (0.7, -1.0))
    return torch.stack([h * torch.exp(-50 * (x - c) ** 2) for c, h in peaks]).sum(0)


class Samples(Dataset[Any]):
    """Pairs of a curve in [-1, 1]; ``index`` says which one belongs to a number."""

    def __init__(self, x: Tensor, y: Tensor, index: Callable[[int], int] = int) -> None:
        self.x, self.y, self.index = x, y, index

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, i: int) -> tuple[Tensor, Tensor]:
        return self.x[self.index(i)], self.y[self.index(i)]


class Fourier(nn.Module):
    k: Tensor

    def __init__(self, octaves: int) -> None:
        super().__init__()
        self.register_buffer("k", 2.0 ** torch.arange(octaves))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([x, torch.sin(x * self.k), torch.cos(x * self.k)], dim=-1)


class Sensor(pl.LightningModule):
    """A curve learned from readings.

    Args:
        curve: What was measured.
        readings: How many.
        flat: The targets have one axis.
        index: Which reading a number means.
        width, depth, activation, octaves: Of the network; octaves of Fourier features before it.
        bias: Of the hidden layers, if it is to be set.
        offset: A constant that readings and output have on top.
        optimizer: parameters -> optimizer.
        kind: Precision of the network.
    """

    def __init__(
        self,
        curve: Curve = swell,
        readings: int = 128,
        flat: bool = False,
        index: Callable[[int], int] = int,
        width: int = 32,
        depth: int = 2,
        activation: type[nn.Module] = nn.Tanh,
        octaves: int = 0,
        bias: float | None = None,
        offset: float = 0.0,
        optimizer: Any = ADAM,
        kind: torch.dtype = torch.float32,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.curve, self.offset, self.optimizer, self.kind = curve, offset, optimizer, kind
        sizes = [1 + 2 * octaves, *[width] * depth]
        layers: list[nn.Module] = [Fourier(octaves)] if octaves else []
        for a, b in pairwise(sizes):
            layers += [nn.Linear(a, b), activation()]
            if bias is not None:
                nn.init.constant_(layers[-2].bias, bias)  # type: ignore[arg-type]
        self.f = nn.Sequential(*layers, nn.Linear(width, 1)).to(kind)
        x = line(-1, 1, readings)
        y = curve(x) + offset
        self.samples = Samples(x, y.squeeze(1) if flat else y, index)

    def forward(self, x: Tensor) -> Tensor:
        return self.f(x.to(self.kind)) + self.offset

    def training_step(self, batch: tuple[Tensor, Tensor], batch_idx: int) -> Tensor:
        x, y = batch
        loss = ((self(x) - y.to(self.kind)) ** 2).mean()
        self.log("train/mse", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return self.optimizer(self.f.parameters())

    def loader(self, steps: int) -> Any:
        return DataLoader(self.samples, batch_size=32, shuffle=True)

    def error(self) -> float:
        x = line(-1, 1, 500)
        return relative(self.f(x.to(self.kind)), self.curve(x))


class Classic(pl.LightningModule):
    """y' + y = forcing with y(-1) given; the slope is a difference with a step ``h``.

    The network may be a sum of a constant level and a deviation, as ``level + net``.
    """

    def __init__(
        self,
        h: float = 1e-2,
        level: float = 0.0,
        second: bool = False,
        kind: torch.dtype = torch.float32,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.h, self.level, self.second, self.kind = h, level, second, kind
        self.body = nn.Sequential(nn.Linear(1, 30), nn.Tanh(), nn.Linear(30, 30), nn.Tanh())
        self.body.append(nn.Linear(30, 1))
        self.body.to(kind)

    def y(self, x: Tensor) -> Tensor:
        return self.level + self.body(x)

    def difference(self, x: Tensor) -> Tensor:
        h = self.h
        if self.second:
            return (self.y(x + h) - 2 * self.y(x) + self.y(x - h)) / h**2
        return (self.y(x + h) - self.y(x - h)) / (2 * h)

    def forcing(self, x: Tensor) -> Tensor:
        return -9 * torch.sin(3 * x) if self.second else 3 * torch.cos(3 * x)

    def training_step(self, batch: list[Tensor], batch_idx: int) -> Tensor:
        x = batch[0].to(self.kind)
        fd = ((self.difference(x) - self.forcing(x)) ** 2).mean()
        ends = torch.tensor([[-1.0], [1.0]], dtype=self.kind)
        bc = ((self.y(ends) - self.level - torch.sin(3 * ends)) ** 2).mean()
        self.log("fd_residual", fd, prog_bar=False)
        self.log("bc", bc)
        return fd + 10 * bc

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)

    def loader(self, steps: int) -> Any:
        return DataLoader(TensorDataset(line(-1, 1, 64)), batch_size=64, shuffle=True)

    def error(self) -> float:
        x = line(-1, 1, 300)
        return relative(self.body(x.to(self.kind)), torch.sin(3 * x))


ADAMW = partial(torch.optim.AdamW, lr=3e-3)
MOMENTUM = partial(torch.optim.SGD, lr=0.05, momentum=0.9)

SENSORS = [
    judged("sensor-flat", "BROADCAST", Sensor, {"steps": 1500}, {"flat": True}),
    judged("sensor-first", "REPEATED_POINTS", Sensor, {"steps": 1500}, {"index": lambda i: 0}),
    judged(
        "sensor-dead",
        "SATURATED",
        Sensor,
        {"steps": 1500, "activation": nn.ReLU},
        {"bias": -8.0},
    ),
    judged(
        "sensor-sigmoid",
        "SATURATED",
        Sensor,
        {"steps": 2500, "activation": nn.Sigmoid, "optimizer": partial(torch.optim.Adam, lr=1e-2)},
        {"bias": 25.0},
    ),
    judged(
        "sensor-bumps",
        "TOO_NARROW",
        Sensor,
        {"steps": 3000, "curve": bumps, "optimizer": partial(torch.optim.Adam, lr=1e-2)},
        {"width": 2, "depth": 1},
    ),
    judged(
        "sensor-hum",
        "SPECTRAL_BIAS",
        Sensor,
        {"steps": 1500, "curve": hum, "octaves": 6},
        {"octaves": 0},
    ),
    judged(
        "sensor-level",
        "ROUNDING",
        Sensor,
        {"steps": 1500, "offset": 602.0},
        {"kind": torch.bfloat16},
    ),
    judged(
        "sensor-momentum",
        "STEP_TOO_LARGE",
        Sensor,
        {"steps": 1500, "optimizer": MOMENTUM, "trainer": {"gradient_clip_val": 1.0}},
        {"optimizer": partial(torch.optim.SGD, lr=1.5, momentum=0.9)},
    ),
    judged("sensor-clean", "CLEAN", Sensor, {"steps": 1500, "optimizer": ADAMW, "readings": 96}),
    judged("difference-first", "ROUNDING", Classic, {"steps": 1500, "level": 1e3}, {"h": 1e-7}),
    judged("difference-second", "ROUNDING", Classic, {"steps": 1500, "second": True}, {"h": 1e-4}),
]
