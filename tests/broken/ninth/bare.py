"""What the modules that are no Pinn share: loader, optimizer and error."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tests.broken.networks import adam


def gradient(y: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(y.sum(), x, create_graph=True)[0]


class Bare(pl.LightningModule):
    """Loader, optimizer and error; everything else is the problem's."""

    box: tuple[tuple[float, float], ...] = ((0.0, 1.0),)

    def __init__(
        self,
        optim: Callable[..., torch.optim.Optimizer] = adam(3e-3),
        schedule: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__()
        self.optim, self.schedule = optim, schedule

    def loader(self, steps: int) -> DataLoader[Any]:
        return DataLoader(range(steps), batch_size=None)

    def trained(self) -> Any:
        return self.parameters()

    def configure_optimizers(self) -> Any:
        optimizer = self.optim(self.trained())
        if self.schedule is None:
            return optimizer
        return [optimizer], [{"scheduler": self.schedule(optimizer), "interval": "step"}]

    def truth(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def predict(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    @torch.no_grad()
    def error(self) -> float:
        n = 300 if len(self.box) == 1 else 30
        axes = [torch.linspace(a, b, n, dtype=torch.float64) for a, b in self.box]
        x = torch.cartesian_prod(*axes).reshape(-1, len(self.box))
        self.eval()
        u = self.predict(x.to(self.dtype))
        self.train()
        truth = self.truth(x)
        e = float(torch.linalg.norm(u - truth) / torch.linalg.norm(truth))
        return e if math.isfinite(e) else math.inf
