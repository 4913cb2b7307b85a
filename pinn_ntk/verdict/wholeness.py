"""Whether the graph of a residual gives its derivative, or a part of it is cut off.

| symbol | meaning |
| --- | --- |
| J d | derivative of r along a direction d in parameter space, as the graph has it |
| dr/dd | the same by central differences in float64 |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from pinn_ntk.looks.rerun import Change
from pinn_ntk.verdict.quantity import quantity
from pinn_ntk.verdict.reruns import Reruns

LENGTHS = (1e-4, 1e-5)
"""Lengths of the direction d over that of the parameters, for central differences in float64; the
second where the first do not agree with the graph, which steep networks take a shorter one for."""

EXACT = 1e-4
"""|J d - dr/dd| / |dr/dd| of a derivative that is whole, and stays so."""


class Wholeness(Reruns):
    """Quantities of the derivatives by the parameters."""

    @quantity(
        "the derivative along a direction", dict, lasts=lambda found: max(found.values()) < EXACT
    )
    def cut(self) -> dict[str, float]:
        """Term -> |J d - dr/dd| / |dr/dd|, J d of the graph and dr/dd of differences in float64."""
        direction = {n: _direction(n, p) for n, p in self.wide.params.items() if p.requires_grad}
        found = self._cut(direction, LENGTHS[0])
        if max(found.values(), default=0.0) < EXACT:
            return found
        again, ratio = self._cut(direction, LENGTHS[1]), (LENGTHS[0] / LENGTHS[1]) ** 2
        return {t: _left(x, again.get(t, x), ratio) for t, x in found.items()}

    def _cut(self, direction: Mapping[str, Tensor], relative: float) -> dict[str, float]:
        """The same by one step of central differences."""
        here, length = self.wide, relative * _norm(self.wide.params)
        forward, backward = (
            self.rerun(Change(double=True, parameters=_along(sign * length, direction)))
            for sign in (1, -1)
        )
        found = {}
        for term, r in here.residuals.items():
            after, before = forward.residuals[term], backward.residuals[term]
            slope = (after - before).detach() / (2 * length)
            if r.requires_grad and float(slope.norm()) > 0:
                found[term] = float((_derivative(r, here.params, direction) - slope).norm())
                found[term] /= float(slope.norm())
        return found


def _left(first: float, second: float, ratio: float) -> float:
    """What differences of two lengths leave, without the part that falls by the ratio between them.

    That is the error of central differences themselves, of second order.
    """
    falls = max(0.0, first - second) / (ratio - 1)
    return max(0.0, second - falls)


def _norm(params: Mapping[str, Tensor]) -> float:
    return float(torch.stack([p.detach().double().norm() for p in params.values()]).norm())


def _direction(name: str, parameter: Tensor) -> Tensor:
    """A random direction; of each parameter its own, whatever the others are."""
    seed = sum((place + 1) * ord(letter) for place, letter in enumerate(name))
    generator = torch.Generator().manual_seed(seed)
    drawn = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
    return drawn.div(math.sqrt(max(1, parameter.numel()))).to(parameter.device)


def _along(length: float, direction: Mapping[str, Tensor]) -> Any:
    def put(name: str, parameter: Tensor) -> Tensor:
        if name not in direction:  # frozen
            return parameter
        return parameter + length * direction[name].to(parameter)

    return put


def _derivative(r: Tensor, params: Mapping[str, Tensor], direction: Mapping[str, Tensor]) -> Tensor:
    """J d by two backward passes."""
    weights = torch.zeros_like(r, requires_grad=True)
    wanted = [(n, p) for n, p in params.items() if p.requires_grad]
    leaves = [p for _, p in wanted]
    gradients = torch.autograd.grad(
        r, leaves, weights, create_graph=True, retain_graph=True, allow_unused=True
    )
    pairs = [
        (g, direction[n]) for (n, _), g in zip(wanted, gradients, strict=True) if g is not None
    ]
    if not pairs:
        return torch.zeros_like(r)
    along = torch.stack([(g * d).sum() for g, d in pairs]).sum()
    (found,) = torch.autograd.grad(along, weights, retain_graph=True)
    return found
