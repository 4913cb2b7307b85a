"""Where u holds by construction beyond the points: how far the domain reaches that an ansatz has.

``u = g(x) + D(x) net(x)`` moves by D where the bias of the last layer grows by 1. The next place
along a coordinate at which D is 0 is a wall.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from pinn_ntk.looks.copies import copied
from pinn_ntk.looks.networks import NetworkCall, beside, power, zero
from pinn_ntk.looks.rerun import Change
from pinn_ntk.verdict.calls import width
from pinn_ntk.verdict.points import Points
from pinn_ntk.verdict.quantity import quantity

LINES = 8
"""Points from which a line runs along each coordinate."""

REACH, SAMPLES = 10.0, 800
"""Length of a line beyond the points over the side of their box, and places on it."""

ZERO = 0.01
"""D over its mean at the points, below which it is 0."""

SAME = 1e-4
"""Difference over size, below which two values are one."""

EVEN = 0.5
"""Least coefficient of a derivative over its mean, from which it is nowhere taken away."""

GAP, SPACINGS = 0.3, 3.0
"""Distance of a wall from the points, over the side of their box and over their spacing."""


class Walls(Points):
    """Quantities of an ansatz."""

    @quantity("walls that an ansatz has", dict)
    def walled(self) -> dict[str, tuple[int, float, float]]:
        """Equation -> coordinate, where its points end, and where the wall behind them is."""
        found = {}
        for term in self.equations:
            call, x = self.calls_of.get(term), self.points.get(term)
            if call is None or x is None or call.leaf or call.chained or len(x) < 2:
                continue
            lifting = self._lifting(call)
            wall = None if lifting is None else next_wall(lifting, x.double())
            if wall is not None:
                found[term] = wall
        return found

    @quantity("whether anything holds u", bool)
    def loose(self) -> bool:
        """Whether there is nothing but equations along one coordinate, and no ansatz."""
        if not self.rms or not set(self.rms) <= set(self.equations):
            return False
        calls = [(self.calls_of.get(t), self.points.get(t)) for t in self.equations]
        free = all(c is not None and x is not None and self._is_loose(c, x) for c, x in calls)
        return free and all(map(self._is_even, self.equations))

    def _is_even(self, term: str) -> bool:
        """Whether the highest derivative counts alike at all points.

        An ansatz around the network takes it away at the walls, and so does a singular equation
        at one end, which needs no condition there.
        """
        field = beside(power(self.order[term]))
        r, base = (
            self.rerun(Change(output=output, double=True)).residuals[term].detach()
            for output in (field, beside(zero))
        )
        answer = (r - base).abs().flatten()
        return float(answer.min()) > EVEN * float(answer.mean())

    def _is_loose(self, call: NetworkCall, x: Tensor) -> bool:
        """Whether D is the same at all points, and u is not periodic."""
        lifting = None if call.leaf or x.shape[1] > 1 else self._lifting(call)
        if lifting is None or call.output.shape[:1] != x.shape[:1]:
            return False
        moved = lifting(x.double()).abs()
        ends = call.output.detach()[[int(x[:, 0].argmin()), int(x[:, 0].argmax())]].double()
        apart = float((ends[0] - ends[1]).abs().max())
        alike = float(moved.max() - moved.min()) <= SAME * float(moved.max())
        return alike and float(moved.max()) > 0 and apart > SAME * float(ends.abs().max())

    def _lifting(self, call: NetworkCall) -> Callable[[Tensor], Tensor] | None:
        """Points (N, d) -> D (N,), summed over the outputs."""
        if self.base is None or call.chained:
            return None
        biases = {n for n in self.last if self.base.params[n].ndim == 1}
        here, there = (copied(self.rerun.module).double().eval() for _ in range(2))
        with torch.no_grad():
            for name in biases:
                there.get_parameter(name).add_(1.0)
        widths = [width(x, call) for x in call.inputs if x.ndim]
        shapes = [x.shape[1:] for x in call.inputs if x.ndim]

        def lifted(x: Tensor) -> Tensor:
            columns = zip(x.split(widths, 1), shapes, strict=True)
            inputs = [part.reshape(len(x), *shape) for part, shape in columns]
            with torch.no_grad():
                moved: Tensor = there.get_submodule(call.name)(*inputs)
                moved = moved - here.get_submodule(call.name)(*inputs)
            return moved.reshape(len(x), -1).sum(1)

        return lifted if biases else None


def next_wall(lifted: Callable[[Tensor], Tensor], x: Tensor) -> tuple[int, float, float] | None:
    """Coordinate, end of the points x (N, d), and the wall behind it that is furthest, if any.

    >>> x = torch.rand(50, 2, generator=torch.Generator().manual_seed(0)).double() / 2
    >>> axis, end, wall = next_wall(lambda x: (x * (1 - x)).prod(1), x)
    >>> round(end, 1), round(wall, 2)
    (0.5, 1.0)
    """
    low, high = x.min(0).values, x.max(0).values
    inside = float(lifted(x).abs().mean())
    anchors = x[torch.linspace(0, len(x) - 1, min(LINES, len(x))).round().long()]
    spacing = len(x) ** (-1 / x.shape[1])
    furthest: tuple[float, tuple[int, float, float]] | None = None
    for axis in range(x.shape[1]):
        side = float(high[axis] - low[axis])
        for end, sign in ((float(low[axis]), -1.0), (float(high[axis]), 1.0)):
            gap = _first_zero(lifted, anchors, axis, end, sign * side, inside)
            if gap is None or not gap > max(GAP, SPACINGS * spacing):
                continue
            if furthest is None or gap > furthest[0]:
                furthest = gap, (axis, end, end + sign * gap * side)
    return None if furthest is None else furthest[1]


def _first_zero(
    lifted: Callable[[Tensor], Tensor],
    anchors: Tensor,
    axis: int,
    end: float,
    side: float,
    inside: float,
) -> float | None:
    """Distance over ``side`` at which D is 0 on all lines; None where it is not, or no box is."""
    if not side or not inside:
        return None
    along = torch.linspace(0, REACH, SAMPLES, dtype=torch.float64)
    lines = anchors.repeat_interleave(SAMPLES, 0)
    lines[:, axis] = end + side * along.to(lines.device).repeat(len(anchors))
    values = lifted(lines).reshape(len(anchors), SAMPLES).cpu() / inside
    crossed = (values[:, 1:].sign() != values[:, :-1].sign()) | (values[:, 1:].abs() < ZERO)
    places = crossed.all(0).nonzero().flatten()
    return float(along[places[0] + 1]) if len(places) else None
