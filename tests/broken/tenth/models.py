"""Networks, optimizers and samplers of the studies."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.data import IterableDataset

Limits = Sequence[tuple[float, float]]
Sampler = Callable[[], Tensor]


class Sine(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return torch.sin(x)


ACTS: dict[str, Callable[[], nn.Module]] = {
    "tanh": nn.Tanh,
    "silu": nn.SiLU,
    "gelu": nn.GELU,
    "sine": Sine,
    "softplus": nn.Softplus,
    "sigmoid": nn.Sigmoid,
    "relu": nn.ReLU,
    "leaky": nn.LeakyReLU,
}


class Normalise(nn.Module):
    """Min-max scaling of the inputs to [-1, 1]."""

    def __init__(self, limits: Limits) -> None:
        super().__init__()
        low, high = torch.tensor(limits, dtype=torch.float64).T
        self.register_buffer("low", low.to(torch.get_default_dtype()))
        self.register_buffer("span", (high - low).to(torch.get_default_dtype()))

    def forward(self, x: Tensor) -> Tensor:
        return 2 * (x - self.low) / self.span - 1


class Embedding(nn.Module):
    """Fourier features, Gaussian with deviation sigma."""

    def __init__(self, n_in: int, number: int, sigma: float) -> None:
        super().__init__()
        self.register_buffer("b", sigma * torch.randn(n_in, number))

    def forward(self, x: Tensor) -> Tensor:
        return torch.cat([(x @ self.b).sin(), (x @ self.b).cos()], dim=-1)


class Block(nn.Module):
    """x + drop(W act(V x))."""

    def __init__(self, hidden: int, act: str, drop: float) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(hidden, hidden), nn.Linear(hidden, hidden)
        self.act, self.drop = ACTS[act](), nn.Dropout(drop)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.drop(self.second(self.act(self.first(x))))


class Field(nn.Module):
    """An MLP or a residual net from coordinates to fields."""

    def __init__(
        self,
        n_in: int,
        n_out: int,
        limits: Limits | None = None,
        hidden: int = 32,
        layers: int = 2,
        act: str = "tanh",
        residual: bool = False,
        sigma: float = 0.0,
        features: int = 32,
        drop: float = 0.0,
        positive: bool = False,
        init: Callable[[nn.Module], None] | None = None,
    ) -> None:
        super().__init__()
        parts: list[nn.Module] = [Normalise(limits)] if limits else []
        if sigma:
            parts.append(Embedding(n_in, features, sigma))
            n_in = 2 * features
        parts += [nn.Linear(n_in, hidden), ACTS[act]()]
        for _ in range(layers - 1):
            if residual:
                parts.append(Block(hidden, act, drop))
            else:
                parts += [nn.Linear(hidden, hidden), ACTS[act]()]
                if drop:
                    parts.append(nn.Dropout(drop))
        parts.append(nn.Linear(hidden, n_out))
        if positive:
            parts.append(nn.Softplus())
        self.body = nn.Sequential(*parts)
        if init:
            self.body.apply(init)

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


class Stream(IterableDataset[Tensor]):
    """New collocation points for every step."""

    def __init__(self, sampler: Sampler) -> None:
        self.sampler = sampler

    def __iter__(self) -> Iterator[Tensor]:
        while True:
            yield self.sampler()


def box_sampler(limits: Limits, n: int) -> Sampler:
    low, high = torch.tensor(limits).T
    return lambda: low + (high - low) * torch.rand(n, len(limits))


def seeded_sampler(limits: Limits, n: int, seed: int = 42) -> Sampler:
    """As box_sampler, reproducible."""
    low, high = torch.tensor(limits).T

    def sample() -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        return low + (high - low) * torch.rand(n, len(limits), generator=generator)

    return sample


def adamw(lr: float = 2e-3, weight_decay: float = 1e-4, **options: Any) -> Callable[..., Any]:
    return partial(torch.optim.AdamW, lr=lr, weight_decay=weight_decay, **options)


def momentum(lr: float, factor: float = 0.9) -> Callable[..., Any]:
    return partial(torch.optim.SGD, lr=lr, momentum=factor)


def quasi_newton(**options: Any) -> Callable[..., Any]:
    return partial(torch.optim.LBFGS, line_search_fn="strong_wolfe", **options)


def cosine(steps: int) -> Callable[..., Any]:
    return partial(torch.optim.lr_scheduler.CosineAnnealingLR, T_max=steps)
