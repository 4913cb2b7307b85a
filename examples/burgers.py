"""Burgers' equation with a small viscosity: Raissi, Perdikaris, Karniadakis 2019 (PINNs).

    u_t + u u_x = nu u_xx on [0, 1] x [-1, 1],    u(t, -1) = u(t, 1) = 0,    u(0, x) = -sin(pi x)
    nu = 0.01 / pi

Three terms: u on the initial line, u on both ends, and the residual inside. A layer of a hundredth
of the width forms at x = 0, where few of the points lie. The reference is the transform of Cole and
Hopf.

    python examples/burgers.py fit --config configs/burgers.yaml    # minutes on a CPU
"""

from __future__ import annotations

import math
from typing import Any

import torch
from gallery import points, references
from gallery.command_line import Report, run
from gallery.derivatives import gradient, tracked
from gallery.plots import draw
from gallery.problem import BoxProblem
from torch import Tensor

PUBLISHED = "6.7e-04 without weights, by L-BFGS (9x20, 10,000 points)"
BOX = points.Box((0.0, -1.0), (1.0, 1.0))
Batch = points.Batch


class Points(points.BoxPoints):
    """Uniformly distributed points (t, x), drawn anew at each step.

    Args:
        n_residual: Points inside.
        n_initial: Points at t = 0.
        n_boundary: Points on both ends together.
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
        return {
            "r": BOX.inside(self.n_residual, generator),
            "u": BOX.side(self.n_initial, 0, 0.0, generator),
            "b": BOX.boundary(self.n_boundary, generator, axes=(1,)),
        }


class Burgers(BoxProblem):
    """The PINN, trained by Adam with a decaying learning rate.

    Args:
        nu: Viscosity.
        settings: Those of ``BoxProblem``.
    """

    def __init__(self, nu: float = 0.01 / math.pi, **settings: Any) -> None:
        super().__init__(BOX, **settings)
        self.nu = nu

    def reference(self, points: Tensor) -> Tensor:
        """The solution, (N, 1), at points (N, 2)."""
        t, x = points.double().cpu().numpy().T
        return torch.as_tensor(references.burgers(t, x, self.nu)).to(points)[:, None]

    def residual(self, points: Tensor) -> Tensor:
        """u_t + u u_x - nu u_xx, (N, 1)."""
        points = tracked(points)
        u = self.net(points)
        u_t, u_x = gradient(u, points)
        return u_t + u * u_x - self.nu * gradient(u_x, points)[1]

    def residuals(self, batch: Batch) -> Batch:
        """What the terms square: the errors of u at t = 0 and at the ends, the residual inside."""
        return {
            "loss_u": self.net(batch["u"]) + torch.sin(math.pi * batch["u"][:, 1:]),
            "loss_b": self.net(batch["b"]),
            "loss_r": self.residual(batch["r"]),
        }


def main() -> None:
    """Run the command line."""
    run(Burgers, Points, Report("Burgers 1D", PUBLISHED, draw), max_steps=5001)


if __name__ == "__main__":
    main()
