"""Whether the derivatives that autograd gives are those of the network.

Between two points, a derivative of order k - 1 changes by the integral of that of order k. Where
the network has kinks it does not: autograd sees the slopes beside them and misses the jumps, so
that an equation can hold at every point for a function that is no solution of it.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch
from torch import Tensor, nn

from pinn_ntk.looks.copies import copied
from pinn_ntk.looks.networks import NetworkCall
from pinn_ntk.verdict.quantity import quantity
from pinn_ntk.verdict.reruns import Reruns

STARTS = 32
"""Places at which a way begins."""

WAY = 0.05
"""Length of a way over the size of the box of the points."""

NODES = 16
"""Nodes of the Gauss-Legendre quadrature on a panel."""

PANELS = (16, 64)
"""Panels of a way where one does not do: steep is not yet kinked."""

ALIKE = 0.1
"""Difference of what both miss, over the larger, from which neither does."""

ENOUGH = 0.1
"""Share that is missed where one panel does."""


class Smoothness(Reruns):
    """Quantities of the derivatives."""

    @quantity("kinks of the network", dict)
    def kinks(self) -> dict[str, float]:
        """Term with derivatives of order 2 or more -> share of their integral that is missed."""
        if self.base is None:
            return {}
        whole = [call for call in self.base.calls if not call.chained]
        alone = [call for call in whole if len(call.inputs) == 1 and call.inputs[0].ndim]
        calls = {call.name: call for call in sorted(alone, key=lambda call: len(call.inputs[0]))}
        orders = {t: k for t, k in self.order.items() if k >= 2}
        found: dict[str, float] = {}
        for k in set(orders.values()):
            missed = [self._missed(call, k) for call in calls.values()]
            found |= {t: max(missed, default=0.0) for t, own in orders.items() if own == k}
        return found

    def _missed(self, call: NetworkCall, order: int) -> float:
        module: nn.Module = copied(self.rerun.module).double().eval()  # no dropout
        network = module.get_submodule(call.name)
        share = missed(network, call.inputs[0], order)
        if share < ENOUGH:
            return share
        few, many = (missed(network, call.inputs[0], order, panels) for panels in PANELS)
        return many if abs(few - many) < ALIKE * max(few, many) else 0.0


def missed(
    network: Callable[[Tensor], Tensor], points: Tensor, order: int, panels: int = 1
) -> float:
    """Share of the change of the derivative of order - 1 that the next one does not account for.

    >>> relu = nn.Sequential(nn.Linear(1, 8), nn.ReLU(), nn.Linear(8, 1)).double()
    >>> round(missed(relu, torch.linspace(-5, 5, 50)[:, None], 2), 6)
    1.0
    """
    x = points.detach().double().reshape(len(points), -1)
    if len(x) < 2:
        return 0.0
    x = x[torch.linspace(0, len(x) - 1, min(STARTS, len(x))).round().long()]
    generator = torch.Generator().manual_seed(0)
    way = torch.randn(x.shape, generator=generator, dtype=torch.float64).to(x.device)
    way = WAY * (x.max(0).values - x.min(0).values) * way / way.norm(dim=1, keepdim=True)
    at, weights = _quadrature(panels)
    s = at.to(x.device).repeat(len(x), 1).flatten().requires_grad_()
    along = x.repeat_interleave(len(at), 0) + s[:, None] * way.repeat_interleave(len(at), 0)
    values = network(along).reshape(len(s), -1).sum(1)
    lower, upper = (_derivative(values, s, k).reshape(len(x), -1) for k in (order - 1, order))
    change = lower[:, -1] - lower[:, 0]
    integral = (upper[:, 1:-1] * weights.to(x.device)).sum(1)
    size = float(change.norm())
    return float((change - integral).norm()) / size if size > 0 else 0.0


def _quadrature(panels: int) -> tuple[Tensor, Tensor]:
    """Places on [0, 1], both ends first and last, and weights of those between."""
    nodes, weights = (torch.tensor(part) / 2 for part in np.polynomial.legendre.leggauss(NODES))
    starts = torch.arange(panels, dtype=torch.float64)[:, None]
    inner = ((starts + nodes + 0.5) / panels).flatten()
    ends = torch.tensor([0.0, 1.0], dtype=torch.float64)
    return torch.cat([ends[:1], inner, ends[1:]]), (weights / panels).repeat(panels)


def _derivative(values: Tensor, s: Tensor, order: int) -> Tensor:
    for _ in range(order):
        if values.grad_fn is None:
            return torch.zeros_like(s)
        values = torch.autograd.grad(
            values.sum(), s, create_graph=True, allow_unused=True, materialize_grads=True
        )[0]
    return values.detach()
