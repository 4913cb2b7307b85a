"""The wave equation in one dimension: Wang, Yu, Perdikaris 2022, section 7.3 and Figs 6 and 7.

    u_tt = c^2 u_xx on [0, 1] x [0, 1],    u(0, t) = u(1, t) = 0,    u_t(x, 0) = 0
    u = sin(pi x) cos(c pi t) + a sin(2 c pi x) cos(4 c pi t),    a = 0.5, c = 2

Three terms: u on the initial line and both boundaries, u_t on the initial line, and the residual
inside. The residual learns thousands of times faster than u, and a PINN without weights ends with
a solution that is wrong by half.

    python examples/wave.py fit --config configs/wave.yaml          # weighted, minutes on a CPU
    python examples/wave.py fit --config configs/wave_plain.yaml    # the same without weights
    python examples/wave.py fit --config configs/wave_paper.yaml    # the paper's network, hours

A run that was stopped goes on where it was with ``--ckpt_path last``.
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

PUBLISHED = "4.518e-01 without weights, 1.728e-03 with (paper); 3.858e-03 with (notebook)"
BOX = points.Box((0.0, 0.0), (1.0, 1.0))
Batch = points.Batch


class Points(points.BoxPoints):
    """Uniformly distributed points (t, x), drawn anew at each step.

    Args:
        n_initial: Points at t = 0, for u and for u_t.
        n_boundary: Points at x = 0, and as many at x = 1.
        n_residual: Points inside.
        settings: Those of ``BoxPoints``.
    """

    def __init__(
        self,
        n_initial: int = 100,
        n_boundary: int = 100,
        n_residual: int = 300,
        n_test: int = 200,
        **settings: Any,
    ) -> None:
        super().__init__(BOX, n_test, **settings)
        self.n_initial, self.n_boundary, self.n_residual = n_initial, n_boundary, n_residual

    def draw(self, number: int) -> Batch:
        """Points of the batch of this number, each of shape (N, 2)."""
        generator = self.generator(number)
        initial = BOX.side(self.n_initial, 0, 0.0, generator)
        left, right = (BOX.side(self.n_boundary, 1, x, generator) for x in (0.0, 1.0))
        inside = BOX.inside(self.n_residual, generator)
        return {"u": torch.cat([initial, left, right]), "ut": initial, "r": inside}


class Wave(BoxProblem):
    """The PINN, trained by Adam with a decaying learning rate.

    Args:
        a: Amplitude of the second mode.
        c: Speed of the wave.
        width: Neurons a layer.
        scale: Standard deviation of the angles of Fourier features, if there are any.
        settings: Those of ``BoxProblem``.
    """

    def __init__(
        self, a: float = 0.5, c: float = 2.0, width: int = 500, scale: float = 10.0, **settings: Any
    ) -> None:
        super().__init__(BOX, width=width, scale=scale, **settings)
        self.a, self.c = a, c
        self.factors = {"loss_u": 3.0}  # the sum of the means on the three sides

    def exact(self, points: Tensor) -> Tensor:
        """The solution, (N, 1), at points (N, 2)."""
        t, x = math.pi * points[:, :1], math.pi * points[:, 1:]
        a, c = self.a, self.c
        return x.sin() * (c * t).cos() + a * (2 * c * x).sin() * (4 * c * t).cos()

    def velocity(self, points: Tensor) -> Tensor:
        """u_t, (N, 1)."""
        points = tracked(points)
        return gradient(self.net(points), points)[0]

    def residual(self, points: Tensor) -> Tensor:
        """u_tt - c^2 u_xx, (N, 1)."""
        points = tracked(points)
        u_t, u_x = gradient(self.net(points), points)
        u_tt, u_xx = gradient(u_t, points)[0], gradient(u_x, points)[1]
        return u_tt - self.c**2 * u_xx

    def residuals(self, batch: Batch) -> Batch:
        """What the terms square: errors of u and u_t on the sides, u_tt - c^2 u_xx inside."""
        return {
            "loss_u": self.net(batch["u"]) - self.exact(batch["u"]),
            "loss_ut": self.velocity(batch["ut"]),
            "loss_r": self.residual(batch["r"]),
        }


def main() -> None:
    """Run the command line."""
    run(Wave, Points, Report("Wave 1D", PUBLISHED, draw), max_steps=80_001)


if __name__ == "__main__":
    main()
