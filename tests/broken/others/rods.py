"""Stationary problems on a line: rods, beams, porous columns."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import grad

from tests.broken.others.graded import Graded, dense

NADAM: Any = partial(torch.optim.NAdam, lr=2e-3)


class Block(nn.Module):
    """x + act(W x + b), after which units may be dropped."""

    def __init__(self, width: int, act: Callable[[Tensor], Tensor], drop: float) -> None:
        super().__init__()
        self.linear, self.act, self.drop = nn.Linear(width, width), act, nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return self.drop(x + self.act(self.linear(x)))


class Rod(Graded):
    """-u'' = f for u = sin(pi x) + a sin(m pi x) with u(0) = u(1) = 0; a small ResNet."""

    def __init__(
        self,
        act: Callable[[Tensor], Tensor] = torch.tanh,
        drop: float = 0.0,
        width: int = 24,
        x: Callable[[], Tensor] = lambda: torch.linspace(0, 1, 50),
        wave: tuple[float, int] = (0.3, 3),
        bc: float = 50.0,
        optim: Any = NADAM,
        dtype: torch.dtype = torch.float32,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.wave, self.bc, self.optim = wave, bc, optim
        self.lift, self.out = nn.Linear(1, width), nn.Linear(width, 1)
        self.blocks = nn.Sequential(Block(width, act, drop), Block(width, act, drop))
        self.register_buffer("x", x().reshape(-1, 1))
        self.register_buffer("ends", torch.tensor([[0.0], [1.0]]))
        self.mse = nn.MSELoss()
        self.to(dtype)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.blocks(self.lift(2 * x - 1)))

    def exact(self, x: Tensor) -> Tensor:
        a, m = self.wave
        return torch.sin(math.pi * x) + a * torch.sin(m * math.pi * x)

    def source(self, x: Tensor) -> Tensor:
        a, m = self.wave
        pi = math.pi
        return pi**2 * (torch.sin(pi * x) + a * m**2 * torch.sin(m * pi * x))

    def second(self, x: Tensor) -> Tensor:
        x.requires_grad_(True)
        u_x = grad(self(x).sum(), x, create_graph=True)[0]
        return grad(u_x.sum(), x, create_graph=True)[0]

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.x.clone()
        loss_pde = self.mse(-self.second(x), self.source(self.x))
        loss_bc = self.mse(self(self.ends), torch.zeros_like(self.ends))
        loss = loss_pde + self.bc * loss_bc
        self.log_dict({"loss": loss, "loss_pde": loss_pde, "loss_bc": loss_bc})
        return loss

    def configure_optimizers(self) -> Any:
        return self.optim(self.parameters())


class RodWithoutGraph(Rod):
    """The second derivative is taken as for a plot."""

    def second(self, x: Tensor) -> Tensor:
        x.requires_grad_(True)
        u_x = grad(self(x).sum(), x, create_graph=True)[0]
        return grad(u_x.sum(), x)[0]


class RodByDifferences(Rod):
    """u'' by central differences."""

    def __init__(self, h: float = 1e-2, **options: Any) -> None:
        super().__init__(**options)
        self.h = h

    def second(self, x: Tensor) -> Tensor:
        h = self.h
        return (self(x + h) - 2 * self(x) + self(x - h)) / h**2


class Cube(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) ** 3


class Beam(Graded):
    """EI w'''' = q, w = 0 at both ends, which turn freely or are clamped; w is of size ``unit``."""

    def __init__(
        self,
        q: float = 76.8,
        unit: float = 1.0,
        act: Any = nn.Tanh,
        clamped: bool = False,
        turn: float = 0.1,
        lr: float = 5e-3,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.q, self.unit, self.clamped, self.turn, self.lr = q, unit, clamped, turn, lr
        self.w = dense(1, 20, 20, 1, act=act)
        self.points = torch.linspace(0, 1, 30).view(-1, 1)

    def forward(self, x: Tensor) -> Tensor:
        return self.unit * self.w(2 * x - 1)

    def exact(self, x: Tensor) -> Tensor:
        return self.q / 24 * (x**4 - 2 * x**3 + (x**2 if self.clamped else x))

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = self.points.clone().requires_grad_()
        w = [self(x) / self.unit]
        for _ in range(4):
            w.append(grad(w[-1].sum(), x, create_graph=True)[0])
        load = (w[4] / 100 - self.q / self.unit / 100).square().mean()
        ends = torch.stack([w[0][[0, -1]], w[1 if self.clamped else 2][[0, -1]]])
        supports, turns = ends.square().sum(dim=(1, 2))
        total = load + 10 * supports
        if self.turn:
            total = total + self.turn * turns
        self.log("load", load)
        self.log("supports", supports)
        return total

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=self.lr)


class Column(Graded):
    """Darcy: q = -k p', q' = s with p(0) = 1, p(1) = 0; pressure and flux have a net each."""

    listed = False
    k, s = 0.5, 2.0

    def __init__(self, at_wall: tuple[float, ...] = (1.0, 0.0), flux: Any = None, net: Any = None):
        super().__init__()
        self.at_wall, self.flux = at_wall, flux
        nets = [dense(1, 16, 16, 1), dense(1, 16, 16, 1)]
        if self.listed:
            self.pressure, self.others = nets[0], [nets[1]]
        else:
            self.pressure, self.others = nets[0], nn.ModuleList(nets[1:])

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([self.pressure(x), self.others[0](x)], dim=1)

    def exact(self, x: Tensor) -> Tensor:
        slope = self.s / (2 * self.k) - 1
        p = 1 + slope * x - self.s / (2 * self.k) * x**2
        return torch.cat([p, self.s * x - self.k * slope], dim=1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = torch.rand(64, 1, requires_grad=True)
        p, q = self(x).split(1, dim=1)
        dp, dq = (grad(v.sum(), x, create_graph=True)[0] for v in (p, q))
        darcy = nn.functional.mse_loss(q, -self.k * dp)
        mass = (dq - self.s).pow(2).mean()
        walls = self(torch.tensor([[0.0], [1.0]]))
        bc = (walls[: len(self.at_wall), 0] - torch.tensor(self.at_wall)).pow(2).mean()
        if self.flux is not None:
            bc = bc + (walls[:, 1] - torch.tensor(self.flux)).pow(2).mean()
        self.log_dict({"darcy": darcy, "mass": mass, "bc": bc})
        return darcy + mass + 5 * bc

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=4e-3)


class ListedColumn(Column):
    """The second net is kept in a list, which nobody registers."""

    listed = True
