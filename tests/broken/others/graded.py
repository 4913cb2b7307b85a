"""What every problem here owes the runs: batches, and the error of what it learned."""

from __future__ import annotations

import math
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.broken.run import Run


class Graded(pl.LightningModule):
    """Knows its exact solution; how it is trained is up to the problem."""

    box: tuple[tuple[float, float], ...] = ((0.0, 1.0),)

    def loader(self, steps: int) -> Any:
        return DataLoader(range(steps), batch_size=None)

    def exact(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def guess(self, x: Tensor) -> Tensor:
        return self(x)

    def error(self) -> float:
        """Relative L2 error on a grid of the box."""
        n = 300 if len(self.box) == 1 else 35
        axes = [torch.linspace(a, b, n, dtype=torch.float64) for a, b in self.box]
        x = torch.cartesian_prod(*axes).reshape(-1, len(self.box))
        training = self.training
        self.eval()
        with torch.no_grad():
            gap = self.guess(x.to(next(self.parameters()).dtype)).double() - self.exact(x)
        self.train(training)
        error = float(gap.norm() / self.exact(x).norm())
        return error if math.isfinite(error) else math.inf


def dense(*sizes: int, act: Callable[[], nn.Module] = nn.Tanh) -> nn.Sequential:
    """Linear layers with an activation between them."""
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), act()]
    return nn.Sequential(*layers[:-1])


def case(
    name: str,
    cause: str,
    problem: Any,
    settings: dict[str, Any],
    mistake: Any = None,
    note: str = "",
) -> Run:
    return Run(f"others-{name}", cause, "set", problem, settings, mistake or {}, note)
