"""Fields of position and time: heat, waves, transport, fronts and reactions."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
from pytorch_lightning.utilities import CombinedLoader
from scipy.stats import qmc
from torch import Tensor, nn
from torch.func import hessian, vmap
from torch.utils.data import DataLoader, TensorDataset

from tests.broken.others.graded import Graded, dense

ADAM: Any = partial(torch.optim.Adam, lr=4e-3)

ADAMAX: Any = partial(torch.optim.Adamax, lr=1e-2)


def partials(u: Tensor, x: Tensor) -> tuple[Tensor, ...]:
    """Derivatives of a column u, as columns."""
    return torch.autograd.grad(u.sum(), x, create_graph=True)[0].split(1, dim=1)


class HeatRod(Graded):
    """u_t = a u_xx, u = sin(pi x) at first, 0 at the walls; a loader for each condition."""

    a = 0.2

    def __init__(
        self, inside: int = 400, weights: tuple[float, float, float] = (1.0, 10.0, 10.0),
        first: float = 1.0, act: Any = nn.Tanh, width: int = 24, start: Any = None,
        optim: Any = ADAM, net: Any = None,
    ) -> None:  # fmt: skip
        super().__init__()
        self.box, self.inside, self.weights = ((0.0, 1.0), (0.0, 1.0)), inside, weights
        self.first, self.optim = first, optim
        self.u = dense(2, width, width, 1, act=act)
        if start:
            self.u.apply(start)

    def forward(self, xt: Tensor) -> Tensor:
        return self.u(2 * xt - 1)

    def exact(self, xt: Tensor) -> Tensor:
        x, t = xt.split(1, dim=1)
        return torch.sin(math.pi * x) * torch.exp(-self.a * math.pi**2 * t)

    def collocation(self) -> Tensor:
        return torch.rand(self.inside, 2)

    def loader(self, steps: int) -> Any:
        line = torch.linspace(0, 1, 40)[:, None]
        ic = torch.hstack([line, torch.zeros_like(line)])
        walls = torch.vstack(
            [torch.hstack([side * torch.ones_like(line), line]) for side in (0, 1)]
        )
        sets = {"pde": (self.collocation(), 100), "ic": (ic, 20), "walls": (walls, 40)}
        loaders = {
            name: DataLoader(TensorDataset(points), batch_size=size, shuffle=True)
            for name, (points, size) in sets.items()
        }
        return CombinedLoader(loaders, mode="max_size_cycle")

    def equation(self, xt: Tensor) -> Tensor:
        xt = xt.requires_grad_()
        u_x, u_t = partials(self(xt), xt)
        u_xx, _ = partials(u_x, xt)
        return u_t - self.a * u_xx

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        (xt,), (ic,), (walls,) = batch["pde"], batch["ic"], batch["walls"]
        heat = torch.mean(self.equation(xt) ** 2)
        initial = torch.mean((self(ic) - self.first * torch.sin(math.pi * ic[:, :1])) ** 2)
        edge = torch.mean(self(walls) ** 2)
        self.log_dict({"heat": heat, "initial": initial, "edge": edge}, on_step=True)
        a, b, c = self.weights
        return a * heat + b * initial + c * edge

    def configure_optimizers(self) -> Any:
        return self.optim(self.parameters())


class Chord(Graded):
    """u_tt = u_xx between fixed ends (by construction), plucked as sin(pi x), let go at rest."""

    def __init__(
        self, plucked: float = 10.0, rest: float = 10.0, lr: float = 4e-3, net: Any = None
    ):
        super().__init__()
        self.box = ((0.0, 1.0), (0.0, 1.0))
        self.plucked, self.rest, self.lr = plucked, rest, lr
        self.body = dense(2, 20, 20, 1)
        sobol = qmc.Sobol(2, seed=3).random(64)
        self.inner = torch.as_tensor(sobol, dtype=torch.float32)
        x = torch.linspace(0.05, 0.95, 19)
        self.early = torch.stack([x, torch.zeros_like(x)], dim=1)

    def forward(self, xt: Tensor) -> Tensor:
        x = xt[..., :1]
        return 4 * x * (1 - x) * self.body(2 * xt - 1)

    def exact(self, xt: Tensor) -> Tensor:
        return torch.sin(math.pi * xt[:, :1]) * torch.cos(math.pi * xt[:, 1:])

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        curvature = vmap(hessian(lambda p: self(p)[0]))(self.inner)
        wave = (0.1 * (curvature[:, 1, 1] - curvature[:, 0, 0])).pow(2).mean()
        early = self.early.clone().requires_grad_()
        u = self(early)
        terms = {"wave": wave}
        if self.plucked:
            terms["shape"] = (
                self.plucked * (u - torch.sin(math.pi * self.early[:, :1])).pow(2).mean()
            )
        if self.rest:
            terms["speed"] = self.rest * 0.1 * partials(u, early)[1].pow(2).mean()
        self.log_dict(terms)
        return torch.stack(list(terms.values())).sum()

    def configure_optimizers(self) -> Any:
        return torch.optim.RAdam(self.parameters(), lr=self.lr)


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


class Reaction(Graded):
    """u_t = rho u (1 - u) from a bump at each x; ``march``: steps until the end is reached."""

    def __init__(self, rho: float = 6.0, march: int = 0, width: int = 32, net: Any = None) -> None:
        super().__init__()
        self.box, self.rho, self.march = ((0.0, 2 * math.pi), (0.0, 1.0)), rho, march
        self.f = dense(2, width, width, width, 1)

    def forward(self, xt: Tensor) -> Tensor:
        return self.f(torch.cat([xt[:, :1] / math.pi - 1, 2 * xt[:, 1:] - 1], dim=1))

    def bump(self, x: Tensor) -> Tensor:
        return torch.exp(-((x - math.pi) ** 2) / (2 * (math.pi / 4) ** 2))

    def exact(self, xt: Tensor) -> Tensor:
        h, e = self.bump(xt[:, :1]), torch.exp(self.rho * xt[:, 1:])
        return h * e / (h * e + 1 - h)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        end = min(1.0, 0.05 + self.global_step / self.march) if self.march else 1.0
        xt = torch.rand(200, 2) * torch.tensor([2 * math.pi, end])
        xt.requires_grad_()
        u = self(xt)
        loss_r = (partials(u, xt)[1] - self.rho * u * (1 - u)).square().mean()
        x0 = torch.linspace(0, 2 * math.pi, 64)[:, None]
        loss_0 = (self(torch.hstack([x0, 0 * x0])) - self.bump(x0)).square().mean()
        self.log_dict({"r": loss_r, "u0": loss_0})
        return loss_r + 10 * loss_0

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=2e-3)


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


class HeatByDifferences(HeatRod):
    """Slopes by central differences; temperatures count from ``zero``, as in kelvin."""

    def __init__(self, zero: float = 0.0, h: float = 2e-2, **options: Any) -> None:
        super().__init__(**options)
        self.zero, self.h = zero, h

    def equation(self, xt: Tensor) -> Tensor:
        dx, dt = self.h * torch.eye(2)

        def absolute(p: Tensor) -> Tensor:
            return self.zero + self(p)

        u_t = (absolute(xt + dt) - absolute(xt - dt)) / (2 * self.h)
        u_xx = (absolute(xt + dx) - 2 * absolute(xt) + absolute(xt - dx)) / self.h**2
        return u_t - self.a * u_xx
