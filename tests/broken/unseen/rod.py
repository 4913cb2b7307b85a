"""Heat in a rod, with a loader for each term; and a slow wave that is carried along."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
import torch.nn as nn
from pytorch_lightning.utilities import CombinedLoader
from torch import Tensor
from torch.utils.data import DataLoader, TensorDataset

from tests.broken.unseen.tools import judged, relative


def slopes(u: Tensor, *by: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad(u.sum(), by, create_graph=True)


ADAM: Any = (torch.optim.Adam, {"lr": 3e-3})


class Jitter(nn.Module):
    """Noise upon what passes while training."""

    def __init__(self, size: float) -> None:
        super().__init__()
        self.size = size

    def forward(self, x: Tensor) -> Tensor:
        return x + self.size * torch.randn_like(x) if self.training else x


class Rod(pl.LightningModule):
    """u_t = a u_xx for 0 < x < 1, 0 < t < 1, u(0, x) = sin(pi x), ends held at zero.

    Args:
        a: Diffusivity.
        read: Factor of what a probe in the middle reads; None for no probe.
        flat: The initial values have one axis, as they come out of a table.
        with_start: The initial values enter at all.
        until: Collocation points up to this time.
        weights: Of equation, start and ends.
        middle: A layer between the two hidden ones.
        optimizer: (class, options).
        gamma: Factor of the rate after each step.
    """

    def __init__(
        self,
        a: float = 0.2,
        read: float | None = None,
        flat: bool = False,
        with_start: bool = True,
        until: float = 1.0,
        weights: tuple[float, float, float] = (1.0, 1.0, 1.0),
        middle: nn.Module | None = None,
        optimizer: Any = ADAM,
        gamma: float = 1.0,
        activation: type[nn.Module] = nn.Tanh,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.save_hyperparameters(ignore=["middle", "net", "activation", "optimizer"])
        self.optimizer = optimizer
        between = [middle] if middle else []
        self.u_net = nn.Sequential(
            nn.Linear(2, 32), activation(), *between, nn.Linear(32, 32), activation()
        )
        self.u_net.append(nn.Linear(32, 1))
        self.criterion = nn.MSELoss()

    def forward(self, t: Tensor, x: Tensor) -> Tensor:
        return self.u_net(torch.hstack((t, x)))

    def training_step(self, batch: dict[str, Any], batch_idx: int) -> Tensor:
        hp = self.hparams
        t, x = (c.requires_grad_() for c in batch["inside"][0].split(1, dim=1))
        u = self(t, x)
        u_t, u_x = slopes(u, t, x)
        (u_xx,) = slopes(u_x, x)
        heat = self.criterion(u_t, hp["a"] * u_xx)
        t_end = batch["ends"][0]
        sides = torch.cat([self(t_end, 0 * t_end), self(t_end, 1 + 0 * t_end)])
        held = self.criterion(sides, torch.zeros_like(sides))
        terms = {"heat": heat, "held": held}
        loss = hp["weights"][0] * heat + hp["weights"][2] * held
        if hp["with_start"]:
            x_0, values = batch["start"]
            start = ((self(0 * x_0, x_0) - (values[:, 0] if hp["flat"] else values)) ** 2).mean()
            terms["start"] = start
            loss = loss + hp["weights"][1] * start
        if hp["read"] is not None:
            readings = hp["read"] * torch.exp(-hp["a"] * torch.pi**2 * t_end)
            terms["probe"] = self.criterion(self(t_end, torch.full_like(t_end, 0.5)), readings)
            loss = loss + terms["probe"]
        self.log_dict(terms)
        return loss

    def configure_optimizers(self) -> Any:
        kind, options = self.optimizer
        optimizer = kind(self.parameters(), **options)
        schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, self.hparams["gamma"])
        return {
            "optimizer": optimizer,
            "lr_scheduler": {"scheduler": schedule, "interval": "step", "frequency": 1},
        }

    def loader(self, steps: int) -> Any:
        inside = torch.rand(1600, 2)
        inside[:, 0] *= self.hparams["until"]
        x_0 = torch.rand(200, 1)
        ends = torch.rand(200, 1)
        return CombinedLoader(
            {
                "inside": DataLoader(TensorDataset(inside), batch_size=160, shuffle=True),
                "start": DataLoader(TensorDataset(x_0, torch.sin(torch.pi * x_0)), batch_size=40),
                "ends": DataLoader(TensorDataset(ends), batch_size=40),
            },
            "max_size_cycle",
        )

    def error(self) -> float:
        self.eval()
        axis = torch.linspace(0, 1, 40)
        t, x = torch.cartesian_prod(axis, axis).split(1, 1)
        truth = torch.exp(-self.hparams["a"] * torch.pi**2 * t) * torch.sin(torch.pi * x)
        return relative(self(t, x), truth)


ROD = [
    judged(
        "rod-table",
        "BROADCAST",
        Rod,
        {"steps": 700, "a": 0.05, "weights": (1.0, 20.0, 1.0)},
        {"flat": True},
    ),
    judged("rod-forgotten", "NOTHING_TO_FIND", Rod, {"steps": 700}, {"with_start": False}),
    judged("rod-dropout", "RANDOM_OR_DECAY", Rod, {"steps": 700}, {"middle": nn.Dropout(0.7)}),
    judged("rod-jitter", "RANDOM_OR_DECAY", Rod, {"steps": 700, "a": 0.3}, {"middle": Jitter(0.5)}),
    judged(
        "rod-decay",
        "RANDOM_OR_DECAY",
        Rod,
        {"steps": 700, "a": 0.15},
        {"optimizer": (torch.optim.AdamW, {"lr": 3e-3, "weight_decay": 20.0})},
    ),
    judged("rod-probe", "CONTRADICTION", Rod, {"steps": 700, "read": 1.0}, {"read": 3.0}),
    judged("rod-weights", "IMBALANCE", Rod, {"steps": 700}, {"weights": (1.0, 1e-5, 1.0)}),
    judged("rod-gamma", "STEP_TOO_SHORT", Rod, {"steps": 700}, {"gamma": 0.8}),
    judged("rod-relu", "DERIVATIVE_VANISHES", Rod, {"steps": 700}, {"activation": nn.ReLU}),
    judged("rod-early-hours", "POINTS", Rod, {"steps": 700, "a": 0.4}, {"until": 0.05}),
    judged("rod-clean", "CLEAN", Rod, {"steps": 700, "a": 0.25, "weights": (1.0, 5.0, 2.0)}),
    judged("rod-early", "EARLY", Rod, {"steps": 50, "optimizer": (torch.optim.Adam, {"lr": 1e-3})}),
]
