"""How large a solution the terms ask for, whatever the network gives.

| symbol | meaning |
| --- | --- |
| F | root mean square of the residual at u = 0 |
| k | wave number of F along a coordinate: rms of |F_i - F_j| / |x_i - x_j| over F, j nearest to i |
| c_m | what the residual answers to a field whose derivatives of order m are 1 |

A wave of that number solves sum_m c_m k^m u = F. Between walls at a distance L a source of one sign
acts as a wave of half that length, so k is pi / L at least.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pinn_ntk.looks.networks import Output, beside, constant, power, zero
from pinn_ntk.looks.rerun import Change
from pinn_ntk.verdict.points import Points
from pinn_ntk.verdict.quantity import nothing, quantity
from pinn_ntk.verdict.terms import rms

NEAR = 1e-9
"""Distance over the size of the box below which two points are one."""


class Demand(Points):
    """Quantities of what the terms ask of u."""

    @quantity("the size of u that the terms ask for", dict, lasts=bool)
    def demand(self) -> dict[str, float]:
        """Term that u = 0 does not solve -> rms of u that would."""
        at_zero = self._under(zero)
        highest = max(self.order.values(), default=0)
        fields = [constant(1.0), *(power(m) for m in range(1, highest + 1))]
        answers = [self._under(u) for u in fields]
        found = {}
        for term, r in at_zero.items():
            k, axes = self._wave(term, r.detach())
            symbol = sum(
                rms(answer[term].detach() - r.detach()) / _factor(m, axes) * k**m
                for m, answer in enumerate(answers)
            )
            if rms(r) > 0 and symbol > 0:
                found[term] = rms(r) / symbol
        return found

    def _under(self, field: Output) -> Mapping[str, Tensor]:
        """Residuals where u is a field, beside what holds by construction."""
        last = self.last
        if not last:
            return self.rerun(Change(output=field, double=True)).residuals
        lifted = Change(
            parameters=lambda n, p: p * (n not in last),
            output=beside(field),
            double=True,
        )
        return self.rerun(lifted).residuals

    @quantity("the size that u has by itself", nothing, lasts=bool)
    def unit(self) -> float | None:
        """Change of u, rms, where the bias of the last layer changes by 1; the largest of all."""
        base = self.base
        if base is None:
            return None
        biases = {n for n in self.last if base.params[n].ndim == 1}
        here = self.wide
        there = self.rerun(Change(parameters=lambda n, p: p + (n in biases), double=True))
        pairs = zip(here.calls, there.calls, strict=True)
        moved = [rms(b.output.detach() - a.output.detach()) for a, b in pairs]
        return max(moved, default=0.0) or None

    def _wave(self, term: str, r: Tensor) -> tuple[float, int]:
        """k of a residual, and the number of coordinates of its points."""
        x = self.points.get(term)
        if x is None:
            return 1.0, 1
        size = x.max(0).values - x.min(0).values
        sides = size[size > 0]
        least = math.pi / float(sides.min()) if len(sides) else 0.0
        return max(least, wave_number(x, r)), x.shape[1]


def _factor(m: int, axes: int) -> float:
    """What `power` gives the derivatives of order m, over those of a wave."""
    return math.factorial(m) * (1 + 0.15 * (axes - 1) if m else 1.0)


def wave_number(x: Tensor, r: Tensor) -> float:
    """Root mean square slope of r (N,) between nearest points x (N, d), over that of r.

    >>> x = torch.linspace(0, 1, 200)[:, None]
    >>> round(wave_number(x, torch.sin(40 * x)))
    40
    """
    if r.is_complex() or len(x) < 3 or r.numel() % len(x):
        return 0.0
    x, r = x.double(), r.double().reshape(len(x), -1)
    distance = torch.cdist(x, x)
    distance[distance <= NEAR * float(distance.max())] = torch.inf
    nearest = distance.min(1)
    slopes = (r - r[nearest.indices]) / nearest.values[:, None]
    return rms(slopes) / rms(r) if rms(r) else 0.0
