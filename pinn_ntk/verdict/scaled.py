"""The domain that a network was written for, told by how it scales its inputs.

Many networks bring a box to [-1, 1] before their first layer: 2 (x - lb) / (ub - lb) - 1. Where
their points reach one end of that and not the other, a part of the domain may be forgotten.
"""

from __future__ import annotations

import torch
from torch import Tensor

from pinn_ntk.graph import nodes
from pinn_ntk.graph.walk import postorder
from pinn_ntk.looks.networks import NetworkCall
from pinn_ntk.verdict.calls import columns
from pinn_ntk.verdict.points import AT_START, Points
from pinn_ntk.verdict.quantity import quantity

SHORT = 0.15
"""Share of a side of the domain that points do not reach."""

EXACT = 1e-5
"""Deviation from a straight line, of a scaling."""

CHANGED = 1e-3
"""Factor less 1, and shift, from which inputs are scaled."""


class Scaled(Points):
    """Quantities of the scaling of inputs."""

    @quantity("the domain that inputs are scaled to", dict)
    def short(self) -> dict[str, tuple[int, float, float]]:
        """Equation -> coordinate, where its points end, and where the domain ends behind it."""
        found: dict[str, tuple[int, float, float]] = {}
        for term in self.equations:
            call, x = self.calls_of.get(term), self.points.get(term)
            seen = None if call is None else first_input(call)
            if x is None or seen is None or seen.shape != x.shape:
                continue
            for axis in range(x.shape[1]):
                ends = _missing(x[:, axis].double(), seen[:, axis].double())
                if ends is not None:
                    found.setdefault(term, (axis, *ends))
        return found


def first_input(call: NetworkCall) -> Tensor | None:
    """What the first layer of a network sees, (N, d), where that is as wide as its points."""
    x = columns(call)
    graph = postorder(nodes.origin(call.output)[0]) if call.output.grad_fn is not None else {}
    for node in graph:  # operands come first
        if nodes.kind(node) == "AddmmBackward0":
            seen = nodes.saved(node, "mat1")
            alike = x is not None and seen is not None and seen.shape == x.shape
            return seen.detach() if alike else None
    return None


def _missing(x: Tensor, seen: Tensor) -> tuple[float, float] | None:
    """Where points x end and where the side of the domain does, if it is longer, from a scaling.

    >>> x = torch.linspace(0, 2, 5)
    >>> _missing(x, x / 2 - 1), _missing(x, x - 1), _missing(x, x)
    ((2.0, 4.0), None, None)
    """
    low, high = x.argmin(), x.argmax()
    span = x[high] - x[low]
    if not span > 0:
        return None
    factor = (seen[high] - seen[low]) / span
    shift = seen[low] - factor * x[low]
    straight = bool(((factor * x + shift - seen).abs() <= EXACT * seen.abs().max()).all())
    plain = abs(float(factor) - 1) < CHANGED and abs(float(shift)) < CHANGED
    if not straight or plain or not float(factor):
        return None
    ends = torch.stack([(-1 - shift) / factor, (1 - shift) / factor])
    first, last = ends.min(), ends.max()
    side = last - first
    before, behind = float((x[low] - first) / side), float((last - x[high]) / side)
    if abs(before) < AT_START and behind > SHORT:
        return float(x[high]), float(last)
    return (float(x[low]), float(first)) if abs(behind) < AT_START and before > SHORT else None
