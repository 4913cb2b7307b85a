"""Helmholtz in two dimensions: Wang, Teng, Perdikaris 2021 (gradient flow pathologies).

    u_xx + u_yy + k^2 u = q on [-1, 1]^2,    u = 0 on all four sides,    k = 1
    u = sin(pi a1 x) sin(pi a2 y),    a1 = 1, a2 = 4

Two terms: u on the boundary, and the residual inside. The second derivatives along y are large, so
the residual outweighs the boundary, and the boundary values come out wrong.

    python examples/helmholtz.py fit --config configs/helmholtz.yaml    # minutes on a CPU
"""

from __future__ import annotations

import math
from typing import Any

import torch
from gallery import points
from gallery.command_line import Report, run
from gallery.derivatives import gradient, tracked
from gallery.plots import draw
from gallery.problem import BoxProblem
from torch import Tensor

PUBLISHED = "2.02e-01 without weights, 6.33e-03 with learning rate annealing (5x50, 40,000 steps)"
BOX = points.Box((-1.0, -1.0), (1.0, 1.0))
Batch = points.Batch


class Points(points.BoxPoints):
    """Uniformly distributed points (x, y), drawn anew at each step.

    Args:
        n_residual: Points inside.
        n_boundary: Points on the four sides together.
        settings: Those of ``BoxPoints``.
    """

    def __init__(self, n_residual: int = 400, n_boundary: int = 100, **settings: Any) -> None:
        super().__init__(BOX, **settings)
        self.n_residual, self.n_boundary = n_residual, n_boundary

    def draw(self, number: int) -> Batch:
        """Points of the batch of this number, each of shape (N, 2)."""
        generator = self.generator(number)
        return {
            "r": BOX.inside(self.n_residual, generator),
            "b": BOX.boundary(self.n_boundary, generator, axes=(0, 1)),
        }


class Helmholtz(BoxProblem):
    """The PINN, trained by Adam with a decaying learning rate.

    Args:
        k: Wave number.
        a1: Half waves along x in a unit of length.
        a2: Half waves along y.
        settings: Those of ``BoxProblem``.
    """

    inputs = ("x", "y")

    def __init__(self, k: float = 1.0, a1: float = 1.0, a2: float = 4.0, **settings: Any) -> None:
        super().__init__(BOX, **settings)
        self.k, self.a1, self.a2 = k, a1, a2

    def exact(self, points: Tensor) -> Tensor:
        """The solution, (N, 1), at points (N, 2)."""
        x, y = math.pi * points[:, :1], math.pi * points[:, 1:]
        return torch.sin(self.a1 * x) * torch.sin(self.a2 * y)

    def source(self, points: Tensor) -> Tensor:
        """q, (N, 1)."""
        factor = self.k**2 - math.pi**2 * (self.a1**2 + self.a2**2)
        return factor * self.exact(points)

    def residual(self, points: Tensor) -> Tensor:
        """u_xx + u_yy + k^2 u - q, (N, 1)."""
        points = tracked(points)
        u = self.net(points)
        u_x, u_y = gradient(u, points)
        u_xx, u_yy = gradient(u_x, points)[0], gradient(u_y, points)[1]
        return u_xx + u_yy + self.k**2 * u - self.source(points.detach())

    def residuals(self, batch: Batch) -> Batch:
        """What the terms square: the error of u on the boundary, the residual inside."""
        return {
            "loss_b": self.net(batch["b"]) - self.exact(batch["b"]),
            "loss_r": self.residual(batch["r"]),
        }


def main() -> None:
    """Run the command line."""
    run(Helmholtz, Points, Report("Helmholtz 2D", PUBLISHED, draw), max_steps=5001)


if __name__ == "__main__":
    main()
