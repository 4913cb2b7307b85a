"""A pipe in space and time, tissue in the plane, an epidemic."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as fn

from tests.broken.fifth.kinetics import solved
from tests.broken.pinn import Pinn, d


class Pipe(Pinn):
    """u_t + v u_x = 0, a wave carried through a pipe whose ends are joined."""

    def __init__(self, v: float = 1.0, grow: int = 0, **o: Any) -> None:
        super().__init__(((0.0, 2 * math.pi), (0.0, 1.0)), **o)
        self.v, self.grow = v, grow
        x, t = torch.linspace(0, 2 * math.pi, 50)[:, None], torch.linspace(0, 1, 50)[:, None]
        self.register_buffer("initial", torch.cat([x, 0 * x], 1))
        self.register_buffer("left", torch.cat([0 * t, t], 1))
        self.register_buffer("right", torch.cat([0 * t + 2 * math.pi, t], 1))

    def truth(self, x: Tensor) -> Tensor:
        return torch.sin(x[:, :1] - self.v * x[:, 1:])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch).detach()
        if self.grow:
            now = min(1.0, 0.1 + self.global_step / self.grow)
            x = x * torch.tensor([1.0, now])
        x = x.requires_grad_()
        ux, ut = d(self.net(x), x).split(1, dim=1)
        carried = (ut + self.v * ux).pow(2).mean()
        return self.total(
            carried=carried,
            joined=10 * fn.mse_loss(self.net(self.left), self.net(self.right)),
            initial=10 * fn.mse_loss(self.net(self.initial), torch.sin(self.initial[:, :1])),
        )


class Tissue(Pinn):
    """Oxygen: laplacian u - phi^2 u = -f on a square; ``hard``: u = 0 on the walls as built."""

    def __init__(
        self, k: int = 1, m: int = 1, phi: float = 2.0, hard: bool = True, flat: bool = False,
        size: float = 1.0, **o: Any,
    ) -> None:  # fmt: skip
        super().__init__(((0.0, 1.0), (0.0, 1.0)), **o)
        self.k, self.m, self.phi, self.hard = k, m, phi, hard
        self.flat, self.size = flat, size
        s = torch.linspace(0, 1, 25, dtype=self.dtype)[:, None]
        sides = [(s, 0 * s), (s, 0 * s + 1), (0 * s, s), (0 * s + 1, s)]
        self.register_buffer("sides", torch.cat([torch.cat(side, 1) for side in sides]))

    def truth(self, x: Tensor) -> Tensor:
        a, b = torch.sin(self.k * math.pi * x[:, :1]), torch.sin(self.m * math.pi * x[:, 1:])
        return self.size * a * b

    def predict(self, x: Tensor) -> Tensor:
        u = self.net(x)
        return 4 * (x * (1 - x)).prod(dim=1, keepdim=True) * u if self.hard else u

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.collocation(batch)
        u = self.predict(x)
        g = d(u, x)
        laplacian = sum(d(g[:, [i]], x)[:, [i]] for i in (0, 1))
        unit = math.pi**2 * (self.k**2 + self.m**2) + self.phi**2
        f = unit * self.truth(x.detach())
        r = (laplacian - self.phi**2 * u + (f.squeeze(1) if self.flat else f)) / unit
        terms = {"tissue": torch.mean(r.square())}
        if not self.hard:
            terms["walls"] = self.predict(self.sides).square().mean()
        return self.total(**terms)


class Epidemic(Pinn):
    """S and I of an epidemic that begins with few; ``hard``: they begin as they should."""

    n_out = 2

    def __init__(
        self,
        beta: float = 2.5,
        gamma: float = 0.6,
        seed: float = 0.01,
        span: float = 5.0,
        hard: bool = True,
        grow: int = 0,
        **options: Any,
    ) -> None:
        super().__init__(((0.0, span),), **options)
        self.beta, self.gamma, self.first, self.span = beta, gamma, seed, span
        self.hard, self.grow = hard, grow

    def truth(self, t: Tensor) -> Tensor:
        def rhs(_: float, u: Any) -> Any:
            met = self.beta * u[0] * u[1]
            return np.array([-met, met - self.gamma * u[1]])

        return solved(rhs, [1 - self.first, self.first], self.span, t)

    def predict(self, x: Tensor) -> Tensor:
        begin = torch.tensor([[1 - self.first, self.first]], dtype=x.dtype)
        return begin + torch.tanh(x) * self.net(x) if self.hard else self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        t = self.collocation(batch).detach()
        if self.grow:
            t = t * min(1.0, 0.1 + self.global_step / self.grow)
        t = t.requires_grad_()
        s, i = self.predict(t).split(1, dim=1)
        met = self.beta * s * i
        loss = fn.mse_loss(d(s, t), -met) + fn.mse_loss(d(i, t), met - self.gamma * i)
        self.log("rates", loss)
        begin = self.predict(self.at(0.0)) - torch.tensor([[1 - self.first, self.first]])
        return loss + 10 * begin.pow(2).sum()
