"""Poisson in one dimension with two scales: Wang, Wang, Perdikaris 2021 (eigenvector bias).

    u_xx = f on [0, 1],    u = 0 at x = 0 and x = 1
    u = sin(2 pi x) + a sin(50 pi x),    a = 0.1

Two terms: u at the ends, and the residual inside. f consists almost of the fast part alone, yet a
network learns the slow one first. Without weights the ends are lost: an error of 9 after 3,000
steps. With weights the slow part comes, 0.4; with random Fourier features, too, the fast one, 0.1:
``--model.frequencies 100 --model.scale 20``.

    python examples/two_scale_poisson.py fit --config configs/two_scale_poisson.yaml    # 1 minute
"""

from __future__ import annotations

import math
from typing import Any

import torch
from gallery import points
from gallery.command_line import Report, run
from gallery.derivatives import derivative, tracked
from gallery.plots import draw
from gallery.problem import BoxProblem
from torch import Tensor

PUBLISHED = "none in numbers: a stress test for spectral bias"
BOX = points.Box((0.0,), (1.0,))
Batch = points.Batch


class Points(points.BoxPoints):
    """Uniformly distributed points x, drawn anew at each step, and the two ends.

    Args:
        n_residual: Points inside.
        n_boundary: Rows of the boundary term, x = 0 and x = 1 in turns.
        n_test: Points on which the error is taken.
        settings: Those of ``BoxPoints``.
    """

    def __init__(
        self, n_residual: int = 200, n_boundary: int = 2, n_test: int = 1000, **settings: Any
    ) -> None:
        super().__init__(BOX, n_test, **settings)
        self.n_residual, self.n_boundary = n_residual, n_boundary

    def draw(self, number: int) -> Batch:
        """Points of the batch of this number, each of shape (N, 1)."""
        generator = self.generator(number)
        return {
            "r": BOX.inside(self.n_residual, generator),
            "b": BOX.boundary(self.n_boundary, generator, axes=(0,)),
        }


class TwoScalePoisson(BoxProblem):
    """The PINN, trained by Adam with a decaying learning rate.

    Args:
        a: Amplitude of the fast part.
        slow: Half waves of the slow part.
        fast: Half waves of the fast part.
        settings: Those of ``BoxProblem``.
    """

    inputs = ("x",)

    def __init__(
        self, a: float = 0.1, slow: float = 2.0, fast: float = 50.0, **settings: Any
    ) -> None:
        super().__init__(BOX, **settings)
        self.parts = ((1.0, slow * math.pi), (a, fast * math.pi))

    def exact(self, x: Tensor) -> Tensor:
        """The solution, (N, 1), at points (N, 1)."""
        (one, slow), (a, fast) = self.parts
        return one * torch.sin(slow * x) + a * torch.sin(fast * x)

    def source(self, x: Tensor) -> Tensor:
        """f, (N, 1)."""
        (one, slow), (a, fast) = self.parts
        return -one * slow**2 * torch.sin(slow * x) - a * fast**2 * torch.sin(fast * x)

    def residual(self, x: Tensor) -> Tensor:
        """u_xx - f, (N, 1)."""
        x = tracked(x)
        u_xx = derivative(derivative(self.net(x), x), x)
        return u_xx - self.source(x.detach())

    def residuals(self, batch: Batch) -> Batch:
        """What the terms square: the error of u at the ends, the residual inside."""
        return {
            "loss_b": self.net(batch["b"]) - self.exact(batch["b"]),
            "loss_r": self.residual(batch["r"]),
        }


def main() -> None:
    """Run the command line."""
    report = Report("Two-scale Poisson 1D", PUBLISHED, draw)
    run(TwoScalePoisson, Points, report, max_steps=5001)


if __name__ == "__main__":
    main()
