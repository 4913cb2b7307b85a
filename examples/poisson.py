"""Poisson in one dimension: Wang, Yu, Perdikaris 2022, section 7 and Fig. 4.

    u_xx = f on [0, 1],    u = sin(a pi x),    f = -(a pi)^2 sin(a pi x)

For a = 4 the residual term learns hundreds of times faster than the boundary term, and gradient
descent ends with a wrong solution. Weights from the traces of the neural tangent kernel mend it.

    python examples/poisson.py fit --config configs/poisson.yaml          # weighted
    python examples/poisson.py fit --config configs/poisson_plain.yaml    # the same without weights

Any setting can be changed behind the YAML, e.g. ``--model.width 500``.
"""

from __future__ import annotations

import math

import torch
from gallery import points
from gallery.command_line import Report, run
from gallery.derivatives import derivative, tracked
from gallery.one_layer import OneLayer
from gallery.plots import draw
from gallery.problem import Problem
from torch import Tensor
from torch.utils.data import DataLoader

PUBLISHED = "2.40e-01 without weights, 1.63e-03 with lambda_b = 100 (a = 4, width 100)"
SD = 1 / math.sqrt(12)  # of numbers uniform on [0, 1]


class Points(points.Points):
    """The training points, fixed: every step sees the same full batch.

    Args:
        n_boundary: Rows of the boundary term, half of them at x = 0, half at x = 1.
        n_residual: Residual points, evenly spaced on [0, 1].
        n_test: Points on which the error is taken.
        steps: Length of an epoch; the command line sets it to ``trainer.max_steps``.
    """

    def __init__(
        self, n_boundary: int = 100, n_residual: int = 100, n_test: int = 1000, steps: int = 1000
    ) -> None:
        super().__init__()
        self.steps = steps
        box = points.Box((0.0,), (1.0,))
        x_b, x_r = box.grid(2).repeat_interleave(n_boundary // 2, 0), box.grid(n_residual)
        self.train = {"x_b": x_b, "x_r": x_r}  # (N_b, 1) and (N_r, 1)
        self.test = box.grid(n_test)
        self.mean, self.std = float(x_r.mean()), float(x_r.std(correction=0))

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """One batch, ``steps`` times: a single epoch, because each start of one costs time."""
        return DataLoader([self.train] * self.steps, batch_size=None)


class Poisson(Problem):
    """The PINN, trained by plain gradient descent on the sum of its two mean squares.

    Args:
        a: Frequency; the exact solution is sin(a pi x).
        width: Neurons of the hidden layer.
        lr: Step size of gradient descent.
        mean: Mean of the residual points; the command line takes it from the data.
        std: Their standard deviation; the command line takes it from the data.
    """

    inputs = ("x",)

    def __init__(
        self, a: float = 4.0, width: int = 100, lr: float = 1e-5, mean: float = 0.5, std: float = SD
    ) -> None:
        super().__init__(lr)
        self.save_hyperparameters()
        self.a = a
        self.net = OneLayer(width, mean, std)

    def exact(self, x: Tensor) -> Tensor:
        """u = sin(a pi x)."""
        return torch.sin(self.a * math.pi * x)

    def source(self, x: Tensor) -> Tensor:
        """f = u_xx = -(a pi)^2 sin(a pi x)."""
        return -((self.a * math.pi) ** 2) * self.exact(x)

    def residual(self, x: Tensor) -> Tensor:
        """u_xx - f at the points x, (N_r, 1)."""
        x = tracked(x)
        u_xx = derivative(derivative(self.net(x), x), x)
        return u_xx - self.source(x.detach())

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the terms square: u - sin(a pi x) at the ends, u_xx - f inside."""
        x_b, x_r = batch["x_b"], batch["x_r"]
        return {"loss_b": self.net(x_b) - self.exact(x_b), "loss_r": self.residual(x_r)}

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain gradient descent: the theory is about its limit of small steps."""
        return torch.optim.SGD(self.parameters(), lr=self.lr)


def main() -> None:
    """Run the command line."""
    report = Report("Poisson 1D, a = {model.a:g}", PUBLISHED, draw)
    run(Poisson, Points, report, max_steps=40_001, shared=("mean", "std"))


if __name__ == "__main__":
    main()
