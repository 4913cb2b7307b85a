"""Small helpers that the problems of the group share."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from tests.broken.pinn import Pinn, d

G = 9.81


def weighed(module: Pinn, losses: Mapping[str, Tensor]) -> Tensor:
    """Sum of a dict of losses with the weights of the module; those left out do not count."""
    kept = {name: loss for name, loss in losses.items() if name not in module.without}
    module.log_dict(kept)
    return torch.stack([module.weights.get(k, 1.0) * v for k, v in kept.items()]).sum()


def msq(x: Tensor) -> Tensor:
    return x.square().mean()


def rms2(x: Tensor) -> Tensor:
    """Squared norm over the number of values."""
    return torch.linalg.vector_norm(x) ** 2 / x.numel()


def columns(u: Tensor) -> list[Tensor]:
    return list(u.split(1, dim=1))


def part(u: Tensor, x: Tensor, i: int) -> Tensor:
    """du / dx_i as a column."""
    return d(u, x)[:, i : i + 1]


def cells(n: int, *box: tuple[float, float]) -> Any:
    """Centres of n cells along each side."""

    def draw() -> Tensor:
        lines = [a + (b - a) * (torch.arange(n) + 0.5) / n for a, b in box]
        return torch.cartesian_prod(*lines).reshape(-1, len(box))

    return draw


def line(low: float, high: float, n: int) -> Tensor:
    """n values in a column."""
    return torch.linspace(low, high, n)[:, None]


def beside(*values: Tensor | float) -> Tensor:
    """Columns side by side; numbers are repeated."""
    n = max(len(v) for v in values if isinstance(v, Tensor))
    return torch.cat([v if isinstance(v, Tensor) else torch.full((n, 1), v) for v in values], 1)
