"""How large the parts of a homogeneous term are, which u = 0 solves and which so has no baseline.

| symbol | meaning |
| --- | --- |
| c_kj | what r answers to u = (x_j - x_0j)^k / k!: coefficient of the k-th derivative by x_j |
| D_kj | k-th derivative of the network by x_j |
| U | size of u: of what the networks give, or of what values are asked for, if that is more |
| part | root mean square of c_kj D_kj, or c_kj U / L_j^k; without derivatives, of r at u = U |

The largest part is what the residual would be if the others did not balance it; L_j is the length
of the box, so that a u that is constant by mistake is held against one that would vary over it.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from pinn_ntk.looks.networks import NetworkCall, constant, power
from pinn_ntk.looks.rerun import Change
from pinn_ntk.verdict.calls import columns, width
from pinn_ntk.verdict.demand import Demand
from pinn_ntk.verdict.quantity import quantity
from pinn_ntk.verdict.terms import rms

MOST = 4
"""Coordinates of the points, and outputs, up to which each is looked at."""


class Parts(Demand):
    """Quantities of what homogeneous terms are made of."""

    @quantity("parts of homogeneous terms", dict)
    def parts(self) -> dict[str, float]:
        """Homogeneous term -> largest of its parts."""
        wanted = self.homogeneous
        found: dict[str, float] = {}
        conditions = [term for term in wanted if not self.order.get(term)]
        if conditions and self._to_be:
            ran = self.rerun(Change(output=constant(self._to_be)))
            found = {term: rms(ran.residuals[term]) for term in conditions}
        calls = {t: self._typical(t) for t in wanted if self.order.get(t) and self.calls_of}
        highest = max((self.order[term] for term in calls), default=0)
        for k in range(1, highest + 1):
            for axis in range(min(max(map(_axes, calls.values())), MOST)):
                ran = self.rerun(Change(output=power(k, axis)))
                for term, call in calls.items():
                    part = self._part(ran.residuals[term], call, k, axis)
                    found[term] = max(part, found.get(term, 0.0))
        return {term: part for term, part in found.items() if part > 0}

    def _typical(self, term: str) -> NetworkCall:
        """The call whose derivatives are typical: a condition may hold them at zero at its own."""
        own = self.calls_of.get(term) or max(self.calls_of.values(), key=_rows)
        alike = [c for c in self.calls_of.values() if c.name == own.name and _axes(c) == _axes(own)]
        return own if term in self.equations else max(alike, key=_rows)

    def _part(self, answer: Tensor, call: NetworkCall, order: int, axis: int) -> float:
        """Of one derivative, row by row where the rows of both are the same."""
        found = derivative(call, order, axis)
        c = answer.detach().abs().double().flatten() / math.factorial(order)
        length = self._length(call, axis)
        varying = rms(c) * self._to_be / length**order if length else 0.0
        if found is None:  # by points that vmap hands to the network one by one
            return varying
        alike = c.shape == found.shape
        return max(varying, rms(c * found) if alike else rms(c) * rms(found))

    def _length(self, call: NetworkCall, axis: int) -> float:
        """Of the box of all points along a coordinate."""
        own = columns(call)
        alike = [x for x in self.points.values() if own is not None and x.shape[1] == own.shape[1]]
        places = torch.cat([x[:, axis].double() for x in alike]) if alike else torch.zeros(1)
        return float(places.max() - places.min())

    @property
    def _to_be(self) -> float:
        """U."""
        asked = [size for term, size in self.demand.items() if not self.order.get(term)]
        return max(self.size or 0.0, *asked) if asked else self.size or 0.0


def _rows(call: NetworkCall) -> int:
    return call.output.numel()


def _axes(call: NetworkCall) -> int:
    """Coordinates of the points of a call."""
    return sum(width(x, call) for x in call.inputs if x.ndim)


def derivative(call: NetworkCall, order: int, axis: int) -> Tensor | None:
    """D by one coordinate, the norm over all outputs, (N,)."""
    place = axis
    for x in call.inputs:
        if place < width(x, call):
            return _by(call, x, place, order)
        place -= width(x, call)
    return None


def _by(call: NetworkCall, x: Tensor, column: int, order: int) -> Tensor | None:
    if not x.requires_grad:
        return None
    rows = x.numel() // width(x, call)
    outputs = call.output.reshape(rows, -1)
    each = outputs.unbind(1) if outputs.shape[1] <= MOST else (outputs.sum(1),)
    found = [_of_one(values, x, column, order) for values in each]
    known = [one for one in found if one is not None]
    return torch.stack(known).norm(dim=0) if known else None


def _of_one(values: Tensor, x: Tensor, column: int, order: int) -> Tensor | None:
    for _ in range(order):
        if values.grad_fn is None:
            return None
        (gradient,) = torch.autograd.grad(
            values.sum(), x, create_graph=True, allow_unused=True, materialize_grads=True
        )
        values = gradient.reshape(len(values), -1)[:, column]
    return values.detach().double()
