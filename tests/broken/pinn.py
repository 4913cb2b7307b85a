"""What the modules have in common: points, optimizer, logging of the terms, the error."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from tests.broken.networks import Box, Points, adam, grid, mlp, uniform

ADAM = adam(3e-3)


def d(u: Tensor, x: Tensor) -> Tensor:
    """Derivatives of u (N, 1) with respect to its points (N, dim), with a graph of their own."""
    return torch.autograd.grad(u, x, torch.ones_like(u), create_graph=True)[0]


class Pinn(pl.LightningModule):
    """A network on a box, trained on collocation points and conditions.

    Args:
        box: (low, high) of each input.
        net: Arguments of `mlp`; ``scaled=True`` scales the box inside.
        optim: parameters -> optimizer.
        schedule: optimizer -> scheduler, stepped after each step.
        trained: module -> what the optimizer gets.
        points: Draws collocation points; by default a grid of 40, or 300 random ones in 2-D.
        fresh: Draw them in every step.
        batch: They come in batches of this size.
        weights: Term -> its weight in the loss.
        without: Terms that the loss leaves out.
        dtype: Of all.
    """

    n_out = 1

    def __init__(
        self,
        box: Box,
        *,
        net: Mapping[str, Any] | None = None,
        optim: Callable[..., torch.optim.Optimizer] = ADAM,
        schedule: Callable[[Any], Any] | None = None,
        trained: Callable[[Any], Iterable[Any]] = pl.LightningModule.parameters,
        points: Points | None = None,
        fresh: bool = False,
        batch: int | None = None,
        weights: Mapping[str, float] | None = None,
        without: tuple[str, ...] = (),
        dtype: torch.dtype = torch.float32,
    ) -> None:
        super().__init__()
        self.box, self.optim, self.schedule, self.trained = box, optim, schedule, trained
        self.weights, self.without = dict(weights or {}), without
        self.fresh, self.batch = fresh, batch
        self.draw = points or (grid(*box[0], 40) if len(box) == 1 else uniform(300, *box))
        options = dict(net or {})
        if options.pop("scaled", False):
            options["box"] = box
        self.options = options
        self.net = mlp(len(box), self.n_out, **options)
        self.register_buffer("points", self.draw())
        self.to(dtype)

    def loader(self, steps: int) -> DataLoader[Any]:
        """Batches of points, or numbers that nobody reads."""
        if self.batch:
            return DataLoader(TensorDataset(self.points), batch_size=self.batch, shuffle=True)
        return DataLoader(range(steps), batch_size=None)

    def collocation(self, batch: Any) -> Tensor:
        """Points (N, dim) of this step, to be differentiated by."""
        x = self.draw().to(self.dtype) if self.fresh else batch[0] if self.batch else self.points
        return x.clone().requires_grad_()

    def at(self, *values: float) -> Tensor:
        """One point (1, dim)."""
        return torch.tensor([values], dtype=self.dtype)

    def total(self, **terms: Tensor) -> Tensor:
        """The loss of terms that are squared already; each is logged."""
        terms = {name: term for name, term in terms.items() if name not in self.without}
        for name, term in terms.items():
            self.log(name, term)
        return sum(self.weights.get(name, 1.0) * term for name, term in terms.items())

    def configure_optimizers(self) -> Any:
        optimizer = self.optim(self.trained(self))
        if self.schedule is None:
            return optimizer
        scheduler = {"scheduler": self.schedule(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def test_points(self) -> Tensor:
        n = 400 if len(self.box) == 1 else 40
        lines = [torch.linspace(low, high, n, dtype=torch.float64) for low, high in self.box]
        return torch.cartesian_prod(*lines).reshape(-1, len(self.box))

    def truth(self, x: Tensor) -> Tensor:
        """The solution (N, n_out) at points (N, dim) in float64."""
        raise NotImplementedError

    @torch.no_grad()
    def error(self) -> float:
        """Relative error of the solution in the L2 norm; infinite where it is not finite."""
        x = self.test_points()
        truth, training = self.truth(x), self.training
        u = self.eval().predict(x.to(self.dtype))
        self.train(training)
        error = float((u - truth).norm() / truth.norm())
        return error if math.isfinite(error) else math.inf

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x)
