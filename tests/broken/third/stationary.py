"""Stationary problems: beams, Poisson on a square and on a line, a fit of samples."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from scipy.stats import qmc
from torch import Tensor, nn
from torch.func import hessian, vmap
from torch.utils.data import DataLoader, TensorDataset

from tests.broken.third.tools import NO_NET, counter, diff, rel_l2

PI = math.pi


class CubedReLU(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) ** 3


class Beam(pl.LightningModule):
    """w'''' = q on [0, 1], simply supported; L-BFGS or Adam on a fixed grid."""

    def __init__(
        self,
        net: Mapping[str, Any] = NO_NET,
        act: Callable[[], nn.Module] = nn.Tanh,
        load: float = 24.0,
        w_bc: float = 100.0,
        lr: float = 3e-3,
        gain: float = 0.0,
    ):
        super().__init__()
        layers = [nn.Linear(1, 24), act(), nn.Linear(24, 24), act(), nn.Linear(24, 1)]
        self.model = nn.Sequential(*layers)
        if gain:
            for layer in layers[:3:2]:
                nn.init.normal_(layer.weight, std=gain)
        self.load, self.w_bc, self.lr = load, w_bc, lr
        self.x_f = torch.linspace(0, 1, 40)[:, None]
        self.x_b = torch.tensor([[0.0], [1.0]])

    def training_step(self, batch, batch_idx):
        x, xb = self.x_f.requires_grad_(), self.x_b.requires_grad_()
        q = self.load
        loss_f = (diff(self.model(x), x, 4) - q).square().mean()
        w = self.model(xb)
        loss_w, loss_m = w.square().sum(), diff(w, xb, 2).square().sum()
        self.log("equilibrium", loss_f)
        self.log("supports", loss_w)
        self.log("moments", loss_m)
        return loss_f / 100 + self.w_bc * loss_w + loss_m / 10

    def configure_optimizers(self):
        return torch.optim.Adam(self.model.parameters(), lr=self.lr)

    def loader(self, steps):
        return counter(steps)

    @torch.no_grad()
    def error(self):
        x = torch.linspace(0, 1, 200)[:, None]
        return rel_l2(self.model(x), self.load / 24 * (x**4 - 2 * x**3 + x))


class Membrane(pl.LightningModule):
    """-laplace u = f on the unit square, zero walls by a factor, derivatives by torch.func."""

    def __init__(
        self,
        net: Mapping[str, Any] = NO_NET,
        flat: bool = False,
        whole: bool = False,
        bias: float = 0.0,
        n: int = 128,
        lr: float = 5e-3,
        source: bool = True,
        height: float = 1.0,
    ):
        super().__init__()
        self.trunk = nn.Sequential(nn.Linear(2, 24), nn.Tanh(), nn.Linear(24, 1))
        if bias:
            nn.init.constant_(self.trunk[0].bias, bias)
        self.flat, self.whole, self.n, self.lr = flat, whole, n, lr
        self.source, self.height = source, height
        self.sampler = qmc.Sobol(2, seed=1)

    def u(self, p: Tensor) -> Tensor:
        x, y = p[..., 0], p[..., 1]
        return 16 * x * (1 - x) * y * (1 - y) * self.trunk(p)[..., 0]

    def forcing(self, p: Tensor) -> Tensor:
        s = torch.sin(PI * p[:, :1]) * torch.sin(2 * PI * p[:, 1:])
        return 5 * PI**2 * self.height * s if self.source else 0 * s

    def training_step(self, batch, batch_idx):
        p = torch.tensor(self.sampler.random(self.n), dtype=torch.float32)
        if self.whole:
            p = p.long().float()
        H = vmap(hessian(self.u))(p)
        lap = H[:, 0, 0] + H[:, 1, 1]
        f = self.forcing(p)
        r = lap + f if self.flat else lap + f.squeeze(-1)
        loss = 0.5 * torch.mean(r**2) / 100
        self.log("physics_loss", loss, prog_bar=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def loader(self, steps):
        return counter(steps)

    @torch.no_grad()
    def error(self):
        line = torch.linspace(0, 1, 40)
        p = torch.cartesian_prod(line, line)
        pred = self.u(p)
        true = self.height * torch.sin(PI * p[:, 0]) * torch.sin(2 * PI * p[:, 1])
        return rel_l2(pred, true)


class Line(pl.LightningModule):
    """-u'' + c u = f on [0, 1], scaled, of u = sin(k pi x) + 1 or of a cosine with Neumann ends."""

    def __init__(
        self,
        net: Mapping[str, Any] = NO_NET,
        k: int = 1,
        fourier: int = 0,
        h: float | None = None,
        points: int = 64,
        ends: str = "dirichlet",
        mean: bool = True,
        react: float = 0.0,
        second_graph: bool = True,
        lr: float = 5e-3,
        schedule: float = 1.0,
        dropout: float = 0.0,
    ):
        super().__init__()
        width = net.get("width", 32)
        n_in = 2 * fourier or 1
        self.B = PI * torch.arange(1, fourier + 1)[None].float() if fourier else None
        self.hidden = nn.ModuleList([nn.Linear(n_in, width), nn.Linear(width, width)])
        self.out = nn.Linear(width, 1)
        self.drop = nn.Dropout(dropout)
        self.k, self.h, self.ends, self.mean = k, h, ends, mean
        self.react, self.second_graph, self.lr, self.schedule = react, second_graph, lr, schedule
        x = torch.tensor(qmc.LatinHypercube(1, seed=0).random(points), dtype=torch.float32)
        self.register_buffer("x", x)

    def forward(self, x):
        if self.B is not None:
            x = torch.cat([torch.sin(x * self.B), torch.cos(x * self.B)], dim=1)
        for layer in self.hidden:
            x = self.drop(torch.tanh(layer(x)))
        return self.out(x)

    def true(self, x):
        if self.ends == "neumann":
            return torch.cos(self.k * PI * x) + 1
        return torch.sin(self.k * PI * x) + 1

    def second(self, x):
        if self.h:
            return (self(x + self.h) - 2 * self(x) + self(x - self.h)) / self.h**2
        ux = diff(self(x), x)
        return torch.autograd.grad(ux.sum(), x, create_graph=self.second_graph)[0]

    def training_step(self, batch, batch_idx):
        x = self.x.clone().requires_grad_()
        s = (self.k * PI) ** 2
        wave = self.true(x) - 1
        known = wave + self.react * self.true(x)
        interior = torch.mean((self.second(x) / s - self.react * self(x) + known) ** 2)
        e = torch.tensor([[0.0], [1.0]], requires_grad=True)
        if self.ends == "neumann":
            edge = torch.mean(diff(self(e), e) ** 2)
        else:
            edge = torch.mean((self(e) - 1) ** 2)
        self.log("L_interior", interior)
        self.log("L_edge", edge)
        loss = interior + 5 * edge
        if self.ends == "neumann" and self.mean:
            level = self(self.x).mean() - self.true(self.x).mean()
            self.log("L_mean", level**2)
            loss = loss + level**2
        return loss

    def configure_optimizers(self):
        opt = torch.optim.Adam(self.parameters(), lr=self.lr)
        sched = torch.optim.lr_scheduler.ExponentialLR(opt, gamma=self.schedule)
        return {"optimizer": opt, "lr_scheduler": {"scheduler": sched, "interval": "step"}}

    def loader(self, steps):
        return counter(steps)

    @torch.no_grad()
    def error(self):
        x = torch.linspace(0, 1, 300)[:, None]
        self.eval()
        pred = self(x)
        self.train()
        return rel_l2(pred, self.true(x))


class Samples(pl.LightningModule):
    """Regression of samples in mini-batches: no physics yet."""

    def __init__(
        self,
        net: Mapping[str, Any] = NO_NET,
        column: bool = True,
        count: int = 128,
        freq: float = 1.0,
        fourier: bool = False,
        bias: float | None = None,
        act: Callable[[], nn.Module] = nn.Tanh,
        width: int = 32,
        offset: float = 0.0,
        amplitude: float = 1.0,
        lr: float = 5e-3,
    ):
        super().__init__()
        self.fourier, self.freq, self.offset, self.lr = fourier, freq, offset, lr
        self.amplitude = amplitude
        first = nn.Linear(16 if fourier else 1, width)
        if bias is not None:
            nn.init.constant_(first.bias, bias)
        self.body = nn.Sequential(first, act(), nn.Linear(width, width), act())
        self.head = nn.Linear(width, 1)
        self.loss_fn = nn.MSELoss()
        x = torch.linspace(-1, 1, count)[:, None]
        y = self.signal(x) + offset
        self.data = TensorDataset(x, y if column else y.flatten())

    def signal(self, x):
        return self.amplitude * (torch.sin(PI * self.freq * x) + 0.5 * x)

    def forward(self, x):
        if self.fourier:
            phase = PI * x * torch.arange(1, 25, 3).float()
            x = torch.cat([phase.sin(), phase.cos()], 1)
        return self.head(self.body(x))

    def training_step(self, batch, batch_idx):
        x, y = batch
        loss = self.loss_fn(self(x) + self.offset, y)
        self.log("train_loss", loss, on_step=True)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def loader(self, steps):
        return DataLoader(self.data, batch_size=32, shuffle=True)

    @torch.no_grad()
    def error(self):
        x = torch.linspace(-1, 1, 400)[:, None]
        return rel_l2(self(x), self.signal(x))
