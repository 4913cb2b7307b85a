"""Transport and fronts in position and time."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from scipy.stats import qmc
from torch import Tensor, nn

from tests.broken.others.fields import partials
from tests.broken.others.graded import Graded, dense

ADAMAX: Any = partial(torch.optim.Adamax, lr=1e-2)


class Transport(Graded):
    """u_t + c u_x = 0 with u = sin(2 pi x) at first and its inflow; Latin hypercube points."""

    def __init__(
        self, c: float = 0.5, data: float = 10.0, optim: Any = ADAMAX,
        n: int = 256, upto: float = 1.0, width: int = 32, net: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.box = ((0.0, 1.0), (0.0, 1.0))
        self.c, self.data, self.optim = c, data, optim
        self.layers = dense(2, width, width, 1)
        cube = torch.tensor(qmc.LatinHypercube(2, seed=1).random(n), dtype=torch.float32)
        self.register_buffer("cube", cube * torch.tensor([1.0, upto]))
        s = torch.linspace(0, 1, 50)[:, None]
        self.known = torch.cat([torch.cat([s, 0 * s], 1), torch.cat([0 * s, s], 1)])

    def forward(self, xt: Tensor) -> Tensor:
        return self.layers(2 * xt - 1)

    def exact(self, xt: Tensor) -> Tensor:
        return torch.sin(2 * math.pi * (xt[:, :1] - self.c * xt[:, 1:]))

    def given(self) -> Tensor:
        return nn.functional.mse_loss(self(self.known), self.exact(self.known))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        xt = self.cube.clone().requires_grad_()
        u_x, u_t = partials(self(xt), xt)
        loss_f, loss_u = torch.mean((u_t + self.c * u_x) ** 2), self.given()
        self.log("loss_f", loss_f)
        self.log("loss_u", loss_u)
        return loss_f + self.data * loss_u

    def configure_optimizers(self) -> Any:
        return self.optim(self.parameters())


class UnlearntTransport(Transport):
    """What is known is compared as for validation."""

    @torch.no_grad()
    def given(self) -> Tensor:
        return super().given()


class Front(Graded):
    """Burgers' travelling front; optimised by hand in training_step."""

    nu = 0.05

    def __init__(
        self, lr: float = 4e-3, act: Any = nn.Tanh, trace: float = 5.0, net: Any = None
    ) -> None:
        super().__init__()
        self.box, self.lr, self.trace = ((-1.0, 1.0), (0.0, 1.0)), lr, trace
        self.automatic_optimization = False
        self.phi = dense(2, 24, 24, 1, act=act)

    def forward(self, xt: Tensor) -> Tensor:
        return self.phi(xt)

    def exact(self, xt: Tensor) -> Tensor:
        return 0.5 * (1 - torch.tanh((xt[:, :1] - 0.5 * xt[:, 1:]) / (4 * self.nu)))

    def losses(self) -> tuple[Tensor, Tensor]:
        xt = (
            torch.rand(150, 2) * torch.tensor([2.0, 1.0]) - torch.tensor([1.0, 0.0])
        ).requires_grad_()
        u = self(xt)
        u_x, u_t = partials(u, xt)
        r = u_t + u * u_x - self.nu * partials(u_x, xt)[0]
        x, t = 2 * torch.rand(50, 1) - 1, torch.rand(50, 1)
        rim = torch.cat([torch.hstack([x, 0 * t]), torch.hstack([x.sign(), t])])
        return (r**2).mean(), (self(rim) - self.exact(rim)).pow(2).mean()

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer: Any = self.optimizers()
        residual, rim = self.losses()
        optimizer.zero_grad()
        self.manual_backward(residual + self.trace * rim)
        optimizer.step()
        self.log("burgers", residual)
        self.log("rim", rim)

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr)
