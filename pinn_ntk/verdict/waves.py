"""How fine a solution an equation asks for by itself: layers and oscillations across its domain.

| symbol | meaning |
| --- | --- |
| c_0 | what r answers to a constant added to u, over that |
| c_k | what r answers to a field whose only derivative, of order k by x_j, is 1; k the highest |
| phase | (c_0 / c_k)^(1 / k) L_j, L_j the length of the box along x_j |

c_k u^(k) + c_0 u = 0 turns by the phase, in radians, from one end to the other, or falls off by as
many powers of e.
"""

from __future__ import annotations

import math

from torch import Tensor

from pinn_ntk.looks.networks import Output, beside, constant, power
from pinn_ntk.looks.rerun import Change, Ran
from pinn_ntk.verdict.points import Points
from pinn_ntk.verdict.quantity import quantity
from pinn_ntk.verdict.terms import rms

SMALL = 1e-3
"""A constant that is added, over the size of u."""

MOST = 4
"""Coordinates that are looked at."""

LEAST = 1e-9
"""What r answers to a derivative, over that to others, below which it holds none."""


class Waves(Points):
    """Quantities of the coefficients of an equation."""

    @quantity("the coefficients of the equations", dict)
    def phase(self) -> dict[str, list[float]]:
        """Equation -> phase along each coordinate; 0 where it has no derivative by that."""
        equations = [t for t in self.equations if t in self.points and t in self.rms]
        if not equations:
            return {}
        step = SMALL * (self.size or 1.0)
        base = self.wide
        shifted = self._beside(constant(step))
        return {t: self._along_axes(t, base, _answer(t, shifted, base) / step) for t in equations}

    def _beside(self, field: Output) -> Ran:
        """The step with a field added to u."""
        return self.rerun(Change(double=True, output=beside(field)))

    def _along_axes(self, term: str, base: Ran, constant_part: float) -> list[float]:
        x = self.points[term]
        sides = (x.max(0).values - x.min(0).values).tolist()[:MOST]
        return [side * self._number(term, base, k, constant_part) for k, side in enumerate(sides)]

    def _number(self, term: str, base: Ran, axis: int, constant_part: float) -> float:
        """(c_0 / c_k)^(1 / k) along a coordinate."""
        for k in range(self.order[term], 0, -1):
            answer = _answer(term, self._beside(power(k, axis)), base) / math.factorial(k)
            if answer > LEAST * constant_part:
                return float((constant_part / answer) ** (1 / k))
        return 0.0


def _answer(term: str, ran: Ran, base: Ran) -> float:
    changed: Tensor = ran.residuals[term].detach() - base.residuals[term].detach()
    return rms(changed)
