"""Fields of position and time: heat and waves."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from pytorch_lightning.utilities import CombinedLoader
from scipy.stats import qmc
from torch import Tensor, nn
from torch.utils.data import DataLoader, TensorDataset

from tests.broken.others.graded import Graded, dense

ADAM: Any = partial(torch.optim.Adam, lr=4e-3)


def partials(u: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    """Derivatives of a column u, as columns."""
    return torch.autograd.grad(u.sum(), x, create_graph=True)[0].split(1, dim=1)


class HeatRod(Graded):
    """u_t = a u_xx, u = sin(pi x) at first, 0 at the walls; a loader for each condition."""

    a = 0.2

    def __init__(
        self, inside: int = 400, weights: tuple[float, float, float] = (1.0, 10.0, 10.0),
        first: float = 1.0, act: Any = nn.Tanh, width: int = 24, start: Any = None,
        optim: Any = ADAM, net: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.box, self.inside, self.weights = ((0.0, 1.0), (0.0, 1.0)), inside, weights
        self.first, self.optim = first, optim
        self.u = dense(2, width, width, 1, act=act)
        if start:
            self.u.apply(start)

    def forward(self, xt: Tensor) -> Tensor:
        return self.u(2 * xt - 1)

    def exact(self, xt: Tensor) -> Tensor:
        x, t = xt.split(1, dim=1)
        return torch.sin(math.pi * x) * torch.exp(-self.a * math.pi**2 * t)

    def collocation(self) -> Tensor:
        return torch.rand(self.inside, 2)

    def loader(self, steps: int) -> Any:
        line = torch.linspace(0, 1, 40)[:, None]
        ic = torch.hstack([line, torch.zeros_like(line)])
        walls = torch.vstack(
            [torch.hstack([side * torch.ones_like(line), line]) for side in (0, 1)]
        )
        sets = {"pde": (self.collocation(), 100), "ic": (ic, 20), "walls": (walls, 40)}
        loaders = {
            name: DataLoader(TensorDataset(points), batch_size=size, shuffle=True)
            for name, (points, size) in sets.items()
        }
        return CombinedLoader(loaders, mode="max_size_cycle")

    def equation(self, xt: Tensor) -> Tensor:
        xt = xt.requires_grad_()
        u_x, u_t = partials(self(xt), xt)
        u_xx, _ = partials(u_x, xt)
        return u_t - self.a * u_xx

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (xt,), (ic,), (walls,) = batch["pde"], batch["ic"], batch["walls"]
        heat = torch.mean(self.equation(xt) ** 2)
        initial = torch.mean((self(ic) - self.first * torch.sin(math.pi * ic[:, :1])) ** 2)
        edge = torch.mean(self(walls) ** 2)
        self.log_dict({"heat": heat, "initial": initial, "edge": edge}, on_step=True)
        a, b, c = self.weights
        return a * heat + b * initial + c * edge

    def configure_optimizers(self) -> Any:
        return self.optim(self.parameters())


class Chord(Graded):
    """u_tt = u_xx between fixed ends (by construction), plucked as sin(pi x), let go at rest."""

    def __init__(
        self, plucked: float = 10.0, rest: float = 10.0, lr: float = 4e-3, net: Any = None
    ):
        super().__init__()
        self.box = ((0.0, 1.0), (0.0, 1.0))
        self.plucked, self.rest, self.lr = plucked, rest, lr
        self.body = dense(2, 20, 20, 1)
        sobol = qmc.Sobol(2, seed=3).random(64)
        self.inner = torch.as_tensor(sobol, dtype=torch.float32)
        x = torch.linspace(0.05, 0.95, 19)
        self.early = torch.stack([x, torch.zeros_like(x)], dim=1)

    def forward(self, xt: Tensor) -> Tensor:
        x = xt[..., :1]
        return 4 * x * (1 - x) * self.body(2 * xt - 1)

    def exact(self, xt: Tensor) -> Tensor:
        return torch.sin(math.pi * xt[:, :1]) * torch.cos(math.pi * xt[:, 1:])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inner = self.inner.clone().requires_grad_()
        u_x, u_t = partials(self(inner), inner)
        u_xx, u_tt = partials(u_x, inner)[0], partials(u_t, inner)[1]
        wave = (0.1 * (u_tt - u_xx)).pow(2).mean()
        early = self.early.clone().requires_grad_()
        u = self(early)
        terms = {"wave": wave}
        if self.plucked:
            terms["shape"] = (
                self.plucked * (u - torch.sin(math.pi * self.early[:, :1])).pow(2).mean()
            )
        if self.rest:
            terms["speed"] = self.rest * 0.1 * partials(u, early)[1].pow(2).mean()
        self.log_dict(terms)
        return torch.stack(list(terms.values())).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.RAdam(self.parameters(), lr=self.lr)
