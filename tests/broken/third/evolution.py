"""Equations in time: a star, a pendulum, a rod, a wave function, a shock."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.utilities import CombinedLoader
from scipy.integrate import solve_ivp
from scipy.stats import qmc
from torch import Tensor, nn
from torch.func import jvp
from torch.nn.functional import mse_loss
from torch.utils.data import DataLoader, TensorDataset

from tests.broken.run import Run
from tests.broken.third.tools import NO_NET, counter, diff, rel_l2


def dense(n_in: int, n_out: int, width: int = 32) -> nn.Sequential:
    return nn.Sequential(
        nn.Linear(n_in, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh(),
        nn.Linear(width, n_out),
    )  # fmt: skip


class ResBlock(nn.Module):
    def __init__(self, width: int):
        super().__init__()
        self.lin = nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        return x + torch.sin(self.lin(x))


class LaneEmden(pl.LightningModule):
    """y'' + 2/x y' + y = 0 with y = 1 - x^2 N(x): a sphere in equilibrium, n = 1; y = sin x / x."""

    def __init__(self, net: Mapping[str, Any] = NO_NET, first: float = 0.01, lr: float = 2e-3):
        super().__init__()
        self.N = nn.Sequential(nn.Linear(1, 20), ResBlock(20), ResBlock(20), nn.Linear(20, 1))
        self.radius = torch.linspace(first, math.pi, 80).unsqueeze(-1)
        self.lr = lr
        self.automatic_optimization = False

    def forward(self, x):
        return 1 - x**2 * self.N(x)

    def training_step(self, batch, batch_idx):
        opt = self.optimizers()
        x = self.radius.requires_grad_()
        y = self(x)
        dy = diff(y, x)
        residual = diff(dy, x) + 2 / x * dy + y
        loss = (residual * residual).mean()
        opt.zero_grad()
        self.manual_backward(loss)
        opt.step()
        self.log("lane_emden", loss)

    def configure_optimizers(self):
        return torch.optim.AdamW(self.N.parameters(), lr=self.lr, weight_decay=1e-4)

    def loader(self, steps):
        return counter(steps)

    @torch.no_grad()
    def error(self):
        x = torch.linspace(0.05, math.pi, 200)[:, None]
        return rel_l2(self(x), torch.sin(x) / x)


class Pendulum(pl.LightningModule):
    """theta'' = -sin(theta), as a system, for a long time; windows that open one by one."""

    def __init__(
        self,
        net: Mapping[str, Any] = NO_NET,
        span: float = 20.0,
        windows: int = 1,
        stages: int = 3000,
        lr: float = 5e-3,
    ):
        super().__init__()
        self.nets = nn.ModuleList([dense(1, 2) for _ in range(windows)])
        self.span, self.windows, self.lr = span, windows, lr
        self.per_stage = stages // windows
        self.begin = torch.tensor([[1.5, 0.0]])

    def within(self, k: int, s: Tensor, start: Tensor) -> Tensor:
        return start + s * self.nets[k](2 * s - 1)

    def training_step(self, batch, batch_idx):
        k = min(self.global_step // self.per_stage, self.windows - 1)
        length = self.span / self.windows
        start = self.begin
        with torch.no_grad():
            for j in range(k):
                start = self.within(j, torch.ones(1, 1), start)
        s = torch.rand(50, 1)
        y, dy = jvp(lambda s: self.within(k, s, start), (s,), (torch.ones_like(s),))
        rhs = torch.stack([y[:, 1], -torch.sin(y[:, 0])], dim=1)
        loss = mse_loss(dy / length, rhs)
        self.log("loss_ode", loss)
        return loss

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), lr=self.lr)

    def loader(self, steps):
        return counter(steps)

    @torch.no_grad()
    def error(self):
        t = torch.linspace(0, self.span, 401)[:-1]
        exact = solve_ivp(
            lambda _, y: [y[1], -math.sin(y[0])], (0, self.span), [1.5, 0.0],
            t_eval=t.double().numpy(), rtol=1e-8,
        )  # fmt: skip
        starts, pieces = self.begin, []
        length = self.span / self.windows
        for k in range(self.windows):
            inside = t[(t >= k * length) & (t < (k + 1) * length)]
            pieces.append(self.within(k, (inside[:, None] - k * length) / length, starts))
            starts = self.within(k, torch.ones(1, 1), starts)
        return rel_l2(torch.cat(pieces), torch.tensor(exact.y.T))


