"""Cases of a residual function, a model and points, as rules are given them."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn

from pinn_ntk import look
from pinn_ntk.looks.rerun import Rerun
from pinn_ntk.verdict.case import Case

Residuals = Callable[[nn.Module, Any], Mapping[str, Tensor]]


def network(inputs: int = 1, activation: type[nn.Module] = nn.Tanh, width: int = 16) -> nn.Module:
    torch.manual_seed(0)
    layers = [nn.Linear(inputs, width), activation(), nn.Linear(width, width), activation()]
    return nn.Sequential(*layers, nn.Linear(width, 1)).double()


def d(u: Tensor, x: Tensor) -> Tensor:
    return torch.autograd.grad(u.sum(), x, create_graph=True)[0]


def grid(n: int = 20, dim: int = 1) -> Tensor:
    generator = torch.Generator().manual_seed(1)
    if dim == 1:
        return torch.linspace(0, 1, n, dtype=torch.float64)[:, None]
    return torch.rand(n, dim, generator=generator, dtype=torch.float64)


def case_of(residuals: Residuals, model: nn.Module, points: Any, **options: Any) -> Case:
    found = residuals(model, points)
    loss = torch.stack([r.square().mean() for r in found.values()]).sum()
    seen = look(loss, model, residuals=found, **options)
    return Case(replace(seen, rerun=Rerun(model, points, residuals)))


def rms(x: Tensor) -> float:
    return float(x.detach().square().mean().sqrt())
