"""The LightningModule that the studies share."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from tests.broken.tenth.models import Field, Limits, Sampler, Stream, adamw, box_sampler


def gradient(u: Tensor, x: Tensor) -> Tensor:
    """du/dx (N, dim) of u (N, 1)."""
    return torch.autograd.grad(u.sum(), x, create_graph=True)[0]


class Study(pl.LightningModule):
    """Fields on a box, a dictionary of losses with lambdas.

    Args:
        limits: (low, high) of each coordinate.
        outputs: Number of fields.
        net: Arguments of `Field`.
        normalise: Scale the coordinates inside of the network.
        optimizer: parameters -> optimizer.
        schedule: optimizer -> scheduler, stepped in every step.
        n: Number of collocation points.
        sampler: Draws them; by default uniform ones.
        batch: Size of mini-batches of a fixed set; None for all at once.
        stream: Draw new points for every step.
        lambdas: Name of a loss -> its weight.
        double: Compute in float64.
    """

    def __init__(
        self,
        limits: Limits,
        outputs: int = 1,
        *,
        net: Mapping[str, Any] | None = None,
        normalise: bool = True,
        optimizer: Callable[..., Any] = adamw(),
        schedule: Callable[[Any], Any] | None = None,
        n: int = 200,
        sampler: Sampler | None = None,
        batch: int | None = None,
        stream: bool = False,
        lambdas: Mapping[str, float] | None = None,
        double: bool = False,
    ) -> None:
        super().__init__()
        self.limits, self.outputs, self.optimizer, self.schedule = (
            limits,
            outputs,
            optimizer,
            schedule,
        )
        self.net = Field(len(limits), outputs, limits if normalise else None, **dict(net or {}))
        self.sampler = sampler or box_sampler(limits, n)
        self.batch, self.stream, self.lambdas = batch, stream, dict(lambdas or {})
        self.real = torch.float64 if double else torch.float32
        self.to(self.real)

    # -- data and optimizer --------------------------------------------------------------------

    def loader(self, steps: int) -> DataLoader[Any]:
        if self.stream:
            return DataLoader(Stream(self.sampler), batch_size=None)
        points = TensorDataset(self.sampler())
        return DataLoader(points, batch_size=self.batch or len(points), shuffle=bool(self.batch))

    def configure_optimizers(self) -> Any:
        optimizer = self.optimizer(self.trainables())
        if self.schedule is None:
            return optimizer
        return [optimizer], [{"scheduler": self.schedule(optimizer), "interval": "step"}]

    def trainables(self) -> Any:
        return self.parameters()

    # -- training ------------------------------------------------------------------------------

    def losses(self, x: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError

    def coordinates(self, batch: Any) -> Tensor:
        x = batch if isinstance(batch, Tensor) else batch[0]
        return x.to(self.real).clone().requires_grad_(True)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        losses = self.losses(self.coordinates(batch))
        self.log_dict(losses)
        return sum(self.lambdas.get(name, 1.0) * loss for name, loss in losses.items())

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)

    # -- result --------------------------------------------------------------------------------

    def predict(self, x: Tensor) -> Tensor:
        return self(x)

    def truth(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    @torch.no_grad()
    def error(self) -> float:
        """Relative L2 error of all fields on a grid."""
        number = 300 if len(self.limits) == 1 else 41
        axes = [torch.linspace(a, b, number, dtype=torch.float64) for a, b in self.limits]
        x = torch.cartesian_prod(*axes).reshape(-1, len(axes))
        mode = self.training
        self.eval()
        found, truth = self.predict(x.to(self.real)).double(), self.truth(x)
        self.train(mode)
        error = float((found - truth).norm() / truth.norm())
        return error if math.isfinite(error) else math.inf

    def const(self, *values: float) -> Tensor:
        return torch.tensor(values, dtype=self.real)


def line(a: Tensor, value: float, column: int) -> Tensor:
    """Points (N, 2) of which one column is constant."""
    other = torch.full_like(a, value)
    return torch.cat([a, other] if column == 1 else [other, a], dim=1)
