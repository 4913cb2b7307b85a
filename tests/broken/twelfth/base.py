"""What the five colleagues' codes share: the box, the test of the solution, the optimizer."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from tests.broken.networks import Box
from tests.broken.pinn import ADAM


class Model(pl.LightningModule):
    """A LightningModule that knows its box and can compare itself with the solution."""

    def __init__(
        self,
        box: Box,
        optim: Callable[..., torch.optim.Optimizer] = ADAM,
        schedule: Callable[[Any], Any] | None = None,
        net: Any = None,  # every run gives it; the networks here are made by the problems
    ) -> None:
        super().__init__()
        self.box, self.optim, self.schedule = box, optim, schedule

    def loader(self, steps: int) -> Any:
        return DataLoader(range(steps), batch_size=None)

    def configure_optimizers(self) -> Any:
        optimizer = self.optim(self.parameters())
        if self.schedule is None:
            return optimizer
        return [optimizer], [{"scheduler": self.schedule(optimizer), "interval": "step"}]

    def truth(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def predict(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def test_points(self) -> Tensor:
        n = 300 if len(self.box) == 1 else 40
        lines = [torch.linspace(low, high, n, dtype=torch.float64) for low, high in self.box]
        return torch.cartesian_prod(*lines).reshape(-1, len(self.box))

    @torch.no_grad()
    def error(self) -> float:
        x = self.test_points()
        truth, training = self.truth(x), self.training
        u = self.eval().predict(x.float())
        self.train(training)
        error = float((u - truth).norm() / truth.norm())
        return error if math.isfinite(error) else math.inf
