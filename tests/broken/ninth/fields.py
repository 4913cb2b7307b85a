"""Fields in space, each with its own training step."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from scipy.optimize import brentq
from torch import Tensor, nn
from torch.nn import functional as F

from tests.broken.networks import mlp
from tests.broken.ninth.bare import Bare, gradient


class GrayScott(Bare):
    """Gray and Scott's reaction with sources that make a chosen pattern the solution."""

    box = ((0.0, 1.0), (0.0, 1.0))

    def __init__(
        self,
        net: dict[str, Any] | None = None,
        n: int = 150,
        weights: tuple[float, ...] = (1, 1, 1),
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.net, self.n, self.weights = mlp(2, 2, **(net or {})), n, weights

    def truth(self, x: Tensor) -> Tensor:
        wave, t = torch.cos(math.pi * x[:, 0]), x[:, 1]
        return torch.stack([1 - 0.6 * wave * torch.exp(-t), 0.5 + 0.5 * wave * torch.cos(2 * t)], 1)

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x)

    def reaction(self, y: Tensor, x: Tensor) -> Tensor:
        u, v = y.T
        g, h = gradient(u, x), gradient(v, x)
        u_xx, v_xx = gradient(g[:, 0], x)[:, 0], gradient(h[:, 0], x)[:, 0]
        first = g[:, 1] - 0.2 * u_xx + u * v**2 - 0.4 * (1 - u)
        second = h[:, 1] - 0.1 * v_xx - u * v**2 + 0.6 * v
        return torch.stack([first, second], 1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = torch.rand(self.n, 2, requires_grad=True)
        source = self.reaction(self.truth(x), x).detach()
        walls = torch.rand(40, 2)
        walls[:, 0] = walls[:, 0].round()
        walls.requires_grad_()
        y = self.net(walls)
        flux = torch.stack([gradient(part, walls)[:, 0] for part in y.T], 1)
        begin = torch.rand(40, 2) * torch.tensor([1.0, 0.0])
        terms = (
            F.mse_loss(self.reaction(self.net(x), x), source),
            flux.square().mean(),
            F.mse_loss(self.net(begin), self.truth(begin)),
        )
        for name, term in zip(("reaction", "flux", "begin"), terms, strict=True):
            self.log(name, term)
        return sum(w * term for w, term in zip(self.weights, terms, strict=True))


class Membrane(Bare):
    """-Laplace u + u^3 = f on the square; u is given on the edge, or by an ansatz."""

    box = ((0.0, 1.0), (0.0, 1.0))

    def __init__(
        self,
        net: dict[str, Any] | None = None,
        ansatz: bool = False,
        pool: Callable[[], Tensor] = lambda: torch.rand(150, 2),
        edge_weight: float = 10.0,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.net, self.ansatz, self.edge_weight = mlp(2, 1, **(net or {})), ansatz, edge_weight
        self.pool = pool

    def truth(self, x: Tensor) -> Tensor:
        a, b = x[:, :1], x[:, 1:]
        return torch.sin(math.pi * a) * torch.sin(2 * math.pi * b) + (0 if self.ansatz else 1 + a)

    def predict(self, x: Tensor) -> Tensor:
        u = self.net(x)
        return 10 * (x * (1 - x)).prod(1, keepdim=True) * u if self.ansatz else u

    def edge(self) -> Tensor:
        x = torch.rand(60, 2)
        x[torch.arange(60), torch.randint(2, (60,))] = torch.randint(2, (60,)).float()
        return F.mse_loss(self.net(x), self.truth(x))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.pool().requires_grad_()

        def operator(u: Tensor) -> Tensor:
            g = gradient(u, x)
            return -sum(gradient(g[:, [i]], x)[:, [i]] for i in (0, 1)) + u**3

        unit = 5 * math.pi**2
        inner = F.mse_loss(
            operator(self.predict(x)) / unit, operator(self.truth(x)).detach() / unit
        )
        self.log("inner", inner)
        if self.ansatz:
            return inner
        edge = self.edge()
        self.log("edge", edge)
        return inner + self.edge_weight * edge


class WatchedEdge(Membrane):
    """The values on the edge are taken as for a plot."""

    def edge(self) -> Tensor:
        with torch.no_grad():
            return super().edge()


class Sturm(Bare):
    """-u'' = lambda u with u = 0 at both ends, lambda trained, mean of u^2 one half."""

    def __init__(
        self, net: dict[str, Any] | None = None, normed: bool = True, **options: Any
    ) -> None:
        super().__init__(**options)
        self.net, self.normed = mlp(1, 1, **(net or {})), normed
        self.eigenvalue = nn.Parameter(torch.tensor(6.0))

    def truth(self, x: Tensor) -> Tensor:
        return torch.sin(math.pi * x)

    def predict(self, x: Tensor) -> Tensor:
        u = self.net(x)
        return u * u.mean().sign()

    def training_step(self, batch: Any, batch_idx: int) -> dict[str, Tensor]:
        x = torch.linspace(0, 1, 41)[:, None].requires_grad_()
        u = self.net(x)
        equation = (gradient(gradient(u, x), x) + self.eigenvalue * u) / 10
        losses = {"equation": equation.square().mean(), "ends": u[[0, -1]].square().sum()}
        if self.normed:
            losses["norm"] = (u.square().mean() - 0.5) ** 2
        self.log_dict(losses)
        return {"loss": torch.stack(list(losses.values())).sum()}


class Bratu(Bare):
    """u'' + lambda exp(u) = 0, u = 0 at both ends: the lower branch."""

    def __init__(self, net: dict[str, Any] | None = None, lam: float = 3.0, **options: Any) -> None:
        super().__init__(**options)
        self.net, self.lam = mlp(1, 1, **(net or {})), lam
        self.theta = brentq(lambda s: s - math.sqrt(2 * lam) * math.cosh(s / 4), 0, 4.79)

    def truth(self, x: Tensor) -> Tensor:
        return -2 * torch.log(torch.cosh((x - 0.5) * self.theta / 2) / math.cosh(self.theta / 4))

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = torch.linspace(0, 1, 30)[:, None].requires_grad_()
        u = self.net(x)
        ignition = gradient(gradient(u, x), x) + self.lam * torch.exp(u)
        ends = self.net(torch.tensor([[0.0], [1.0]]))
        self.log("ends", ends.pow(2).mean())
        return ignition.pow(2).mean() + 10 * ends.pow(2).mean()


class Pressure(Bare):
    """Sound in a pipe: p'' + (2 pi)^2 p = 0 by differences, for the pressure with the ambient one."""

    def __init__(
        self,
        net: dict[str, Any] | None = None,
        ambient: float = 1e5,
        h: float = 0.05,
        double: bool = True,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.net, self.ambient, self.h = mlp(1, 1, **(net or {})), ambient, h
        self.to(torch.float64 if double else torch.float32)

    def truth(self, x: Tensor) -> Tensor:
        return torch.cos(5 * x)

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x)

    def absolute(self, x: Tensor) -> Tensor:
        return self.ambient + self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = torch.linspace(0, 1, 40, dtype=self.dtype)[:, None]
        p = self.absolute(x)
        left, right = self.absolute(x - self.h), self.absolute(x + self.h)
        wave = (left - 2 * p + right) / self.h**2 / 25 + (p - self.ambient)
        start = p[0] - self.ambient - 1
        slope = (right[0] - left[0]) / (2 * self.h) / 5
        return wave.square().mean() + start.square().mean() + slope.square().mean()
