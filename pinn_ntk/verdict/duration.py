"""How long an equation in time runs, and what its residual adds up to until the end.

| symbol | meaning |
| --- | --- |
| k, c | order of the highest derivative by time in an equation, and its coefficient |
| T | from the first to the last point in time |
| times | T |u_t| / |u|, how often u changes by its own size |
| sum | |r| / |c| T^k / (k! |u|), what a residual of one sign does to u until the end |

Between two walls it is a quarter of that, along the shortest side: order 2 gives L^2 / 8.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pinn_ntk.looks.networks import power
from pinn_ntk.looks.rerun import Change
from pinn_ntk.verdict.parts import derivative
from pinn_ntk.verdict.points import Points, near
from pinn_ntk.verdict.quantity import quantity
from pinn_ntk.verdict.terms import rms


class Duration(Points):
    """Quantities of equations in time that start from a condition."""

    @quantity("equations in time", dict)
    def duration(self) -> dict[str, dict[str, float]]:
        """Equation -> ``sum``; ``times`` and ``order`` too, where conditions are at the start."""
        found = {}
        for term in self.equations:
            if term not in self.rms or term not in self.points:
                continue
            axis = self.time(term)
            of_term = self._of(term, self._shortest(term) if axis is None else axis)
            if of_term is not None:
                found[term] = of_term if axis is not None else {"sum": of_term["sum"] / 4}
        return found

    @quantity("conditions at the start", list)
    def without_rate(self) -> list[str]:
        """Equations of second order in time to whose start values are given and no rate."""
        orders = {term: of_term.get("order", 0) for term, of_term in self.duration.items()}
        return [term for term, order in orders.items() if order > 1 and self._values_alone(term)]

    def _values_alone(self, equation: str) -> bool:
        """Whether all conditions are values, at the start or at walls."""
        axis, others = self.time(equation), self._conditions()
        if axis is None or not all(t in self.spots for t in others):
            return False
        places = self.places(equation, others)
        start = {t for t, place in places.items() if near(place[:, axis], 0.0).all()}
        walls = [place for t, place in places.items() if t not in start]
        values = all(not self.order.get(t) for t in start)
        return bool(start) and values and all(_at_wall(place, axis) for place in walls)

    def _shortest(self, term: str) -> int:
        """Column of the points along which their box is shortest."""
        x = self.points[term]
        return int((x.max(0).values - x.min(0).values).argmin())

    def _of(self, term: str, axis: int) -> dict[str, float] | None:
        call, points = self.calls_of[term], self.points[term][:, axis]
        size = rms(call.output)
        rate = derivative(call, 1, axis)
        for k in range(self.order[term], 0, -1):
            answer = self.rerun(Change(output=power(k, axis))).residuals[term]
            at_zero = self.rerun(Change(output=power(self.order[term] + 1, axis))).residuals[term]
            c = rms(answer.detach() - at_zero.detach()) / math.factorial(k)
            if c > 0 and size and rate is not None:
                span = float(points.max() - points.min())
                added = self.rms[term] / c * span**k / (math.factorial(k) * size)
                return {"times": span * rms(rate) / size, "sum": added, "order": k}
        return None


def _at_wall(place: Tensor, time: int) -> bool:
    """Whether each of some points lies at an end of a coordinate that is not the time."""
    across = [column for k, column in enumerate(place.T) if k != time]
    ends = [near(column, 0.0) | near(column, 1.0) for column in across]
    return bool(ends) and bool(torch.stack(ends).any(0).all())
