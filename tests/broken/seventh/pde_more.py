"""Heat in space and time, and the particle in a box; hand-written."""

from __future__ import annotations

import math
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from tests.broken.seventh.ode_hand import relative
from tests.broken.seventh.pde_hand import PI, gradient


class HeatXT(pl.LightningModule):
    """u_t = a u_xx with u = sin(pi x) at first; random points."""

    def __init__(
        self,
        a: float = 0.3,
        sign: float = 1.0,
        lr: float = 5e-3,
        act: Any = torch.tanh,
        width: int = 32,
        n: int = 100,
        opt: Any = torch.optim.Adam,
        measured: bool = False,
        w_ic: float = 10.0,
        same: bool = False,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.a, self.sign, self.lr, self.act, self.n, self.opt = a, sign, lr, act, n, opt
        self.measured, self.w_ic, self.same = measured, w_ic, same
        self.l1, self.l2 = nn.Linear(2, width), nn.Linear(width, width)
        self.l3 = nn.Linear(width, 1)

    def u(self, x: Tensor, t: Tensor) -> Tensor:
        z = torch.hstack([2 * x - 1, 2 * t - 1])
        return self.l3(self.act(self.l2(self.act(self.l1(z)))))

    def truth(self, x: Tensor, t: Tensor) -> Tensor:
        return torch.sin(PI * x) * torch.exp(-self.a * PI**2 * t)

    def predict(self, x: Tensor) -> Tensor:
        return self.u(x[:, :1], x[:, 1:])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        n = self.n
        x, t = batch
        x, t = x.requires_grad_(), t.requires_grad_()
        u = self.u(x, t)
        u_t, u_x = torch.autograd.grad(u.sum(), [t, x], create_graph=True)
        u_xx = gradient(u_x, x)
        loss = {"heat": ((u_t - self.sign * self.a * u_xx) ** 2).mean()}
        x0, t0 = torch.rand(n, 1), torch.zeros(n, 1)
        loss["ic"] = self.w_ic * ((self.u(x0, t0) - self.truth(x0, t0)) ** 2).mean()
        tb = torch.rand(n, 1)
        ends = self.u(torch.zeros(n, 1), tb) ** 2 + self.u(torch.ones(n, 1), tb) ** 2
        loss["bc"] = self.w_ic * ends.mean()
        if self.measured:
            xm, tm = torch.rand(n, 1), torch.rand(n, 1)
            loss["data"] = self.w_ic * ((self.u(xm, tm) - self.truth(xm, tm)) ** 2).mean()
        self.log_dict(loss)
        return torch.stack(list(loss.values())).sum()

    def configure_optimizers(self) -> Any:
        return self.opt(self.parameters(), lr=self.lr)

    def loader(self, steps: int) -> DataLoader[Any]:
        if self.same:
            xt = torch.rand(1, 2).expand(self.n, 2)
        else:
            xt = torch.rand(self.n, 2)
        return DataLoader([(xt[:, :1].clone(), xt[:, 1:].clone())] * steps, batch_size=None)

    @torch.no_grad()
    def error(self) -> float:
        p = torch.cartesian_prod(torch.linspace(0, 1, 40), torch.linspace(0, 1, 40))
        return relative(self.predict(p), self.truth(p[:, :1], p[:, 1:]))


class Box(pl.LightningModule):
    """-psi'' = E psi in a box, psi = 0 at its ends; E is learned, the mean of psi^2 is one half."""

    def __init__(
        self, normalised: bool = True, hidden: int = 32, lr: float = 5e-3, net: Any = None
    ) -> None:
        super().__init__()
        self.normalised, self.lr = normalised, lr
        self.psi = nn.Sequential(
            nn.Linear(1, hidden),
            nn.Tanh(),
            nn.Linear(hidden, hidden),
            nn.Tanh(),
            nn.Linear(hidden, 1),
        )
        self.E = nn.Parameter(torch.tensor(7.0))

    def predict(self, x: Tensor) -> Tensor:
        return self.psi(x)

    def training_step(self, batch: Tensor, batch_idx: int) -> Tensor:
        x = batch.requires_grad_()
        psi = self.psi(x)
        d2 = gradient(gradient(psi, x), x)
        schroedinger = ((d2 + self.E * psi) ** 2).mean() / 10
        walls = (self.psi(torch.tensor([[0.0], [1.0]])) ** 2).sum()
        loss = schroedinger + 10 * walls
        if self.normalised:
            norm = (psi.pow(2).mean() - 0.5) ** 2
            self.log("norm", norm)
            loss = loss + 10 * norm
        self.log("eq", schroedinger)
        self.log("walls", walls)
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(
            [{"params": self.psi.parameters()}, {"params": [self.E], "lr": 1e-2}], lr=self.lr
        )

    def loader(self, steps: int) -> DataLoader[Any]:
        x = (torch.arange(64) + 0.5)[:, None] / 64
        return DataLoader([x] * steps, batch_size=None)

    @torch.no_grad()
    def error(self) -> float:
        x = torch.linspace(0, 1, 200)[:, None]
        psi, truth = self.predict(x), torch.sin(PI * x)
        error = min(relative(psi, truth), relative(psi, -truth))
        return error if math.isfinite(error) else math.inf
