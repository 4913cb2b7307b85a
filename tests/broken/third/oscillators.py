"""The damped oscillator of the first-PINN workshops, and the string of the next lesson."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from tests.broken.run import Run
from tests.broken.third.tools import NO_NET, counter, diff, rel_l2


class FCN(nn.Module):
    """Fully connected network of the workshop."""

    def __init__(self, n_in=1, n_out=1, n_hidden=32, n_layers=2, act: Any = nn.Tanh):
        super().__init__()
        self.fcs = nn.Sequential(nn.Linear(n_in, n_hidden), act())
        self.fch = nn.Sequential(
            *[nn.Sequential(nn.Linear(n_hidden, n_hidden), act()) for _ in range(n_layers - 1)]
        )
        self.fce = nn.Linear(n_hidden, n_out)

    def forward(self, x: Tensor) -> Tensor:
        return self.fce(self.fch(self.fcs(x)))


class DampedOscillator(pl.LightningModule):
    """x'' + 2 d x' + w0^2 x = 0 with x(0) = 1, x'(0) = v0, divided by w0^2."""

    def __init__(
        self,
        net: Mapping[str, Any] = NO_NET,
        d: float = 1.0,
        w0: float = 6.0,
        v0: float = 12.0,
        lr: float = 4e-3,
        boundary_graph: bool = True,
        use_velocity: bool = True,
        t_max: float = 1.0,
        optimizer: Any = torch.optim.Adam,
    ):
        super().__init__()
        self.pinn = FCN(**net)
        self.d, self.w0, self.v0, self.lr = d, w0, v0, lr
        self.boundary_graph, self.use_velocity = boundary_graph, use_velocity
        self.make = optimizer
        self.t_boundary = torch.tensor(0.0).view(-1, 1).requires_grad_(True)
        self.t_physics = torch.linspace(0, t_max, 40).view(-1, 1).requires_grad_(True)

    def exact(self, t: Tensor) -> Tensor:
        w = math.sqrt(self.w0**2 - self.d**2)
        return torch.exp(-self.d * t) * (
            torch.cos(w * t) + (self.v0 + self.d) / w * torch.sin(w * t)
        )

    def training_step(self, batch, batch_idx):
        u = self.pinn(self.t_boundary)
        loss1 = (torch.squeeze(u) - 1) ** 2
        dudt = torch.autograd.grad(
            u, self.t_boundary, torch.ones_like(u), create_graph=self.boundary_graph,
            retain_graph=True,
        )[0]  # fmt: skip
        loss2 = (torch.squeeze(dudt) - self.v0) ** 2 / self.w0**2
        u = self.pinn(self.t_physics)
        dudt = diff(u, self.t_physics)
        d2udt2 = diff(dudt, self.t_physics)
        loss3 = torch.mean(((d2udt2 + 2 * self.d * dudt) / self.w0**2 + u) ** 2)
        self.log("start/position", loss1)
        self.log("physics", loss3)
        loss = 5 * loss1 + 5 * loss3
        if self.use_velocity:
            self.log("start/velocity", loss2)
            loss = loss + 5 * loss2
        self.log("loss", loss)
        return loss

    def configure_optimizers(self):
        return self.make(self.pinn.parameters(), lr=self.lr)

    def loader(self, steps):
        return counter(steps)

    @torch.no_grad()
    def error(self):
        t = torch.linspace(0, 1, 300).view(-1, 1)
        return rel_l2(self.pinn(t), self.exact(t))


class StringWave(pl.LightningModule):
    """u_tt = u_xx on [0, 1] x [0, 0.8], fixed ends, plucked at t = 0; three losses in a dict."""

    def __init__(
        self,
        net: Mapping[str, Any] = NO_NET,
        parts: tuple[str, ...] = ("pde", "ends", "shape", "rest"),
        w_shape: float = 20.0,
        w_pde: float = 1.0,
        n: int = 200,
        lr: float = 5e-3,
        t_max: float = 0.8,
        decay: float = 0.0,
    ):
        super().__init__()
        self.u = FCN(n_in=2, **{"n_layers": 2, **net})
        self.parts, self.w_shape, self.w_pde, self.n, self.lr = parts, w_shape, w_pde, n, lr
        self.t_max, self.decay = t_max, decay

    def residuals(self):
        x, t = torch.rand(self.n, 1), self.t_max * torch.rand(self.n, 1)
        x.requires_grad_()
        t.requires_grad_()
        u = self.u(torch.cat((x, t), 1))
        zero = torch.zeros(50, 1, requires_grad=True)
        x0, t1 = torch.rand(50, 1), self.t_max * torch.rand(50, 1)
        u0 = self.u(torch.cat((x0, zero), 1))
        left, right = (self.u(torch.cat((torch.full_like(t1, e), t1), 1)) for e in (0.0, 1.0))
        return {
            "pde": diff(u, t, 2) - diff(u, x, 2),
            "ends": torch.cat((left, right)),
            "shape": u0 - torch.sin(torch.pi * x0),
            "rest": diff(u0, zero),
        }

    def training_step(self, batch, batch_idx):
        weight = {"shape": self.w_shape, "ends": 10.0, "pde": self.w_pde}
        r = self.residuals()
        losses = {k: r[k].square().mean() for k in self.parts}
        self.log_dict({f"train_{k}": v for k, v in losses.items()})
        return torch.stack([weight.get(k, 1.0) * v for k, v in losses.items()]).sum()

    def configure_optimizers(self):
        return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=self.decay)

    def loader(self, steps):
        return counter(steps)

    @torch.no_grad()
    def error(self):
        g = torch.cartesian_prod(torch.linspace(0, 1, 40), torch.linspace(0, 0.8, 40))
        true = torch.sin(torch.pi * g[:, :1]) * torch.cos(torch.pi * g[:, 1:])
        return rel_l2(self.u(g), true)


OSC: dict[str, Any] = {"steps": 900}
WAVE: dict[str, Any] = {"steps": 700}

OSCILLATORS = [
    Run("third-workshop-velocity", "DETACHED", "set", DampedOscillator, OSC,
        {"boundary_graph": False}),
    Run("third-workshop-no-velocity", "NOT_UNIQUE", "set", DampedOscillator, OSC,
        {"use_velocity": False}),
    Run("third-workshop-two-units", "TOO_NARROW", "set", DampedOscillator,
        {"steps": 1200, "w0": 9.0, "v0": 0.0, "net": {"n_layers": 2}},
        {"net": {"n_hidden": 2, "n_layers": 1}}),
    Run("third-workshop-rmsprop", "STEP_TOO_LARGE", "set", DampedOscillator,
        {**OSC, "lr": 1e-3, "optimizer": torch.optim.RMSprop}, {"lr": 0.3}),
    Run("third-workshop-half-time", "POINTS", "set", DampedOscillator, OSC, {"t_max": 0.4}),
    Run("third-workshop", "CLEAN", "set", DampedOscillator, {**OSC, "w0": 7.0, "d": 2.0}),
    Run("third-workshop-early", "EARLY", "set", DampedOscillator, {"steps": 150, "lr": 2e-3}),
    Run("third-string-no-start", "NOTHING_TO_FIND", "set", StringWave, WAVE,
        {"parts": ("pde", "ends", "rest")}),
    Run("third-string-leaky", "DERIVATIVE_VANISHES", "set", StringWave, WAVE,
        {"net": {"act": nn.LeakyReLU}}),
    Run("third-string-weights", "IMBALANCE", "set", StringWave, WAVE, {"w_shape": 1e-4}),
    Run("third-string-decay", "RANDOM_OR_DECAY", "set", StringWave, WAVE, {"decay": 20.0}),
]  # fmt: skip
