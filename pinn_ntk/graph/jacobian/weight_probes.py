"""What an operation on weights does, read off its own vector-Jacobian products of some numbers.

They show whether it multiplies entry by entry, lays entries out anew (`layouts.py` here), or sums
over an axis. The numbers have no relation to each other, so that no other operation passes for one
of these.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from pinn_ntk.graph import nodes
from pinn_ntk.graph.jacobian.layouts import laid_out
from pinn_ntk.graph.jacobian.site_algebra import as_matrix, weighted
from pinn_ntk.graph.jacobian.sums import from_sites, sites_of
from pinn_ntk.graph.operations import operation
from pinn_ntk.graph.walk import Edge
from pinn_ntk.kernel.factors import Dense, Factor
from pinn_ntk.kernel.scaled import Scaled, Site

GOLDEN = (5**0.5 - 1) / 2
"""Multiples of the golden ratio modulo 1 lie evenly and never repeat."""


@dataclass(frozen=True)
class Step:
    """One operation, seen from a result to one of its operands, at all places that take it."""

    result: Edge
    operand: Edge
    positions: tuple[int, ...]

    @property
    def entrywise(self) -> bool:
        """Whether each entry of the result is known to take one entry of the operand."""
        return operation(self.result.node).pointwise and self.result.shape == self.operand.shape

    def vjp(self, cotangent: Tensor) -> Tensor:
        """Gradient of the operand for one cotangent of the result, through this operation alone."""
        cotangent = cotangent.reshape(self.result.shape)
        found = nodes.pulled_through(self.result.node, self.result.output, cotangent)
        total = cotangent.new_zeros(self.operand.shape)
        for position in self.positions:
            gradient = found[position]
            if gradient is not None:
                total = total + gradient.sum_to_size(self.operand.shape)
        return total

    def numbers(self, like: Tensor) -> Tensor:
        """Numbers between 1/2 and 3/2 of the shape of the result, in no relation to each other."""
        dtype = nodes.output_dtype(self.result.node, self.result.output)
        steps = torch.arange(1, self.result.shape.numel() + 1, dtype=torch.float64)
        numbers = (steps * GOLDEN).frac() + 0.5
        return numbers.view(self.result.shape).to(like.device, dtype)


def probed(step: Step, factor: Factor) -> Factor | None:
    """What vector-Jacobian products of one operation show of it."""
    out, operand = step.result.shape.numel(), step.operand.shape.numel()
    if out == 1:
        return _of_a_number(step, factor.rows(), step.vjp(torch.ones((), dtype=factor.dtype)))
    numbers = step.numbers(factor.tensors[0])
    if step.result.shape == step.operand.shape:
        slope = step.vjp(torch.ones_like(numbers))
        if _same(step.vjp(numbers), slope * numbers):
            return times(factor, slope)
    short = isinstance(factor, Dense) or out <= max(factor.shape)
    if short and operand > out and (found := _reduction(step, factor.rows(), numbers)):
        return found
    return laid_out(step.vjp, step.result.shape, step.operand.shape, factor)


def _same(a: Tensor, b: Tensor) -> bool:
    tolerance = 100 * torch.finfo(a.dtype).eps
    return bool(((a - b).abs() <= tolerance * (a.abs() + b.abs())).all())


def times(factor: Factor, slope: Tensor) -> Factor:
    """The gradients of an operand of which the result has ``slope`` times each entry."""
    if isinstance(factor, Dense):
        return Dense(factor.gradients * slope.flatten())
    sites = [weighted(site, slope.reshape(factor.shape)) for site in sites_of(factor)]
    return from_sites(sites, factor.shape)


def _of_a_number(step: Step, rows: Tensor, slope: Tensor) -> Factor:
    """Gradients (R, 1) of a number -> those of what it is computed from."""
    shape = as_matrix(step.operand.shape)
    if shape is None or min(shape) == 1:
        return Dense(rows * slope.flatten())
    return Scaled((Site(rows.expand(-1, shape[0]), None, slope.reshape(shape)),), shape)


def _reduction(step: Step, rows: Tensor, numbers: Tensor) -> Factor | None:
    """Gradients of sums, norms and products along one axis of a matrix."""
    shape, flat = as_matrix(step.operand.shape), numbers.flatten()
    if shape is None or len(flat) not in shape:
        return None
    slope, seen = (step.vjp(x).reshape(shape) for x in (torch.ones_like(numbers), numbers))
    if shape[0] == len(flat) and _same(seen, flat[:, None] * slope):
        return Scaled((Site(rows, None, slope),), shape)
    if shape[1] == len(flat) and _same(seen, flat[None, :] * slope):
        return Scaled((Site(None, rows, slope),), shape)
    return None
