"""Whether the derivatives that autograd gives are those of the network.

Between two points, a derivative of order k - 1 changes by the integral of that of order k. Where the
network has kinks it does not: autograd sees the slopes beside them and misses the jumps, so that an
equation can hold at every point for a function that is no solution of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from pinn_ntk.looks.copies import copied
from pinn_ntk.looks.networks import NetworkCall
from pinn_ntk.looks.rerun import Ran, Rerun
from pinn_ntk.verdict.quantity import Measured, quantity

STARTS = 32
"""Places at which a way begins."""

WAY = 0.05
"""Length of a way over the size of the box of the points."""

NODES = 16
"""Nodes of the Gauss-Legendre quadrature on a way."""


class Smoothness(Measured):
    """Quantities of the derivatives."""

    base: Ran | None
    rerun: Rerun
    order: dict[str, int]

    @quantity("kinks of the network", dict)
    def kinks(self) -> dict[str, float]:
        """Term with derivatives of order 2 or more -> share of their integral that is missed."""
        if self.base is None:
            return {}
        alone = [call for call in self.base.calls if len(call.inputs) == 1 and call.inputs[0].ndim]
        calls = {call.name: call for call in sorted(alone, key=lambda call: len(call.inputs[0]))}
        orders = {t: k for t, k in self.order.items() if k >= 2}
        found: dict[str, float] = {}
        for k in set(orders.values()):
            missed = [_missed(self._network(call), call.inputs[0], k) for call in calls.values()]
            found |= {t: max(missed, default=0.0) for t, own in orders.items() if own == k}
        return found

    def _network(self, call: NetworkCall) -> Callable[[Tensor], Tensor]:
        module: nn.Module = copied(self.rerun.module).double()
        return module.get_submodule(call.name)


def _missed(network: Callable[[Tensor], Tensor], points: Tensor, order: int) -> float:
    """Share of the change of the derivative of order - 1 that the next one does not account for."""
    x = points.detach().double().reshape(len(points), -1)
    if len(x) < 2:
        return 0.0
    x = x[torch.linspace(0, len(x) - 1, min(STARTS, len(x))).round().long()]
    generator = torch.Generator().manual_seed(0)
    way = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device)
    way = WAY * (x.max(0).values - x.min(0).values) * way / way.norm(dim=1, keepdim=True)
    nodes, weights = np.polynomial.legendre.leggauss(NODES)
    at = torch.tensor([-1.0, *nodes, 1.0], device=x.device).add(1).div(2).double()
    s = at.repeat(len(x), 1).flatten().requires_grad_()
    along = x.repeat_interleave(len(at), 0) + s[:, None] * way.repeat_interleave(len(at), 0)
    values = network(along).reshape(len(s), -1).sum(1)
    lower, upper = (_derivative(values, s, k).reshape(len(x), -1) for k in (order - 1, order))
    change = lower[:, -1] - lower[:, 0]
    integral = (upper[:, 1:-1] * torch.tensor(weights, device=x.device) / 2).sum(1)
    size = float(change.norm())
    return float((change - integral).norm()) / size if size > 0 else 0.0


def _derivative(values: Tensor, s: Tensor, order: int) -> Tensor:
    for _ in range(order):
        if values.grad_fn is None:
            return torch.zeros_like(s)
        values = torch.autograd.grad(
            values.sum(), s, create_graph=True, allow_unused=True, materialize_grads=True
        )[0]
    return values.detach()
