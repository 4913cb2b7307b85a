"""A chirp from its slope, and a decaying phasor of two real numbers."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.func import grad, vmap

from tests.broken.others.fits import Encoding
from tests.broken.others.graded import Graded, dense


class Chirp(Graded):
    """u' = f for u = sin(a x + b x^2); the residual is divided by the largest slope."""

    def __init__(self, a: float = 10.0, b: float = 25.0, octaves: int = 0, net: Any = None) -> None:
        super().__init__()
        self.a, self.b = a, b
        body = dense(2 * octaves or 1, 40, 40, 1)
        self.u = nn.Sequential(Encoding(octaves), body) if octaves else body

    def forward(self, x: Tensor) -> Tensor:
        return self.u(x)

    def exact(self, x: Tensor) -> Tensor:
        return torch.sin(self.a * x + self.b * x**2)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = torch.linspace(0, 1, 128)
        slopes = vmap(grad(lambda s: self(s.view(1, 1)).squeeze()))(x)
        wanted = vmap(grad(self.exact))(x)
        largest = self.a + 2 * self.b
        loss = torch.mean(((slopes - wanted) / largest) ** 2)
        start = self(torch.zeros(1, 1)).square().sum()
        self.log("match/slope", loss)
        self.log("match/start", start)
        return loss + 0.1 * start

    def configure_optimizers(self) -> Any:
        return torch.optim.AdamW(self.parameters(), lr=3e-3)


class Phasor(Graded):
    """z' = (i w - a) z, z(0) = 1: real and imaginary part from two nets with an optimizer each."""

    def __init__(self, w: float = 4.0, a: float = 1.0, lr: float = 4e-3, net: Any = None) -> None:
        super().__init__()
        self.automatic_optimization = False
        self.rate, self.lr = torch.tensor(complex(-a, w)), lr
        self.re, self.im = dense(1, 20, 20, 1), dense(1, 20, 20, 1)

    def forward(self, t: Tensor) -> Tensor:
        return torch.cat([self.re(2 * t - 1), self.im(2 * t - 1)], dim=1)

    def exact(self, t: Tensor) -> Tensor:
        return torch.view_as_real(torch.exp(self.rate.to(torch.complex128) * t[:, 0]))

    def training_step(self, batch: Any, batch_idx: int) -> None:
        t = torch.rand(60, 1, requires_grad=True)
        parts = self(t)
        slope = torch.stack(
            [torch.autograd.grad(v.sum(), t, create_graph=True)[0][:, 0] for v in parts.T], dim=1
        )
        wanted = torch.view_as_real(self.rate * torch.view_as_complex(parts.contiguous()))
        rotation = (slope - wanted).abs().square().mean() / self.rate.abs() ** 2
        one = (self(torch.zeros(1, 1)) - torch.tensor([[1.0, 0.0]])).square().sum()
        optimizers: Any = self.optimizers()
        for optimizer in optimizers:
            optimizer.zero_grad()
        self.manual_backward(rotation + one)
        for optimizer in optimizers:
            optimizer.step()
        self.log_dict({"rotation": rotation, "one": one})

    def configure_optimizers(self) -> Any:
        return [torch.optim.Adam(part.parameters(), lr=self.lr) for part in (self.re, self.im)]
