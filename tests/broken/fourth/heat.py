"""Heat transfer: a cooling fin, and a slab that cools down."""

from __future__ import annotations

import math
from typing import Any

import torch
from scipy.stats import qmc
from torch import Tensor, nn
from torch.func import jacfwd, jacrev, vmap
from torch.nn.functional import mse_loss

from tests.broken.fourth.base import Task, dense, slope


class Fin(Task):
    """Straight fin with adiabatic tip: theta'' = m^2 theta, in units of its length.

    `base`: excess temperature of the wall; `unit`: that of the network's output;
    `omit`: conditions nobody wrote down; `hot_tip`: the tip is held at this temperature as well.
    """

    def __init__(
        self,
        *,
        m: float = 1.5,
        base: float = 1.0,
        unit: float = 1.0,
        omit: tuple[str, ...] = (),
        hot_tip: float | None = None,
        **training: Any,
    ) -> None:
        super().__init__(**training)
        self.m, self.base, self.unit, self.omit, self.hot_tip = m, base, unit, omit, hot_tip
        self.theta = dense(1, 1, **self.options)
        self.xc = nn.Buffer(torch.linspace(0, 1, 40).reshape(-1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return self.unit * self.theta(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.xc.detach().clone().requires_grad_(True)
        theta = self(x)
        theta_x = slope(theta, x)
        residual = slope(theta_x, x) - self.m**2 * theta
        parts = {
            "ode": mse_loss(residual, torch.zeros_like(residual)) / self.unit**2,
            "wall": 5 * mse_loss(theta[:1], torch.full((1, 1), self.base)) / self.unit**2,
            "insulated": theta_x[-1].square().mean() / self.unit**2,
        }
        if self.hot_tip is not None:
            parts["tip"] = 5 * mse_loss(theta[-1:], torch.full((1, 1), self.hot_tip))
        parts = {k: v for k, v in parts.items() if k not in self.omit}
        self.log_dict({f"fin/{k}": v for k, v in parts.items()})
        return torch.stack(list(parts.values())).sum()

    def compare(self) -> tuple[Tensor, Tensor]:
        x = torch.linspace(0, 1, 201).reshape(-1, 1)
        return self(x), self.base * torch.cosh(self.m * (1 - x)) / math.cosh(self.m)


class Slab(Task):
    """u_t = u_xx / 10 on 0 < x < 1, 0 < t < 1, zero at both faces, two modes at the beginning.

    `until`: the collocation points end at this time; `frozen_start`: the initial profile is
    compared within no_grad.
    """

    def __init__(
        self, *, until: float = 1.0, n: int = 200, frozen_start: bool = False, **training: Any
    ) -> None:
        super().__init__(**training)
        self.net = dense(2, 1, **self.options)
        self.frozen_start = frozen_start
        cube = torch.tensor(qmc.LatinHypercube(2, seed=4).random(n), dtype=torch.float32)
        self.inside = cube * torch.tensor([1.0, until])
        line = torch.linspace(0, 1, 25)
        self.start = torch.stack([line, torch.zeros(25)], 1)
        self.faces = torch.cat(
            [torch.stack([torch.full((25,), s), until * line], 1) for s in (0.0, 1.0)]
        )

    @staticmethod
    def exact(z: Tensor) -> Tensor:
        x, t = z.unbind(-1)
        first = torch.sin(math.pi * x) * torch.exp(-0.1 * math.pi**2 * t)
        return first + 0.5 * torch.sin(2 * math.pi * x) * torch.exp(-0.4 * math.pi**2 * t)

    def u(self, z: Tensor) -> Tensor:
        return self.net(z).squeeze(-1)

    def pde(self, z: Tensor) -> Tensor:
        u_t = vmap(jacrev(self.u), randomness="different")(z)[:, 1]
        second = jacfwd(jacrev(self.u), randomness="same")
        u_xx = vmap(second, randomness="different")(z)[:, 0, 0]
        return u_t - 0.1 * u_xx

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        with torch.set_grad_enabled(not self.frozen_start):
            ic = torch.mean((self.u(self.start) - self.exact(self.start)) ** 2)
        bc = torch.mean(self.u(self.faces) ** 2)
        physics = torch.mean(self.pde(self.inside) ** 2)
        loss = physics + 10 * ic + 10 * bc
        self.log("physics", physics)
        self.log("initial", ic)
        self.log("boundary", bc)
        self.log("loss", loss)
        return loss

    def compare(self) -> tuple[Tensor, Tensor]:
        z = torch.cartesian_prod(torch.linspace(0, 1, 41), torch.linspace(0, 1, 41))
        return self.u(z), self.exact(z)
