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
from collections.abc import Iterator
from itertools import pairwise

import torch
from matplotlib.figure import Figure
from report import Report, Solved, Tested, run
from torch import Tensor, nn

PUBLISHED = "4.518e-01 without weights, 1.728e-03 with (paper); 3.858e-03 with (notebook)"
Batch = dict[str, Tensor]


class Draws:
    """Batches of points, drawn anew at each step: a loader that goes on where a checkpoint was.

    Batch i is drawn with a seed of its own, so it is the same in every run and after a restart.
    """

    def __init__(self, points: Points, steps: int) -> None:
        self.points, self.steps, self.done = points, steps, 0

    def __len__(self) -> int:
        return self.steps

    def __iter__(self) -> Iterator[Batch]:
        while self.done < self.steps:
            self.done += 1
            yield self.points.draw(self.done)
        self.done = 0

    def state_dict(self) -> dict[str, int]:
        """How many batches were handed out."""
        return {"done": self.done}

    def load_state_dict(self, state: dict[str, int]) -> None:
        """Go on behind them."""
        self.done = state["done"]


class Points(Tested):
    """Uniformly distributed points (t, x), drawn anew at each step.

    Args:
        n_initial: Points at t = 0, for u and for u_t.
        n_boundary: Points at x = 0, and as many at x = 1.
        n_residual: Points inside.
        n_test: Points an axis of the grid on which the error is taken.
        seed: Seed of the points.
        steps: Number of batches; the command line sets it to ``trainer.max_steps``.
    """

    def __init__(
        self,
        n_initial: int = 100,
        n_boundary: int = 100,
        n_residual: int = 300,
        n_test: int = 200,
        seed: int = 0,
        steps: int = 1000,
    ) -> None:
        super().__init__()
        self.n_initial, self.n_boundary, self.n_residual = n_initial, n_boundary, n_residual
        self.seed, self.steps = seed, steps
        axis = torch.linspace(0.0, 1.0, n_test)
        self.test = torch.cartesian_prod(axis, axis)  # (n_test^2, 2)

    def draw(self, number: int) -> Batch:
        """Points of the batch of this number, each of shape (N, 2)."""
        generator = torch.Generator().manual_seed(1_000_003 * self.seed + number)
        initial, left, right, inside = (
            torch.rand(n, 2, generator=generator)
            for n in (self.n_initial, self.n_boundary, self.n_boundary, self.n_residual)
        )
        initial[:, 0], left[:, 1], right[:, 1] = 0.0, 0.0, 1.0
        return {"u": torch.cat([initial, left, right]), "ut": initial, "r": inside}

    def train_dataloader(self) -> Draws:
        """A single epoch of ``steps`` batches."""
        return Draws(self, self.steps)


class Network(nn.Module):
    """Tanh layers on standardised inputs, Glorot normal weights, zero biases.

    Random Fourier features in front of the first layer, if any, are half sines and half cosines.
    """

    def __init__(self, width: int, depth: int, frequencies: int, scale: float) -> None:
        super().__init__()
        self.register_buffer("angles", scale * torch.randn(2, frequencies // 2))
        sizes = [frequencies or 2, *[width] * depth, 1]
        self.layers = nn.ModuleList(nn.Linear(n, m) for n, m in pairwise(sizes))
        for layer in self.layers:
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, points: Tensor) -> Tensor:
        """u(t, x), (N, 1), at points (N, 2)."""
        if self.angles.numel():
            phase = points @ self.angles
            h = torch.cat([phase.sin(), phase.cos()], 1)
        else:
            h = (points - 0.5) * math.sqrt(12)  # mean 0, variance 1
        for layer in self.layers[:-1]:
            h = torch.tanh(layer(h))
        return self.layers[-1](h)


def gradient(y: Tensor, points: Tensor) -> tuple[Tensor, Tensor]:
    """dy/dt and dy/dx where row i of y depends on point i alone, on the graph, each (N, 1)."""
    grad = torch.autograd.grad(y, points, torch.ones_like(y), create_graph=True)[0]
    return grad[:, :1], grad[:, 1:]


class Wave(Solved):
    """The PINN, trained by Adam with a decaying learning rate.

    Args:
        a: Amplitude of the second mode.
        c: Speed of the wave.
        width: Neurons a layer.
        depth: Hidden layers.
        frequencies: Random Fourier features; 0 for none, as in the paper.
        scale: Standard deviation of their angular frequencies.
        lr: Learning rate at the start.
        decay: Factor that it falls by in 1000 steps.
    """

    def __init__(
        self,
        a: float = 0.5,
        c: float = 2.0,
        width: int = 500,
        depth: int = 3,
        frequencies: int = 0,
        scale: float = 10.0,
        lr: float = 1e-3,
        decay: float = 0.9,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.a, self.c, self.lr, self.decay = a, c, lr, decay
        self.net = Network(width, depth, frequencies, scale)

    def exact(self, points: Tensor) -> Tensor:
        """The solution, (N, 1), at points (N, 2)."""
        t, x = math.pi * points[:, :1], math.pi * points[:, 1:]
        a, c = self.a, self.c
        return x.sin() * (c * t).cos() + a * (2 * c * x).sin() * (4 * c * t).cos()

    def velocity(self, points: Tensor) -> Tensor:
        """u_t, (N, 1)."""
        points = points.clone().requires_grad_()
        return gradient(self.net(points), points)[0]

    def residual(self, points: Tensor) -> Tensor:
        """u_tt - c^2 u_xx, (N, 1)."""
        points = points.clone().requires_grad_()
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

    def training_step(self, batch: Batch) -> Tensor:
        """loss_u + loss_ut + loss_r; loss_u is the sum of the means on the three sides."""
        losses = {name: r.square().mean() for name, r in self.residuals(batch).items()}
        losses["loss_u"] = 3 * losses["loss_u"]
        self.log_dict(losses)
        return losses["loss_u"] + losses["loss_ut"] + losses["loss_r"]

    def configure_optimizers(self) -> dict[str, object]:
        """Adam; the learning rate falls by ``decay`` in 1000 steps."""
        adam = torch.optim.Adam(self.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.ExponentialLR(adam, self.decay ** (1 / 1000))
        return {"optimizer": adam, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


@torch.no_grad()
def draw(model: Wave, points: Tensor) -> Figure:
    """Exact solution, prediction and pointwise error over (t, x)."""
    side = math.isqrt(len(points))
    u, exact = (f(points).view(side, side).T.numpy() for f in (model.net, model.exact))
    figure = Figure(figsize=(11.0, 3.4), layout="constrained")
    panels, shown = figure.subplots(1, 3, sharey=True), (exact, u, abs(u - exact))
    titles = ("exact u", "prediction", f"|error|, relative L2 {model.error(points):.2e}")
    for axes, values, title in zip(panels, shown, titles, strict=True):
        axes.set(xlabel="t", ylabel="x" if title == titles[0] else None, title=title)
        top = abs(exact).max() if title != titles[2] else None
        scale = {"cmap": "RdBu_r", "vmin": -top} if top else {"cmap": "viridis", "vmin": 0.0}
        place = {"origin": "lower", "extent": (0, 1, 0, 1), "aspect": "auto"}
        figure.colorbar(axes.imshow(values, vmax=top, **scale, **place), ax=axes)
    return figure


def main() -> None:
    """Run the command line."""
    run(Wave, Points, Report("Wave 1D", PUBLISHED, draw), max_steps=80_001)


if __name__ == "__main__":
    main()
