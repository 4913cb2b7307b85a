"""Whether two conditions ask for different values at one place.

A condition without derivatives is r = s (u - g), from which r at u = 0 and at u = 1 give s and g,
whatever the network has learned. Of several outputs it asks for the one that it answers to.
"""

from __future__ import annotations

from itertools import combinations

import torch
from torch import Tensor

from pinn_ntk.looks.networks import constant, zero
from pinn_ntk.looks.rerun import Change
from pinn_ntk.verdict.points import Points
from pinn_ntk.verdict.quantity import nothing, quantity

MOST = 6
"""Outputs of a network up to which each is looked at."""

NEAR = 0.02
"""Distance over the size of the box up to which two points are one place."""


class Meeting(Points):
    """Quantities of conditions that meet."""

    @quantity("where conditions meet", nothing)
    def clash(self) -> tuple[str, str, float] | None:
        """Two conditions and the largest |g_a - g_b| at one place, over the largest |g|."""
        asked = self._asked()
        found: tuple[str, str, float] | None = None
        for a, b in combinations(asked, 2):
            if self._outputs[a] != self._outputs[b]:
                continue
            difference = _apart(self.points[a], asked[a], self.points[b], asked[b])
            if difference and (found is None or difference > found[2]):
                found = a, b, difference
        return found

    @property
    def _outputs(self) -> dict[str, tuple[object, ...]]:
        """Term -> the network behind it, and whether it answers to each output."""
        if "_outputs" not in self.__dict__:
            self.__dict__["_outputs"] = self._answering()
        return self.__dict__["_outputs"]  # type: ignore[no-any-return]

    def _answering(self) -> dict[str, tuple[object, ...]]:
        names = {term: call.name for term, call in self.calls_of.items()}
        widths = [c.output.shape[-1] for c in self.calls_of.values() if c.output.ndim > 1]
        at_0 = self.rerun(Change(output=zero)).residuals
        answers = [
            self.rerun(Change(output=constant(1.0, k))).residuals
            for k in range(min(max(widths, default=1), MOST))
        ]
        return {
            t: (names.get(t), *(bool((a[t] != r).any()) for a in answers)) for t, r in at_0.items()
        }

    def _asked(self) -> dict[str, Tensor]:
        """Term -> values g that it asks for at its points, (N,)."""
        conditions = [t for t, order in self.order.items() if not order and t in self.points]
        if len(conditions) < 2:
            return {}
        at_0, at_1 = (self.rerun(Change(output=u)).residuals for u in (zero, constant(1.0)))
        found = {}
        for term in conditions:
            if at_0[term].is_complex():
                continue
            low, high = (r[term].detach().double().flatten() for r in (at_0, at_1))
            slope = high - low
            if len(low) == len(self.points[term]) and bool((slope.abs() > 1e-6).all()):
                found[term] = -low / slope
        return found


def _apart(x: Tensor, g: Tensor, y: Tensor, h: Tensor) -> float:
    """Largest difference of two values asked for at one place, over the largest value."""
    if x.shape[1] != y.shape[1]:
        return 0.0
    both = torch.cat([x, y]).double()
    size = both.max(0).values - both.min(0).values
    size = torch.where(size > 0, size, 1.0)
    near = torch.cdist(x.double() / size, y.double() / size) < NEAR
    largest = float(torch.cat([g, h]).abs().max())
    if not bool(near.any()) or not largest:
        return 0.0
    return float((g[:, None] - h).abs()[near].max()) / largest