class Rod(pl.LightningModule):
    """u_t = a u_xx, insulated at the right; a loader for each term, joined by Lightning."""

    def __init__(self, net: Mapping[str, Any] = NO_NET, a: float = 0.3, insulate: str = "graph"):
        super().__init__()
        self.branch = dense(2, 1)
        self.a, self.insulate = a, insulate

    def exact(self, xt: Tensor) -> Tensor:
        x, t = xt[:, :1], xt[:, 1:]
        return torch.sin(math.pi / 2 * x) * torch.exp(-self.a * (math.pi / 2) ** 2 * t)

    def training_step(self, batch, batch_idx):
        x, t = (c.clone().requires_grad_() for c in batch["inside"][0].split(1, 1))
        u = self.branch(torch.cat([x, t], 1))
        loss = {"pde": mse_loss(diff(u, t), self.a * diff(u, x, 2))}
        xt, value = batch["known"]
        loss["known"] = 5 * mse_loss(self.branch(xt), value)
        t = batch["wall"][0]
        x = torch.ones_like(t).requires_grad_()
        flux = diff(self.branch(torch.cat([x, t], 1)), x)
        loss["flux"] = (flux if self.insulate == "graph" else flux.detach()).square().mean()
        self.log_dict(loss)
        return sum(loss.values())

    def configure_optimizers(self):
        opt = torch.optim.RAdam(self.parameters(), lr=6e-3)
        return [opt], [torch.optim.lr_scheduler.StepLR(opt, 100, gamma=0.8)]

    def loader(self, steps):
        inside = torch.tensor(qmc.Halton(2, seed=3).random(256), dtype=torch.float32)
        known = torch.rand(100, 2)
        known[:50, 1], known[50:, 0] = 0, 0
        sets = {
            "inside": TensorDataset(inside),
            "known": TensorDataset(known, self.exact(known)),
            "wall": TensorDataset(torch.rand(64, 1)),
        }
        loaders = {k: DataLoader(v, batch_size=64, shuffle=True) for k, v in sets.items()}
        return CombinedLoader(loaders, "max_size_cycle")

    @torch.no_grad()
    def error(self):
        line = torch.linspace(0, 1, 30)
        xt = torch.cartesian_prod(line, line)
        return rel_l2(self.branch(xt), self.exact(xt))


class WaveFunction(pl.LightningModule):
    """i h_t + h_xx / 2 = x^2 h / 2, the ground state that turns; h = (u, v), L-BFGS."""

    def __init__(self, net: Mapping[str, Any] = NO_NET, width: int = 24):
        super().__init__()
        self.psi = dense(2, 2, width)
        soboled = torch.tensor(qmc.Sobol(2, seed=0).random(256), dtype=torch.float32)
        self.register_buffer("xt", soboled * torch.tensor([6.0, 2.0]) - torch.tensor([3.0, 0.0]))
        self.register_buffer("x0", torch.linspace(-3, 3, 40)[:, None])
        self.register_buffer("tb", torch.linspace(0, 2, 20)[:, None])

    def exact(self, xt):
        r = torch.exp(-(xt[:, :1] ** 2) / 2)
        return torch.cat([r * torch.cos(xt[:, 1:] / 2), -r * torch.sin(xt[:, 1:] / 2)], 1)

    def training_step(self, batch, batch_idx):
        x, t = self.xt[:, :1].clone().requires_grad_(), self.xt[:, 1:].clone().requires_grad_()
        u, v = self.psi(torch.cat([x, t], 1)).split(1, 1)
        real = diff(u, t) + diff(v, x, 2) / 2 - x**2 * v / 2
        imag = diff(v, t) - diff(u, x, 2) / 2 + x**2 * u / 2
        start = torch.cat([self.x0, 0 * self.x0], 1)
        walls = torch.cat([torch.cat([e + 0 * self.tb, self.tb], 1) for e in (-3, 3)])
        mse_f = torch.mean(real**2) + torch.mean(imag**2)
        mse_0 = torch.mean((self.psi(start) - self.exact(start)) ** 2)
        mse_b = torch.mean((self.psi(walls) - self.exact(walls)) ** 2)
        loss = mse_f + 10 * mse_0 + 10 * mse_b
        self.log_dict({"mse_f": mse_f, "mse_0": mse_0, "mse_b": mse_b, "loss": loss})
        return loss

    def configure_optimizers(self):
        return torch.optim.LBFGS(self.psi.parameters(), 1.0, 10, line_search_fn="strong_wolfe")

    def loader(self, steps):
        return counter(steps)

    @torch.no_grad()
    def error(self):
        xt = torch.cartesian_prod(torch.linspace(-3, 3, 40), torch.linspace(0, 2, 30))
        return rel_l2(self.psi(xt), self.exact(xt))


EVOLUTION = [
    Run("third-star-centre", "DIVERGED", "set", LaneEmden, {"steps": 900}, {"first": 0.0}),
    Run("third-pendulum-windows", "CAUSALITY", "set", Pendulum,
        {"steps": 1200, "span": 16.0, "windows": 4, "stages": 1200}, {"windows": 1}),
    Run("third-rod", "CLEAN", "set", Rod, {"steps": 900}),
    Run("third-rod-flux", "DETACHED", "set", Rod, {"steps": 900, "a": 1.0},
        {"insulate": "detached"}),
    Run("third-wave-function", "CLEAN", "set", WaveFunction, {"steps": 40}),
]  # fmt: skip
