"""The Allen-Cahn equation of Raissi, Perdikaris, Karniadakis 2019, as in Wang et al. 2023 (jaxpi).

    u_t = 1e-4 u_xx - 5 u^3 + 5 u on [0, 1] x [-1, 1],    u and u_x periodic in x
    u(0, x) = x^2 cos(pi x)

Three terms: u on the initial line, the jumps of u and u_x over the period, and the residual inside.
The steady states 0, 1 and -1 have no residual either, so the start has to be carried into later
times. The reference is a Fourier series with 2048 modes.

    python examples/allen_cahn.py fit --config configs/allen_cahn.yaml    # minutes on a CPU
"""

from __future__ import annotations

import math
from typing import Any

import torch
from gallery import points, references
from gallery.command_line import Report, run
from gallery.derivatives import gradient, tracked
from gallery.embeddings import PeriodicEmbedding
from gallery.networks import network
from gallery.plots import draw
from gallery.problem import BoxProblem
from torch import Tensor, nn

PUBLISHED = "5.17e-01 plain, 5.37e-05 with NTK weights and much else (300,000 steps on a GPU)"
BOX = points.Box((0.0, -1.0), (1.0, 1.0))
Batch = points.Batch


class Points(points.BoxPoints):
    """Uniformly distributed points (t, x), drawn anew at each step.

    Args:
        n_residual: Points inside.
        n_initial: Points at t = 0.
        n_boundary: Points at x = -1, and the same times at x = 1.
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
            "left": BOX.side(self.n_boundary, 1, -1.0, generator),
        }


class AllenCahn(BoxProblem):
    """The PINN, trained by Adam with a decaying learning rate.

    Args:
        periodic: Let the network be periodic in x, in place of a term for it.
        settings: Those of ``BoxProblem``; with ``periodic`` only its sizes count.
    """

    def __init__(self, periodic: bool = False, **settings: Any) -> None:
        super().__init__(BOX, **settings)
        self.periodic = periodic
        if periodic:
            embedding = PeriodicEmbedding(2, axis=1, period=2.0, harmonics=4)
            sizes = (self.hparams["width"], self.hparams["depth"])
            self.net = nn.Sequential(embedding, network(embedding.n_out, 1, *sizes, 0.0, 1.0))

    def reference(self, points: Tensor) -> Tensor:
        """The solution, (N, 1), at points (N, 2)."""
        t, x = points.double().cpu().numpy().T
        return torch.as_tensor(references.allen_cahn()(t, x)).to(points)[:, None]

    def jump(self, left: Tensor) -> Tensor:
        """Jumps of u and u_x over the period, (N, 2), at points (N, 2) of the left end."""
        ends = [tracked(left), tracked(left + left.new_tensor([0.0, 2.0]))]
        u = [self.net(end) for end in ends]
        values = [torch.cat([v, gradient(v, end)[1]], 1) for v, end in zip(u, ends, strict=True)]
        return values[0] - values[1]

    def residual(self, points: Tensor) -> Tensor:
        """u_t - 1e-4 u_xx + 5 u^3 - 5 u, (N, 1)."""
        points = tracked(points)
        u = self.net(points)
        u_t, u_x = gradient(u, points)
        return u_t - 1e-4 * gradient(u_x, points)[1] + 5 * u**3 - 5 * u

    def residuals(self, batch: Batch) -> Batch:
        """What the terms square: the error of u at t = 0, the jumps, the residual inside."""
        x = batch["u"][:, 1:]
        start = self.net(batch["u"]) - x**2 * torch.cos(math.pi * x)
        ends = {} if self.periodic else {"loss_b": self.jump(batch["left"])}
        return {"loss_u": start, **ends, "loss_r": self.residual(batch["r"])}


def main() -> None:
    """Run the command line."""
    run(AllenCahn, Points, Report("Allen-Cahn 1D", PUBLISHED, draw), max_steps=5001)


if __name__ == "__main__":
    main()
