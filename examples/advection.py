"""Advection with a large velocity: Krishnapriyan et al. 2021 (failure modes), beta = 30.

    u_t + beta u_x = 0 on [0, 1] x [0, 2 pi],    u(t, 0) = u(t, 2 pi),    u(0, x) = sin(x)
    u = sin(x - beta t)

Three terms: u on the initial line, its jump over the period, and the residual inside. A PINN learns
the start and then a constant: the residual alone carries the start into later times.

    python examples/advection.py fit --config configs/advection.yaml    # minutes on a CPU
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

PUBLISHED = "for beta = 80: 9.51e-01 plain, 6.88e-04 with weights by gradient norms and much else"
BOX = points.Box((0.0, 0.0), (1.0, 2 * math.pi))
Batch = points.Batch


class Points(points.BoxPoints):
    """Uniformly distributed points (t, x), drawn anew at each step.

    Args:
        n_residual: Points inside.
        n_initial: Points at t = 0.
        n_boundary: Points at x = 0, and the same times at x = 2 pi.
        settings: Those of ``BoxPoints``.
    """

    def __init__(
        self, n_residual: int = 400, n_initial: int = 60, n_boundary: int = 60, **settings: Any
    ) -> None:
        super().__init__(BOX, **settings)
        self.n_residual, self.n_initial, self.n_boundary = n_residual, n_initial, n_boundary

    def draw(self, number: int) -> Batch:
        """Points of the batch of this number, each of shape (N, 2)."""
        generator = self.generator(number)
        inside = BOX.inside(self.n_residual, generator)
        initial = BOX.side(self.n_initial, 0, 0.0, generator)
        left = BOX.side(self.n_boundary, 1, 0.0, generator)
        right = left + torch.tensor([0.0, 2 * math.pi])
        return {"r": inside, "u": initial, "left": left, "right": right}


class Advection(BoxProblem):
    """The PINN, trained by Adam with a decaying learning rate.

    Args:
        beta: Velocity.
        settings: Those of ``BoxProblem``.
    """

    def __init__(self, beta: float = 30.0, **settings: Any) -> None:
        super().__init__(BOX, **settings)
        self.beta = beta

    def exact(self, points: Tensor) -> Tensor:
        """The solution, (N, 1), at points (N, 2)."""
        t, x = points[:, :1], points[:, 1:]
        return torch.sin(x - self.beta * t)

    def residual(self, points: Tensor) -> Tensor:
        """u_t + beta u_x, (N, 1)."""
        points = tracked(points)
        u_t, u_x = gradient(self.net(points), points)
        return u_t + self.beta * u_x

    def residuals(self, batch: Batch) -> Batch:
        """What the terms square: the error of u at t = 0, its jump, the residual inside."""
        return {
            "loss_u": self.net(batch["u"]) - self.exact(batch["u"]),
            "loss_b": self.net(batch["left"]) - self.net(batch["right"]),
            "loss_r": self.residual(batch["r"]),
        }


def main() -> None:
    """Run the command line."""
    title = "Advection 1D, beta = {model.beta:g}"
    run(Advection, Points, Report(title, PUBLISHED, draw), max_steps=5001)


if __name__ == "__main__":
    main()
