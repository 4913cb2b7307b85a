"""Kovasznay flow: a steady solution of the Navier-Stokes equations, Jin et al. 2021 (NSFnets).

    u u_x + v u_y + p_x = (u_xx + u_yy) / Re    u = 1 - exp(l x) cos(2 pi y)
    u v_x + v v_y + p_y = (v_xx + v_yy) / Re    v = l / (2 pi) exp(l x) sin(2 pi y)
    u_x + v_y = 0                               p = (1 - exp(2 l x)) / 2
    on [-0.5, 1] x [-0.5, 1.5],    Re = 40,    l = Re / 2 - sqrt(Re^2 / 4 + 4 pi^2)

Five terms: both momenta and the mass inside, u and v on all four sides, p on the outflow x = 1,
since pressure is determined up to a constant only. The error is over all three outputs.

    python examples/kovasznay.py fit --config configs/kovasznay.yaml    # minutes on a CPU
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

PUBLISHED = "none in this setting"
BOX = points.Box((-0.5, -0.5), (1.0, 1.5))
Batch = points.Batch


class Points(points.BoxPoints):
    """Uniformly distributed points (x, y), drawn anew at each step.

    Args:
        n_residual: Points inside.
        n_boundary: Points on the four sides together.
        n_outflow: Points at x = 1 for the pressure.
        settings: Those of ``BoxPoints``.
    """

    def __init__(
        self, n_residual: int = 400, n_boundary: int = 100, n_outflow: int = 25, **settings: Any
    ) -> None:
        super().__init__(BOX, **settings)
        self.n_residual, self.n_boundary, self.n_outflow = n_residual, n_boundary, n_outflow

    def draw(self, number: int) -> Batch:
        """Points of the batch of this number, each of shape (N, 2)."""
        generator = self.generator(number)
        return {
            "r": BOX.inside(self.n_residual, generator),
            "b": BOX.boundary(self.n_boundary, generator, axes=(0, 1)),
            "p": BOX.side(self.n_outflow, 0, 1.0, generator),
        }


class Kovasznay(BoxProblem):
    """The PINN, trained by Adam with a decaying learning rate.

    Args:
        re: Reynolds number.
        settings: Those of ``BoxProblem``.
    """

    inputs, outputs = ("x", "y"), ("u", "v", "p")

    def __init__(self, re: float = 40.0, **settings: Any) -> None:
        super().__init__(BOX, n_out=3, **settings)
        self.re = re

    def exact(self, points: Tensor) -> Tensor:
        """u, v and p, (N, 3), at points (N, 2)."""
        x, y = points[:, :1], 2 * math.pi * points[:, 1:]
        decay = self.re / 2 - math.sqrt(self.re**2 / 4 + 4 * math.pi**2)
        e = torch.exp(decay * x)
        u, v = 1 - e * torch.cos(y), decay / (2 * math.pi) * e * torch.sin(y)
        return torch.cat([u, v, (1 - e**2) / 2], 1)

    def equations(self, points: Tensor) -> Batch:
        """Both momenta and the mass, each (N, 1)."""
        points = tracked(points)
        u, v, p = self.net(points).split(1, 1)
        u_x, u_y = gradient(u, points)
        v_x, v_y = gradient(v, points)
        p_x, p_y = gradient(p, points)
        by_u = gradient(u_x, points)[0] + gradient(u_y, points)[1]
        by_v = gradient(v_x, points)[0] + gradient(v_y, points)[1]
        return {
            "loss_x": u * u_x + v * u_y + p_x - by_u / self.re,
            "loss_y": u * v_x + v * v_y + p_y - by_v / self.re,
            "loss_mass": u_x + v_y,
        }

    def residuals(self, batch: Batch) -> Batch:
        """What the terms square: errors of u, v and p on the sides, the equations inside."""
        sides, outflow = (self.net(batch[at]) - self.exact(batch[at]) for at in ("b", "p"))
        return {"loss_b": sides[:, :2], "loss_p": outflow[:, 2:], **self.equations(batch["r"])}


def main() -> None:
    """Run the command line."""
    run(Kovasznay, Points, Report("Kovasznay flow", PUBLISHED, draw), max_steps=5001)


if __name__ == "__main__":
    main()
