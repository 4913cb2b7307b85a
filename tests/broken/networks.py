"""Networks, points and optimizers, as arguments of the problems."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

Box = Sequence[tuple[float, float]]
Points = Callable[[], Tensor]


class Function(nn.Module):
    def __init__(self, function: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class Scale(nn.Module):
    """Brings a box to [-1, 1]."""

    def __init__(self, box: Box) -> None:
        super().__init__()
        low, high = torch.tensor(box, dtype=torch.float64).T
        self.register_buffer("centre", ((low + high) / 2).float())
        self.register_buffer("radius", ((high - low) / 2).float())

    def forward(self, x: Tensor) -> Tensor:
        return (x - self.centre) / self.radius


class Features(nn.Module):
    """Random Fourier features (Tancik et al. 2020) with frequencies of the given deviation."""

    def __init__(self, n_in: int, deviation: float, number: int = 32) -> None:
        super().__init__()
        self.register_buffer("frequencies", deviation * torch.randn(n_in, number))

    def forward(self, x: Tensor) -> Tensor:
        phase = x @ self.frequencies
        return torch.cat([torch.sin(phase), torch.cos(phase)], dim=-1)


class Noise(nn.Module):
    """Noise on the inputs while training."""

    def __init__(self, deviation: float) -> None:
        super().__init__()
        self.deviation = deviation

    def forward(self, x: Tensor) -> Tensor:
        return x + self.deviation * torch.randn_like(x) if self.training else x


ACTIVATIONS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "sin": partial(Function, torch.sin),
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "hardtanh": nn.Hardtanh,
    "steep": partial(Function, lambda x: torch.tanh(40 * x)),
    "square_of_relu": partial(Function, lambda x: torch.relu(x) ** 2),
}


def mlp(
    n_in: int,
    n_out: int = 1,
    *,
    width: int = 32,
    depth: int = 2,
    activation: str = "tanh",
    box: Box | None = None,
    features: float = 0.0,
    dropout: float = 0.0,
    noise: float = 0.0,
    init: Callable[[nn.Module], Any] | None = None,
    out: Callable[[Tensor], Tensor] | None = None,
) -> nn.Sequential:
    """Fully connected; ``box`` is scaled to [-1, 1] before, ``out`` is applied to the outputs."""
    first = [Scale(box)] if box else []
    first += [Noise(noise)] if noise else []
    first += [Features(n_in, features)] if features else []
    sizes = [64 if features else n_in, *[width] * depth, n_out]
    layers: list[nn.Module] = []
    for a, b in pairwise(sizes):
        layers += [nn.Linear(a, b), ACTIVATIONS[activation]()]
        layers += [nn.Dropout(dropout)] if dropout else []
    layers = layers[: -2 if dropout else -1]
    net = nn.Sequential(*first, *layers, *([Function(out)] if out else []))
    return net.apply(init) if init else net


def xavier(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.xavier_normal_(layer.weight)
        nn.init.zeros_(layer.bias)


def grid(low: float, high: float, n: int) -> Points:
    """Equally spaced points of a line."""
    return lambda: torch.linspace(low, high, n).unsqueeze(1)


def uniform(n: int, *box: tuple[float, float]) -> Points:
    """Random points of a box."""
    low, high = torch.tensor(box).T
    return lambda: low + (high - low) * torch.rand(n, len(box))


def adam(lr: float, **options: Any) -> Callable[..., torch.optim.Optimizer]:
    return partial(torch.optim.Adam, lr=lr, **options)


def sgd(lr: float, **options: Any) -> Callable[..., torch.optim.Optimizer]:
    return partial(torch.optim.SGD, lr=lr, **options)


def lbfgs(lr: float = 1.0, **options: Any) -> Callable[..., torch.optim.Optimizer]:
    options = {"line_search_fn": "strong_wolfe"} | options
    return partial(torch.optim.LBFGS, lr=lr, **options)
