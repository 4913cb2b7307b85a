"""The geologist: points drawn in the step, hard conditions, quadrature, adaptive weights."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tests.broken.networks import mlp
from tests.broken.twelfth.base import Model

PI = math.pi


def partials(u: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    """Derivatives (N, 1) with respect to each column of x."""
    return torch.autograd.grad(u.sum(), x, create_graph=True)[0].split(1, dim=1)


def plain(n: int, dim: int) -> Tensor:
    return torch.rand(n, dim)


class Consolidation(Model):
    """Terzaghi: u_t = c u_zz; drained top z = 0, impermeable base z = 1."""

    def __init__(
        self,
        sampler: Callable[[int, int], Tensor] = plain,
        drained: tuple[float, ...] = (0.0,),
        c: float = 0.5,
        **options: Any,
    ) -> None:
        super().__init__(((0.0, 1.0), (0.0, 1.0)), **options)
        self.sampler, self.drained, self.c = sampler, drained, c
        self.net = mlp(2, 1, width=32)

    def truth(self, x: Tensor) -> Tensor:
        z, t = x.split(1, dim=1)
        first = torch.sin(PI / 2 * z) * torch.exp(-self.c * (PI / 2) ** 2 * t)
        return first + 0.4 * torch.sin(1.5 * PI * z) * torch.exp(-self.c * (1.5 * PI) ** 2 * t)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inside = self.sampler(200, 2).requires_grad_()
        u = self.net(inside)
        u_z, u_t = partials(u, inside)
        flow = (u_t - self.c * partials(u_z, inside)[0]).square().mean()
        start = self.sampler(50, 2) * torch.tensor([1.0, 0.0])
        initial = (self.net(start) - self.truth(start)).square().mean()
        t = self.sampler(50, 1)
        base = torch.cat([torch.ones_like(t), t], dim=1).requires_grad_()
        tight = partials(self.net(base), base)[0].square().mean()
        drains = torch.stack(
            [self.net(torch.cat([0 * t + z, t], dim=1)).square().mean() for z in self.drained]
        )
        self.log("flow", flow)
        self.log("initial", initial)
        self.log("tight", tight)
        self.log("drains", drains.sum())
        return flow + 10 * initial + tight + 10 * drains.sum()

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x)


class Seepage(Model):
    """Heads over an anisotropic aquifer with recharge, h_xx + 0.5 h_zz + R = 0; one sum."""

    graph = True

    def __init__(self, width: int = 32, **options: Any) -> None:
        super().__init__(((0.0, 1.0), (0.0, 1.0)), **options)
        self.net = mlp(2, 1, width=width, box=self.box)
        side = torch.rand(30)
        walls = [(side, 0 * side), (side, 0 * side + 1), (0 * side, side), (0 * side + 1, side)]
        self.register_buffer("walls", torch.cat([torch.stack(w, dim=1) for w in walls]))
        self.register_buffer("inside", torch.rand(200, 2))

    def bump(self, x: Tensor) -> Tensor:
        return torch.sin(2 * PI * x[:, [0]]) * torch.sin(PI * x[:, [1]])

    def truth(self, x: Tensor) -> Tensor:
        return self.bump(x) + 0.3 * (x[:, [0]] - x[:, [1]])

    def second(self, h: Tensor, x: Tensor) -> tuple[Tensor, Tensor]:
        h_x, h_z = partials(h, x)
        h_xx = torch.autograd.grad(h_x.sum(), x, create_graph=self.graph, retain_graph=True)[0]
        h_zz = torch.autograd.grad(h_z.sum(), x, create_graph=self.graph, retain_graph=True)[0]
        return h_xx[:, [0]], h_zz[:, [1]]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.inside.clone().requires_grad_()
        h_xx, h_zz = self.second(self.net(x), x)
        recharge = PI**2 * (4 + 0.5) * self.bump(x)
        water = h_xx + 0.5 * h_zz + recharge
        heads = self.net(self.walls) - self.truth(self.walls)
        loss = torch.sum(water**2) / (len(x) * PI**4) + 5 * torch.sum(heads**2) / len(heads)
        self.log("loss", loss)
        return loss

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x)


class SeepageFlat(Seepage):
    """Second derivatives without a graph."""

    graph = False


class Arrival(Model):
    """Eikonal |grad T| v = 1 with v = 1 + 2 z; T = r exp(net) around the shot at (0.5, 0)."""

    def __init__(self, init: Callable[[nn.Module], Any] | None = None, **options: Any) -> None:
        super().__init__(((0.0, 1.0), (0.0, 1.0)), **options)
        self.net = mlp(2, 1, width=32, depth=3, init=init)

    def away(self, x: Tensor) -> Tensor:
        return ((x[:, [0]] - 0.5) ** 2 + x[:, [1]] ** 2).sqrt()

    def predict(self, x: Tensor) -> Tensor:
        return self.away(x) * torch.exp(self.net(x))

    def truth(self, x: Tensor) -> Tensor:
        return torch.acosh(1 + 2 * self.away(x) ** 2 / (1 + 2 * x[:, [1]])) / 2

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = torch.rand(200, 2, requires_grad=True)
        t_x, t_z = partials(self.predict(x), x)
        speed = (t_x**2 + t_z**2).sqrt() * (1 + 2 * x[:, [1]])
        loss = nn.functional.huber_loss(speed, torch.ones_like(speed))
        self.log("eikonal", loss)
        return loss


class Stefan(Model):
    """One-phase melting on 0 < x < s(t), the front fixed by x = s y; the optimizer by hand."""

    FRONT, BEGIN = 0.6, 0.2

    def __init__(self, **options: Any) -> None:
        super().__init__(((0.0, 1.0), (self.BEGIN, 1.0)), **options)
        self.automatic_optimization = False
        self.u = mlp(2, 1, width=24)
        self.s = mlp(1, 1, width=16)
        f = self.FRONT
        self.number = math.sqrt(PI) * f * math.exp(f**2) * math.erf(f)

    def front(self, t: Tensor) -> Tensor:
        start = 2 * self.FRONT * math.sqrt(self.BEGIN)
        return start + (t - self.BEGIN) * nn.functional.softplus(self.s(t))

    def heat(self, x: Tensor) -> Tensor:
        y = x[:, [0]]
        return 1 - y + y * (1 - y) * self.u(x)

    def predict(self, x: Tensor) -> Tensor:
        return torch.cat([self.heat(x), self.front(x[:, [1]])], dim=1)

    def truth(self, x: Tensor) -> Tensor:
        y, t = x.split(1, dim=1)
        u = 1 - torch.erf(self.FRONT * y) / math.erf(self.FRONT)
        return torch.cat([u, 2 * self.FRONT * t.sqrt()], dim=1)

    def training_step(self, batch: Any, batch_idx: int) -> None:
        optimizer = self.optimizers()
        x = torch.rand(150, 2) * torch.tensor([1.0, 1 - self.BEGIN]) + torch.tensor([0, self.BEGIN])
        t = x[:, [1]].requires_grad_()
        x = torch.cat([x[:, [0]], t], dim=1)
        s, u = self.front(t), self.heat(x)
        s_t = torch.autograd.grad(s.sum(), t, create_graph=True)[0]
        u_y, u_t = partials(u, x)
        melt = s**2 * u_t - x[:, [0]] * s * s_t * u_y - partials(u_y, x)[0]
        edge = torch.cat([torch.ones_like(t), t], dim=1)
        balance = s * s_t + self.number * partials(self.heat(edge), edge)[0]
        first = torch.cat([torch.rand(50, 1), torch.full((50, 1), self.BEGIN)], dim=1)
        start = self.heat(first) - self.truth(first)[:, [0]]
        loss = melt.square().mean() + balance.square().mean() + start.square().mean()
        optimizer.zero_grad()
        self.manual_backward(loss)
        optimizer.step()
        self.log("loss", loss)


class Telegraph(Model):
    """u_tt + 2 a u_t = c^2 u_xx on a cable held at its ends; weights adapt themselves."""

    def __init__(self, conditions: tuple[str, ...] = ("shape", "rest", "ends"), **options: Any):
        super().__init__(((0.0, 1.0), (0.0, 1.0)), **options)
        self.a, self.c, self.conditions = 0.8, 1.0, conditions
        self.net = mlp(2, 1, width=32, box=self.box)
        self.balance = nn.ParameterDict({k: nn.Parameter(torch.tensor(1.0)) for k in conditions})
        for weight in self.balance.values():
            weight.register_hook(torch.neg)
        self.register_buffer("cloud", torch.rand(250, 2))

    def truth(self, x: Tensor) -> Tensor:
        s, t = x.split(1, dim=1)
        w = math.sqrt((self.c * PI) ** 2 - self.a**2)
        beat = torch.cos(w * t) + self.a / w * torch.sin(w * t)
        return torch.sin(PI * s) * torch.exp(-self.a * t) * beat

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.cloud.clone().requires_grad_()
        u_x, u_t = partials(self.net(x), x)
        residual = partials(u_t, x)[1] + 2 * self.a * u_t - self.c**2 * partials(u_x, x)[0]
        loss = residual.square().mean()
        self.log("telegraph", loss)
        line = torch.linspace(0, 1, 30)[:, None]
        first = torch.cat([line, 0 * line], dim=1).requires_grad_()
        u = self.net(first)
        ends = torch.cat([torch.cat([0 * line + e, line], dim=1) for e in (0, 1)])
        terms = {
            "shape": (u - torch.sin(PI * line)).square().mean(),
            "rest": partials(u, first)[1].square().mean(),
            "ends": self.net(ends).square().mean(),
        }
        for name in self.conditions:
            self.log(name, terms[name])
            loss = loss + 5 * self.balance[name] ** 2 * terms[name]
        return loss
