"""The Klein-Gordon equation: Wang, Teng, Perdikaris 2021 (gradient flow pathologies).

    u_tt - u_xx + u^3 = f on [0, 1] x [0, 1],    u = x cos(5 pi t) + (x t)^3
    u and u_t are given at t = 0, u at x = 0 and x = 1

Four terms: u on both boundaries, u on the initial line, u_t there, and the residual inside.

    python examples/klein_gordon.py fit --config configs/klein_gordon.yaml    # minutes on a CPU
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

PUBLISHED = "1.79e-01 without weights, 1.06e-02 with learning rate annealing (5x50, 40,000 steps)"
BOX = points.Box((0.0, 0.0), (1.0, 1.0))
Batch = points.Batch


class Points(points.BoxPoints):
    """Uniformly distributed points (t, x), drawn anew at each step.

    Args:
        n_residual: Points inside.
        n_boundary: Points at x = 0 and x = 1 together.
        n_initial: Points at t = 0, for u and for u_t.
        settings: Those of ``BoxPoints``.
    """

    def __init__(
        self, n_residual: int = 300, n_boundary: int = 200, n_initial: int = 100, **settings: Any
    ) -> None:
        super().__init__(BOX, **settings)
        self.n_residual, self.n_boundary, self.n_initial = n_residual, n_boundary, n_initial

    def draw(self, number: int) -> Batch:
        """Points of the batch of this number, each of shape (N, 2)."""
        generator = self.generator(number)
        return {
            "r": BOX.inside(self.n_residual, generator),
            "b": BOX.boundary(self.n_boundary, generator, axes=(1,)),
            "initial": BOX.side(self.n_initial, 0, 0.0, generator),
        }


class KleinGordon(BoxProblem):
    """The PINN, trained by Adam with a decaying learning rate.

    Args:
        omega: Half oscillations in a unit of time.
        settings: Those of ``BoxProblem``.
    """

    def __init__(self, omega: float = 5.0, **settings: Any) -> None:
        super().__init__(BOX, **settings)
        self.omega = omega

    def exact(self, points: Tensor) -> Tensor:
        """The solution, (N, 1), at points (N, 2)."""
        t, x = points[:, :1], points[:, 1:]
        return x * torch.cos(self.omega * math.pi * t) + (x * t) ** 3

    def source(self, points: Tensor) -> Tensor:
        """f, (N, 1)."""
        t, x = points[:, :1], points[:, 1:]
        omega = self.omega * math.pi
        u_tt = -(omega**2) * x * torch.cos(omega * t) + 6 * x**3 * t
        return u_tt - 6 * x * t**3 + self.exact(points) ** 3

    def residual(self, points: Tensor) -> Tensor:
        """u_tt - u_xx + u^3 - f, (N, 1)."""
        points = tracked(points)
        u = self.net(points)
        u_t, u_x = gradient(u, points)
        u_tt, u_xx = gradient(u_t, points)[0], gradient(u_x, points)[1]
        return u_tt - u_xx + u**3 - self.source(points.detach())

    def residuals(self, batch: Batch) -> Batch:
        """What the terms square: errors of u and u_t on the sides, the residual inside."""
        boundary, initial = batch["b"], tracked(batch["initial"])
        u = self.net(initial)
        return {
            "loss_b": self.net(boundary) - self.exact(boundary),
            "loss_u": u - self.exact(initial.detach()),
            "loss_ut": gradient(u, initial)[0],  # it is 0 at t = 0
            "loss_r": self.residual(batch["r"]),
        }


def main() -> None:
    """Run the command line."""
    run(KleinGordon, Points, Report("Klein-Gordon 1D", PUBLISHED, draw), max_steps=5001)


if __name__ == "__main__":
    main()
