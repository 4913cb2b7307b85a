"""Advection and diffusion on time windows: the problem of ``time_windows.py``."""

from __future__ import annotations

import math
from typing import Any

import torch
from problems import points as drawn
from problems import problem, wave
from torch import Tensor, nn
from torch.utils.data import DataLoader

Batch = dict[str, Any]
Terms = dict[str, Tensor]


class Windows(drawn.Points):
    """Fixed points (t, x) of each window, handed out one window after another.

    Args:
        windows: Number of windows.
        length: Length of each in time.
        n_t: Residual points along t in a window.
        n_x: Residual points along x; as many on its initial line.
        steps: Steps in all, divided evenly; the command line sets it to ``trainer.max_steps``.
    """

    def __init__(
        self, windows: int = 3, length: float = 1.0, n_t: int = 8, n_x: int = 20, steps: int = 3000
    ) -> None:
        super().__init__()
        if windows < 2:
            raise ValueError(f"windows is {windows}; expected 2 or more, so that one is old.")
        self.windows, self.length, self.n_t, self.n_x = windows, length, n_t, n_x
        self.steps, self.end = steps, windows * length
        t = torch.linspace(0, windows * length, 20 * windows + 1, dtype=torch.float64)
        self.test = torch.cartesian_prod(t, self.axis(64))  # (N, 2)

    @staticmethod
    def axis(count: int) -> Tensor:
        """Points of a period, its end left out."""
        return 2 * math.pi * torch.arange(count, dtype=torch.float64) / count

    def batch(self, window: int) -> Batch:
        """Points of one window: inside at midpoints in t, and on its initial line."""
        t = (torch.arange(self.n_t, dtype=torch.float64) + 0.5) / self.n_t + window
        start = torch.tensor([window * self.length], dtype=torch.float64)
        return {
            "window": window,
            "pde": torch.cartesian_prod(self.length * t, self.axis(self.n_x)),
            "initial": torch.cartesian_prod(start, self.axis(self.n_x)),
        }

    def train_dataloader(self) -> DataLoader[Batch]:
        """One epoch over all windows."""
        batches = [self.batch(window) for window in range(self.windows)]
        order = [batches[step * self.windows // self.steps] for step in range(self.steps)]
        return DataLoader(order, batch_size=None)


class Network(nn.Sequential):
    """Two tanh layers on time, scaled to [-1, 1], and on the sine and cosine of x."""

    def __init__(self, width: int, end: float) -> None:
        super().__init__(
            nn.Linear(3, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(), nn.Linear(width, 1)
        )
        self.end = end
        for layer in (self[0], self[2], self[4]):
            nn.init.xavier_normal_(layer.weight)
            nn.init.zeros_(layer.bias)

    def forward(self, points: Tensor) -> Tensor:
        """u(t, x) for points of shape (N, 2)."""
        t, x = points.split(1, dim=1)
        return super().forward(torch.cat([2 * t / self.end - 1, torch.sin(x), torch.cos(x)], 1))


class Advection(problem.Problem):
    """The PINN of one window after another: Adam, behind some steps of gradient descent.

    Args:
        c: Velocity.
        nu: Diffusivity.
        width: Neurons of both hidden layers.
        lr: Learning rate of Adam.
        weight: Weight of the initial line in the loss.
        descent: Steps of gradient descent at the start of a window other than the first.
        fraction: Their learning rate over the largest stable one.
        end: Length of all windows together; the command line takes it from the data.
    """

    def __init__(
        self,
        c: float = 1.0,
        nu: float = 0.02,
        width: int = 40,
        lr: float = 3e-3,
        weight: float = 10.0,
        descent: int = 100,
        fraction: float = 0.1,
        end: float = 3.0,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.automatic_optimization = False
        self.c, self.nu, self.lr, self.fraction = c, nu, lr, fraction
        self.weights, self.descent = {"pde": 1.0, "initial": weight}, descent
        self.net = Network(width, end)
        self.targets: list[Tensor] = []
        self.taken = 0  # steps in the current window

    def exact(self, points: Tensor) -> Tensor:
        """u at (t, x), (N, 1)."""
        t, x = points.split(1, dim=1)
        fast = torch.exp(-4 * self.nu * t) * torch.cos(2 * (x - self.c * t)) / 2
        return torch.exp(-self.nu * t) * torch.sin(x - self.c * t) + fast

    def pde(self, points: Tensor) -> Tensor:
        """u_t + c u_x - nu u_xx at the points (t, x), (N, 1)."""
        points = points.clone().requires_grad_()
        u_t, u_x = wave.gradient(self.net(points), points)
        return u_t + self.c * u_x - self.nu * wave.gradient(u_x, points)[1]

    def residuals(self, batch: Batch) -> Terms:
        """What the two terms of a window square, each (N, 1)."""
        target = self.targets[batch["window"]]
        return {"pde": self.pde(batch["pde"]), "initial": self.net(batch["initial"]) - target}

    def enter(self, batch: Batch) -> bool:
        """Fix the initial values of a window that begins; whether one does."""
        if batch["window"] < len(self.targets):
            return False
        known = self.exact if batch["window"] == 0 else self.net
        with torch.no_grad():
            self.targets.append(known(batch["initial"]).clone())
        self.taken = 0
        return True

    def training_step(self, batch: Batch) -> None:
        """A step on the current window."""
        self.enter(batch)
        residuals = self.residuals(batch)
        losses = {n: self.weights[n] * r.square().mean() for n, r in residuals.items()}
        self.log_dict(losses)
        adam, descent = self.optimizers()
        descends = len(self.targets) > 1 and self.taken < self.descent
        optimizer = descent if descends else adam
        optimizer.zero_grad()
        self.manual_backward(losses["pde"] + losses["initial"])
        optimizer.step()
        self.taken += 1

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:
        """Adam, and plain gradient descent; its learning rate is set where a window begins."""
        adam = torch.optim.Adam(self.parameters(), lr=self.lr)
        return [adam, torch.optim.SGD(self.parameters(), lr=self.lr)]
