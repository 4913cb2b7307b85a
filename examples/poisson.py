"""Poisson in one dimension: Wang, Yu, Perdikaris 2022, section 7 and Fig. 4.

    u_xx = f on [0, 1],    u = sin(a pi x),    f = -(a pi)^2 sin(a pi x)

For a = 4 the residual term learns hundreds of times faster than the boundary term, and gradient
descent ends with a wrong solution. Weights from the traces of the neural tangent kernel mend it.

    python examples/poisson.py fit --config configs/poisson.yaml          # weighted
    python examples/poisson.py fit --config configs/poisson_plain.yaml    # the same without weights

Every setting of the YAML can be changed behind it, e.g. ``--model.width 500 --seed_everything 1``.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from matplotlib.figure import Figure
from report import Report, Solved, Tested, run
from torch import Tensor, nn
from torch.utils.data import DataLoader

TITLE = "Poisson 1D, a = {model.a:g}"
PUBLISHED = "2.40e-01 without weights, 1.63e-03 with lambda_b = 100 (a = 4, width 100)"


class Points(Tested):
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
        ends = torch.tensor([0.0, 1.0])
        self.train = {
            "x_b": ends.repeat_interleave(n_boundary // 2)[:, None],  # (N_b, 1)
            "x_r": torch.linspace(0.0, 1.0, n_residual)[:, None],  # (N_r, 1)
        }
        self.test = torch.linspace(0.0, 1.0, n_test)[:, None]
        self.mean = float(self.train["x_r"].mean())
        self.std = float(self.train["x_r"].std(correction=0))

    def train_dataloader(self) -> DataLoader[dict[str, Tensor]]:
        """One batch, ``steps`` times: a single epoch, because each start of one costs time."""
        return DataLoader([self.train] * self.steps, batch_size=None)


class Network(nn.Sequential):
    """One hidden tanh layer on standardised inputs; W ~ N(0, 1) / sqrt(fan_in), b ~ N(0, 1).

    The standardisation is part of the network, so derivatives with respect to x come out in
    physical units (each divided by the standard deviation). Without it the trace weight of the
    boundary starts near 4 instead of 160, and there is little to balance.
    """

    def __init__(self, width: int, mean: float, std: float) -> None:
        super().__init__(nn.Linear(1, width), nn.Tanh(), nn.Linear(width, 1))
        self.mean, self.std = mean, std
        for layer in (self[0], self[2]):
            nn.init.normal_(layer.weight, std=1 / math.sqrt(layer.in_features))
            nn.init.normal_(layer.bias)

    def forward(self, x: Tensor) -> Tensor:
        """u(x) for x of shape (N, 1)."""
        return super().forward((x - self.mean) / self.std)


def derivative(y: Tensor, x: Tensor) -> Tensor:
    """dy/dx where row i of y depends on row i of x alone, on the graph."""
    return torch.autograd.grad(y, x, torch.ones_like(y), create_graph=True)[0]


class Poisson(Solved):
    """The PINN, trained by plain gradient descent on the sum of its two mean squares.

    Args:
        a: Frequency; the exact solution is sin(a pi x).
        width: Neurons of the hidden layer.
        lr: Step size of gradient descent.
        mean: Mean of the residual points; the command line takes it from the data.
        std: Their standard deviation; the command line takes it from the data.
    """

    def __init__(
        self,
        a: float = 4.0,
        width: int = 100,
        lr: float = 1e-5,
        mean: float = 0.5,
        std: float = 1 / math.sqrt(12),
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.a, self.lr = a, lr
        self.net = Network(width, mean, std)

    def exact(self, x: Tensor) -> Tensor:
        """u = sin(a pi x)."""
        return torch.sin(self.a * math.pi * x)

    def source(self, x: Tensor) -> Tensor:
        """f = u_xx = -(a pi)^2 sin(a pi x)."""
        return -((self.a * math.pi) ** 2) * self.exact(x)

    def residual(self, x: Tensor) -> Tensor:
        """u_xx - f at the points x, (N_r, 1)."""
        x = x.clone().requires_grad_()
        u_x = derivative(self.net(x), x)
        u_xx = derivative(u_x, x)
        return u_xx - self.source(x.detach())

    def residuals(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """What the terms square: u - sin(a pi x) at the ends, u_xx - f inside."""
        x_b, x_r = batch["x_b"], batch["x_r"]
        return {"loss_b": self.net(x_b) - self.exact(x_b), "loss_r": self.residual(x_r)}

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        """loss_b + loss_r, each a mean of squares without the factor 1/2."""
        losses = {name: r.square().mean() for name, r in self.residuals(batch).items()}
        self.log_dict(losses)
        return losses["loss_b"] + losses["loss_r"]

    def configure_optimizers(self) -> torch.optim.Optimizer:
        """Plain gradient descent: the theory is about its limit of small steps."""
        return torch.optim.SGD(self.parameters(), lr=self.lr)


@torch.no_grad()
def draw(model: Poisson, x: Tensor) -> Figure:
    """Prediction on the exact solution, and the pointwise error below."""
    u, exact = model.net(x).flatten().numpy(), model.exact(x).flatten().numpy()
    figure = Figure(figsize=(7.0, 5.0), layout="constrained")
    above, below = figure.subplots(2, 1, sharex=True, height_ratios=[2, 1])
    above.plot(x, exact, color="0.6", linewidth=4, label="exact")
    above.plot(x, u, color="tab:red", linestyle="--", label="prediction")
    above.set_ylabel("u")
    above.set_title(f"Poisson 1D, a = {model.a:g}: relative L2 error {model.error(x):.2e}")
    above.legend(loc="upper right")
    below.plot(x, np.abs(u - exact), color="tab:red")
    below.set(xlabel="x", ylabel="|prediction - exact|", ylim=(0, None), xlim=(0, 1))
    return figure


def main() -> None:
    """Run the command line."""
    report = Report(TITLE, PUBLISHED, draw)
    run(Poisson, Points, report, max_steps=40_001, shared=("mean", "std"))


if __name__ == "__main__":
    main()
