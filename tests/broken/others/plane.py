"""Stationary problems of the plane: a loaded disc, standing waves in a cavity, slow flow."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from scipy.stats import qmc
from torch import Tensor, nn

from tests.broken.others.fits import Encoding
from tests.broken.others.graded import Graded, dense

ADAM: Any = partial(torch.optim.Adam, lr=3e-3)


def along(u: Tensor, x: Tensor) -> Tensor:
    (slope,) = torch.autograd.grad(u, x, grad_outputs=torch.ones_like(u), create_graph=True)
    return slope


class Disc(Graded):
    """u_rr + u_r / r = -4, u(1) = 0 and u_r(0) = 0: a membrane; radii from ``centre`` on."""

    def __init__(
        self, centre: float = 0.02, optim: Any = torch.optim.LBFGS, n: int = 40, rim: float = 10.0,
        act: Any = nn.Tanh, net: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.optim, self.rim = optim, rim
        self.shape = dense(1, 16, 16, 1, act=act)
        self.register_buffer("radii", torch.linspace(centre, 1, n).reshape(n, 1))

    def forward(self, r: Tensor) -> Tensor:
        return self.shape(2 * r - 1)

    def exact(self, r: Tensor) -> Tensor:
        return 1 - r**2

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        r = self.radii.detach().requires_grad_()
        u_r = along(self(r), r)
        interior = torch.mean((along(u_r, r) + u_r / r + 4) ** 2)
        middle = torch.zeros(1, 1, requires_grad=True)
        edges = self(torch.ones(1, 1)).pow(2).sum() + along(self(middle), middle).pow(2).sum()
        total = interior + self.rim * edges
        self.log_dict({"membrane": interior, "edges": edges, "sum": total})
        return total

    def configure_optimizers(self) -> Any:
        return self.optim(self.parameters())


class Flatten(nn.Module):
    """Encodes each coordinate by itself."""

    def __init__(self, octaves: int) -> None:
        super().__init__()
        self.encoding = Encoding(octaves)

    def forward(self, xy: Tensor) -> Tensor:
        return torch.cat([self.encoding(c) for c in xy.split(1, dim=1)], dim=1)


class Cavity(Graded):
    """laplace u + u = f for u = sin(pi m x) sin(pi n y), zero at the walls by construction."""

    def __init__(
        self, modes: tuple[int, int] = (1, 2), octaves: int = 0, points: int = 200, width: int = 32,
        optim: Any = ADAM, size: float = 1.0, net: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.box, self.modes, self.optim, self.size = ((0.0, 1.0),) * 2, modes, optim, size
        body = dense(4 * octaves or 2, width, width, 1)
        self.psi = nn.Sequential(Flatten(octaves), body) if octaves else body
        self.cube = torch.tensor(qmc.LatinHypercube(2, seed=0).random(points)).float()

    def forward(self, xy: Tensor) -> Tensor:
        wall = (xy * (1 - xy)).prod(dim=1, keepdim=True)
        return 16 * wall * self.psi(2 * xy - 1)

    def exact(self, xy: Tensor) -> Tensor:
        m, n = self.modes
        x, y = xy.split(1, dim=1)
        return self.size * torch.sin(m * math.pi * x) * torch.sin(n * math.pi * y)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        xy = self.cube.clone().requires_grad_()
        u = self(xy)
        g = along(u, xy)
        laplacian = along(g[:, :1], xy)[:, :1] + along(g[:, 1:], xy)[:, 1:]
        k = math.pi**2 * sum(mode**2 for mode in self.modes)
        residual = (laplacian + u - (1 - k) * self.exact(self.cube)) / k
        loss = 0.5 * residual.square().mean()
        self.log("train/helmholtz", loss)
        return loss

    def configure_optimizers(self) -> Any:
        return self.optim(self.parameters())


class Channel(Graded):
    """Stokes flow between plates: u, v, p of one net; the profile is given at the inlet."""

    def __init__(self, drop: float = 8.0, lr: float = 4e-3, net: Any = None) -> None:
        super().__init__()
        self.box, self.drop, self.lr = ((0.0, 1.0),) * 2, drop, lr
        self.flow = dense(2, 32, 32, 3)

    def forward(self, xy: Tensor) -> Tensor:
        return self.flow(2 * xy - 1)

    def guess(self, xy: Tensor) -> Tensor:
        return self(xy)[:, :2]

    def exact(self, xy: Tensor) -> Tensor:
        y = xy[:, 1:]
        return torch.cat([self.drop / 2 * y * (1 - y), 0 * y], dim=1)

    def equations(self) -> tuple[Tensor, Tensor]:
        xy = torch.rand(80, 2, requires_grad=True)
        u, v, p = self(xy).split(1, dim=1)
        du, dv, dp = (along(f, xy) for f in (u, v, p))
        laplace = [along(f[:, :1], xy)[:, :1] + along(f[:, 1:], xy)[:, 1:] for f in (du, dv)]
        momentum = torch.cat([laplace[0] - dp[:, :1], laplace[1] - dp[:, 1:]], dim=1)
        return momentum.div(self.drop).pow(2).mean(), (du[:, 0] + dv[:, 1]).pow(2).mean()

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        momentum, continuity = self.equations()
        s, one = torch.rand(30, 1), torch.ones(30, 1)
        plates = self.guess(torch.cat([torch.hstack([s, 0 * one]), torch.hstack([s, one])]))
        inlet = torch.hstack([0 * one, s])
        no_slip = plates.pow(2).mean()
        profile = (self.guess(inlet) - self.exact(inlet)).pow(2).mean()
        outlet = self(torch.hstack([one, s]))[:, 1:].pow(2).mean()
        terms = {"momentum": momentum, "continuity": continuity, "no_slip": no_slip}
        self.log_dict(terms | {"inlet": profile, "outlet": outlet})
        return momentum + continuity + 5 * (no_slip + profile + outlet)

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.parameters(), lr=self.lr)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, T_max=1500)
        return [optimizer], [{"scheduler": schedule, "interval": "step"}]
