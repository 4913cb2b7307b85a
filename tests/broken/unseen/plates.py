"""Two-dimensional stationary problems with torch.func: a membrane, a Helmholtz room, a distance."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_lightning as pl
import torch
from scipy.stats import qmc
from torch import Tensor, nn
from torch.func import functional_call, hessian, jacrev, vmap

from tests.broken.unseen.tools import judged, relative, ticks


def sobol(n: int) -> Tensor:
    return torch.tensor(qmc.Sobol(2, seed=7).random(n)).float()


def latin(n: int) -> Tensor:
    return torch.tensor(qmc.LatinHypercube(2, seed=3).random(n)).float()


def corner(n: int) -> Tensor:
    """Scaled by half where the domain has width one."""
    return 0.35 * latin(n)


def whole(n: int) -> Tensor:
    """Drawn as whole numbers below one."""
    return torch.randint(0, 1, (n, 2)).float()


def one_repeated(n: int) -> Tensor:
    return torch.rand(1, 2).repeat(n, 1)


def walls(n: int) -> Tensor:
    s, o = torch.linspace(0, 1, n), torch.ones(n)
    pairs = [(s, 0 * o), (s, o), (0 * o, s), (o, s)]
    return torch.cat([torch.stack(pair, 1) for pair in pairs])


class Residual(nn.Module):
    """Two layers with a way around them."""

    def __init__(self, width: int, activation: type[nn.Module]) -> None:
        super().__init__()
        self.inside = nn.Sequential(nn.Linear(width, width), activation(), nn.Linear(width, width))
        self.after = activation()

    def forward(self, x: Tensor) -> Tensor:
        return x + self.after(self.inside(x))


class Membrane(pl.LightningModule):
    """-lap u = f in the unit square, u = sin(m pi x) sin(n pi y).

    ``hard``: u vanishes on the walls by a factor; otherwise by a term with weight ``w_walls``.
    """

    interior: Tensor
    border: Tensor

    def __init__(
        self,
        modes: tuple[int, int] = (1, 1),
        sampler: Callable[[int], Tensor] = sobol,
        n: int = 64,
        width: int = 24,
        activation: type[nn.Module] = nn.Tanh,
        hard: bool = True,
        w_walls: float = 20.0,
        lr: float = 4e-3,
        prepare: Callable[[nn.Module], Any] | None = None,
        net: Any = None,
    ) -> None:
        super().__init__()
        self.m, self.n = modes
        self.hard, self.w_walls, self.lr = hard, w_walls, lr
        self.net = nn.Sequential(
            nn.Linear(2, width),
            activation(),
            Residual(width, activation),
            nn.Linear(width, 1),
        )
        if prepare:
            self.net.apply(prepare)
        self.register_buffer("interior", sampler(n))
        self.register_buffer("border", walls(15))

    def raw(self, weights: dict[str, Tensor], x: Tensor) -> Tensor:
        """At one point."""
        u = functional_call(self.net, weights, (2 * x - 1,)).squeeze()
        return 16 * u * (x * (1 - x)).prod() if self.hard else u

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        weights: dict[str, Tensor] = dict(self.net.named_parameters())
        curvature = vmap(hessian(self.raw, argnums=1), in_dims=(None, 0))
        laplace = curvature(weights, self.interior).diagonal(dim1=1, dim2=2).sum(1)
        size = torch.pi**2 * (self.m**2 + self.n**2)
        pde = (laplace / size + self.exact(self.interior)).pow(2).mean()
        self.log("pde", pde)
        if self.hard:
            return pde
        wall = vmap(self.raw, in_dims=(None, 0))(weights, self.border).pow(2).mean()
        self.log("wall", wall)
        return pde + self.w_walls * wall

    def exact(self, x: Tensor) -> Tensor:
        return torch.sin(self.m * torch.pi * x[:, 0]) * torch.sin(self.n * torch.pi * x[:, 1])

    def configure_optimizers(self) -> Any:
        optimizer = torch.optim.Adam(self.net.parameters(), lr=self.lr)
        return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1000)]

    def loader(self, steps: int) -> Any:
        return ticks(steps)

    def error(self) -> float:
        x = torch.cartesian_prod(torch.linspace(0, 1, 30), torch.linspace(0, 1, 30))
        weights: dict[str, Tensor] = dict(self.net.named_parameters())
        return relative(vmap(self.raw, in_dims=(None, 0))(weights, x), self.exact(x))


class Distance(pl.LightningModule):
    """|grad u| = 1 and u = 0 on the unit circle: the distance from it, positive outside.

    ``outside``: also what u is at the corners of the square [-1.5, 1.5]^2.
    """

    def __init__(self, outside: bool = True, turned: float = 1.0, net: Any = None) -> None:
        super().__init__()
        self.outside = outside
        self.sdf = nn.Sequential(
            nn.Linear(2, 32), nn.Softplus(5.0), nn.Linear(32, 32), nn.Softplus(5.0)
        )
        last = nn.Linear(32, 1)
        nn.init.constant_(last.bias, -turned)
        self.sdf.append(last)

    def one(self, x: Tensor) -> Tensor:
        return self.sdf(x).squeeze(-1)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        x = 3 * torch.rand(200, 2) - 1.5
        angle = 2 * torch.pi * torch.rand(60)
        slope = vmap(jacrev(self.one))(x)
        eikonal = torch.mean((slope.pow(2).sum(1) - 1) ** 2)
        surface = torch.mean(self.one(torch.stack([angle.cos(), angle.sin()], 1)) ** 2)
        loss = eikonal + 5 * surface
        self.log("eikonal", eikonal)
        self.log("surface", surface)
        if self.outside:
            corners = 1.5 * torch.tensor([[1.0, 1.0], [1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]])
            sign = torch.mean((self.one(corners) - (1.5 * 2**0.5 - 1)) ** 2)
            self.log("sign", sign)
            loss = loss + sign
        return loss

    def configure_optimizers(self) -> Any:
        return torch.optim.Adam(self.parameters(), lr=3e-3)

    def loader(self, steps: int) -> Any:
        return ticks(steps)

    def error(self) -> float:
        s = torch.linspace(-1.5, 1.5, 40)
        x = torch.cartesian_prod(s, s)
        return relative(self.one(x), x.norm(dim=1) - 1)


def steep(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=12.0)


SOFT = {"hard": False, "steps": 600, "n": 64}

PLATES = [
    judged(
        "membrane-leaky",
        "DERIVATIVE_VANISHES",
        Membrane,
        SOFT,
        {"activation": nn.LeakyReLU},
    ),
    judged("membrane-whole", "REPEATED_POINTS", Membrane, SOFT, {"sampler": whole}),
    judged(
        "membrane-one",
        "REPEATED_POINTS",
        Membrane,
        {"steps": 500, "modes": (2, 1)},
        {"sampler": one_repeated},
    ),
    judged(
        "membrane-corner",
        "POINTS",
        Membrane,
        {"steps": 500, "modes": (2, 1), "sampler": latin},
        {"sampler": corner},
    ),
    judged("membrane-steep", "SATURATED", Membrane, SOFT, {"prepare": steep}),
    judged(
        "membrane-narrow", "TOO_NARROW", Membrane, {"steps": 500, "modes": (2, 2)}, {"width": 1}
    ),
    judged("membrane-large", "STEP_TOO_LARGE", Membrane, SOFT, {"lr": 0.5}),
    judged("membrane-clean", "CLEAN", Membrane, {"steps": 500, "sampler": latin, "width": 32}),
    judged(
        "distance-inside",
        "NOT_UNIQUE",
        Distance,
        {"steps": 1000, "turned": -1.0},
        {"outside": False},
    ),
    judged("distance-clean", "CLEAN", Distance, {"steps": 1000}),
]
