"""Networks, gradient helpers, samplers and the frame of the problems."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import pytorch_lightning as pl
import torch
from scipy.stats import qmc
from torch import Tensor, nn
from torch.nn.utils.parametrizations import weight_norm
from torch.utils.data import DataLoader


def gradients(y: Tensor, x: Tensor, order: int = 1) -> Tensor:
    for _ in range(order):
        y = torch.autograd.grad(y, x, grad_outputs=torch.ones_like(y), create_graph=True)[0]
    return y


def fwd_gradients(y: Tensor, x: Tensor) -> Tensor:
    """The graph is kept for the next call."""
    return torch.autograd.grad(y, x, grad_outputs=torch.ones_like(y), retain_graph=True)[0]


def lhs(n: int, lb: Sequence[float], ub: Sequence[float], seed: int | None = None) -> Tensor:
    """Latin hypercube sample of a box."""
    seed = int(torch.randint(2**31, ())) if seed is None else seed
    sample = qmc.LatinHypercube(d=len(lb), seed=seed).random(n)
    return torch.tensor(qmc.scale(sample, lb, ub), dtype=torch.float32)


class Sine(nn.Module):
    def __init__(self, w0: float = 1.0) -> None:
        super().__init__()
        self.w0 = w0

    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(self.w0 * x)


class ReLU2(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(x) ** 2


ACT: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "sin": Sine,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
    "relu2": ReLU2,
    "relu": nn.ReLU,
}


class DNN(nn.Module):
    """Fully connected, inputs normalised by lb and ub inside forward."""

    def __init__(
        self,
        lb: Sequence[float],
        ub: Sequence[float],
        n_out: int = 1,
        *,
        width: int = 32,
        depth: int = 3,
        act: str = "tanh",
        normalize: bool = True,
        dropout: float = 0.0,
        wn: bool = False,
        std: float | None = None,
    ) -> None:
        super().__init__()
        self.register_buffer("lb", torch.tensor(lb, dtype=torch.float32))
        self.register_buffer("ub", torch.tensor(ub, dtype=torch.float32))
        self.normalize = normalize
        sizes = [len(lb)] + [width] * depth
        layers: list[nn.Module] = []
        for i in range(depth):
            layers += [self.linear(sizes[i], sizes[i + 1], wn, std), ACT[act]()]
            if dropout:
                layers.append(nn.Dropout(dropout))
        layers.append(nn.Linear(width, n_out))
        self.layers = nn.Sequential(*layers)

    @staticmethod
    def linear(a: int, b: int, wn: bool, std: float | None) -> nn.Module:
        layer = nn.Linear(a, b)
        if std is None:
            nn.init.xavier_normal_(layer.weight)
        else:
            nn.init.normal_(layer.weight, std=std)
        nn.init.zeros_(layer.bias)
        return weight_norm(layer) if wn else layer

    def forward(self, x: Tensor) -> Tensor:
        if self.normalize:
            x = 2.0 * (x - self.lb) / (self.ub - self.lb) - 1.0
        return self.layers(x)


class Siren(nn.Module):
    """Sine layers with the initialisation of Sitzmann et al."""

    def __init__(
        self, lb: Any, ub: Any, n_out: int = 1, *, width: int = 48, depth: int = 2, w0: float = 20.0
    ) -> None:
        super().__init__()
        self.register_buffer("lb", torch.tensor(lb, dtype=torch.float32))
        self.register_buffer("ub", torch.tensor(ub, dtype=torch.float32))
        first = nn.Linear(len(lb), width)
        nn.init.uniform_(first.weight, -1 / len(lb), 1 / len(lb))
        layers: list[nn.Module] = [first, Sine(w0)]
        for _ in range(depth - 1):
            hidden, bound = nn.Linear(width, width), math.sqrt(6 / width)
            nn.init.uniform_(hidden.weight, -bound, bound)
            layers += [hidden, Sine()]
        self.layers = nn.Sequential(*layers, nn.Linear(width, n_out))

    def forward(self, x: Tensor) -> Tensor:
        return self.layers(2.0 * (x - self.lb) / (self.ub - self.lb) - 1.0)


class ModifiedMLP(nn.Module):
    """Of Wang, Teng and Perdikaris: two encoders gate every layer."""

    def __init__(self, n_in: int, n_out: int = 1, width: int = 32, depth: int = 3) -> None:
        super().__init__()
        self.U, self.V = nn.Linear(n_in, width), nn.Linear(n_in, width)
        sizes = [n_in] + [width] * depth
        self.hidden = nn.ModuleList(nn.Linear(sizes[i], sizes[i + 1]) for i in range(depth))
        self.last = nn.Linear(width, n_out)

    def forward(self, x: Tensor) -> Tensor:
        U, V, H = torch.tanh(self.U(x)), torch.tanh(self.V(x)), x
        for layer in self.hidden:
            Z = torch.tanh(layer(H))
            H = (1 - Z) * U + Z * V
        return self.last(H)


def adam(lr: float, **options: Any) -> Callable[..., torch.optim.Optimizer]:
    return partial(torch.optim.Adam, lr=lr, **options)


def adamw(lr: float, **options: Any) -> Callable[..., torch.optim.Optimizer]:
    return partial(torch.optim.AdamW, lr=lr, **options)


def sgd(lr: float, **options: Any) -> Callable[..., torch.optim.Optimizer]:
    return partial(torch.optim.SGD, lr=lr, **options)


def lbfgs(**options: Any) -> Callable[..., torch.optim.Optimizer]:
    return partial(torch.optim.LBFGS, line_search_fn="strong_wolfe", **options)


class Problem(pl.LightningModule):
    """What every PINN here has: bounds, optimizer, test points, error."""

    lb: Sequence[float] = (0.0,)
    ub: Sequence[float] = (1.0,)
    n_out = 1

    def __init__(
        self,
        net: Mapping[str, Any] | None = None,
        optim: Callable[..., torch.optim.Optimizer] | None = None,
        schedule: Callable[[Any], Any] | None = None,
    ) -> None:
        super().__init__()
        self.net_options = dict(net or {})
        self.optim = optim or adam(3e-3)
        self.schedule = schedule
        self.loss_dict: dict[str, Tensor] = {}

    def loader(self, steps: int) -> DataLoader[Any]:
        return DataLoader(range(steps), batch_size=None)

    def configure_optimizers(self) -> Any:
        optimizer = self.optim(self.parameters())
        if self.schedule is None:
            return optimizer
        scheduler = {"scheduler": self.schedule(optimizer), "interval": "step"}
        return {"optimizer": optimizer, "lr_scheduler": scheduler}

    def test_points(self) -> Tensor:
        n = 300 if len(self.lb) == 1 else 40
        lines = [
            torch.linspace(a, b, n, dtype=torch.float64)
            for a, b in zip(self.lb, self.ub, strict=True)
        ]
        return torch.cartesian_prod(*lines).reshape(-1, len(self.lb))

    def truth(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def predict(self, x: Tensor) -> Tensor:
        return self.net(x)

    @torch.no_grad()
    def error(self) -> float:
        x = self.test_points()
        truth, training = self.truth(x), self.training
        u = self.eval().predict(x.float())
        self.train(training)
        error = float((u - truth).norm() / truth.norm())
        return error if math.isfinite(error) else math.inf


def mse(x: Tensor) -> Tensor:
    return torch.mean(x**2)
