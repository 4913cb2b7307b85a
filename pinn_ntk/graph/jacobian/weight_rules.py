"""How one operation on weights turns the gradients of its result into those of its operand.

The gradients stay in factors (`Outer`, `Scaled`, or a short `Dense`). What an operation does is
mostly read off the operation itself: its vector-Jacobian product of some numbers shows whether it
multiplies entry by entry, lays entries out anew, or sums over an axis. The numbers are random, so
that no other operation passes for one of these; only products and what broadcasts have rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor

from pinn_ntk.graph import nodes
from pinn_ntk.graph.jacobian.layouts import laid_out
from pinn_ntk.graph.jacobian.site_algebra import (
    as_matrix,
    column_sums,
    row_sums,
    weighted,
)
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


def pulled(step: Step, factor: Factor) -> list[Factor] | None:
    """Gradients of the operand, as factors to be added up; None where they must be written out."""
    ends = (step.operand, step.result)
    if any(nodes.output_dtype(end.node, end.output).is_complex for end in ends):
        return None
    if not all(end.shape.numel() for end in ends):
        return []
    if nodes.is_own_function(step.result.node):
        return None
    if step.entrywise:
        return [_times(factor, step.vjp(torch.ones_like(step.numbers(factor.tensors[0]))))]
    rule = _RULES.get(nodes.kind(step.result.node))
    if rule is not None and not nodes.missing(step.result.node):
        parts = [rule(step, position, factor) for position in step.positions]
        known = [part for part in parts if part is not None]
        if len(known) == len(parts):
            return known
    part = _probed(step, factor)
    return None if part is None else [part]


def _probed(step: Step, factor: Factor) -> Factor | None:
    """What vector-Jacobian products of one operation show of it."""
    out, operand = step.result.shape.numel(), step.operand.shape.numel()
    if out == 1:
        return _of_a_number(step, factor.rows(), step.vjp(torch.ones((), dtype=factor.dtype)))
    numbers = step.numbers(factor.tensors[0])
    if step.result.shape == step.operand.shape:
        slope = step.vjp(torch.ones_like(numbers))
        if _same(step.vjp(numbers), slope * numbers):
            return _times(factor, slope)
    short = isinstance(factor, Dense) or out <= max(factor.shape)
    if short and operand > out and (found := _reduction(step, factor.rows(), numbers)):
        return found
    return laid_out(step.vjp, step.result.shape, step.operand.shape, factor)


def _same(a: Tensor, b: Tensor) -> bool:
    tolerance = 100 * torch.finfo(a.dtype).eps
    return bool(((a - b).abs() <= tolerance * (a.abs() + b.abs())).all())


def _times(factor: Factor, slope: Tensor) -> Factor:
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


def _product(step: Step, position: int, factor: Factor, names: tuple[str, str]) -> Factor | None:
    """A product of two matrices, the operand at ``position`` 0 or 1."""
    if isinstance(factor, Dense):
        return None
    node = step.result.node
    other = nodes.saved(node, names[1 - position])
    if other is None:
        return None
    other = other.detach().reshape(other.shape[-2:])
    shape = (factor.shape[0], len(other)) if position == 0 else (other.shape[1], factor.shape[1])
    if math.prod(shape) != step.operand.shape.numel():
        return None
    if position == 0:
        sites = [_from_the_right(site, other) for site in sites_of(factor)]
    else:
        turned = [_from_the_right(site.transposed(), other.mT) for site in sites_of(factor)]
        sites = [None if site is None else site.transposed() for site in turned]
    known = [site for site in sites if site is not None]
    return from_sites(known, shape) if len(known) == len(sites) else None


def _from_the_right(site: Site, other: Tensor) -> Site | None:
    """G -> G other^T."""
    if site.matrix is None and site.right is not None:
        return Site(site.left, site.right @ other.mT, None)
    if site.matrix is not None and site.right is None:
        return Site(site.left, None, site.matrix @ other.mT)
    return None


def _mm(step: Step, position: int, factor: Factor) -> Factor | None:
    if nodes.output_shape(step.result.node)[:-2].numel() != 1:
        return None
    return _product(step, position, factor, ("self", "mat2"))


def _addmm(step: Step, position: int, factor: Factor) -> Factor | None:
    node = step.result.node
    if position == 0:
        beta = float(nodes.saved(node, "beta"))
        return _broadcast(step, factor, torch.tensor(beta))
    found = _product(step, position - 1, factor, ("mat1", "mat2"))
    alpha = float(nodes.saved(node, "alpha"))
    if found is None or isinstance(found, Dense):
        return found
    return _times(found, torch.full(found.shape, alpha).to(found.tensors[0]))


def _add(step: Step, position: int, factor: Factor) -> Factor | None:
    node = step.result.node
    sign = -1 if nodes.kind(node) == "SubBackward0" else 1
    scale = sign * float(nodes.saved(node, "alpha")) if position else 1.0
    return _broadcast(step, factor, torch.tensor(scale, dtype=torch.float64))


def _mul(step: Step, position: int, factor: Factor) -> Factor | None:
    other = nodes.saved(step.result.node, "self" if position else "other")
    return None if other is None else _broadcast(step, factor, other.detach())


def _div(step: Step, position: int, factor: Factor) -> Factor | None:
    divisor = nodes.saved(step.result.node, "other").detach()
    if position == 0:
        return _broadcast(step, factor, divisor.reciprocal())
    dividend = nodes.saved(step.result.node, "self").detach()
    return _broadcast(step, factor, -dividend / divisor.square())


def _expand(step: Step, _: int, factor: Factor) -> Factor | None:
    return _broadcast(step, factor, torch.ones((), dtype=torch.float64))


def _broadcast(step: Step, factor: Factor, multiplier: Tensor) -> Factor | None:
    """Gradients of an operand that is multiplied entry by entry, broadcast over some axes."""
    out, like = step.result.shape, factor.tensors[0]
    operand = (1,) * (len(out) - len(step.operand.shape)) + tuple(step.operand.shape)
    multiplier = multiplier.to(like)
    spread = [axis for axis in range(len(out)) if operand[axis] != out[axis]]
    if isinstance(factor, Dense):
        product = factor.gradients.view(-1, *out) * multiplier
        kept = product.sum([axis + 1 for axis in spread]) if spread else product
        return Dense(kept.reshape(len(kept), -1))
    weight = multiplier.expand(out).reshape(factor.shape)
    if not spread:
        return _times(factor, weight)
    rows, columns = (_kept(operand, out, factor.shape, side) for side in (0, 1))
    if rows is None or columns is None:
        return None
    sites = sites_of(factor)
    if rows:
        return Dense(torch.stack([row_sums(site, weight) for site in sites]).sum(0))
    sums = torch.stack([column_sums(site, weight) for site in sites]).sum(0)
    return Dense(sums if columns else sums.sum(1, keepdim=True))


def _kept(
    operand: tuple[int, ...], out: torch.Size, shape: tuple[int, int], side: int
) -> bool | None:
    """Whether an operand has the axes that make up the rows (columns) of its result's factor."""
    split = next((k for k in range(len(out) + 1) if math.prod(out[:k]) == shape[0]), None)
    if split is None:
        return None
    axes = range(split) if side == 0 else range(split, len(out))
    wide = [operand[axis] == out[axis] for axis in axes if out[axis] != 1]
    if wide and any(wide) != all(wide):
        return None
    return bool(wide) and all(wide)


def _weight_norm(step: Step, position: int, factor: Factor) -> Factor | None:
    """W = g v / abs(v), the norms taken of the rows of v, or of its columns."""
    node = step.result.node
    v, g, norms = (nodes.saved(node, name).detach() for name in ("v", "g", "result1"))
    if isinstance(factor, Dense):
        return None
    by_rows = nodes.signed(nodes.saved(node, "dim")) == 0
    shape = factor.shape
    if (shape[0] if by_rows else shape[1]) != norms.numel():
        return None
    sites = sites_of(factor)
    hat, scale = (v / norms).reshape(shape), (g / norms).flatten()
    if not by_rows:
        sites, hat, shape = tuple(site.transposed() for site in sites), hat.mT, shape[::-1]
    along = torch.stack([row_sums(site, hat) for site in sites]).sum(0)  # (R, m)
    if position == 1:
        return Dense(along)
    stretched = [weighted(site, scale[:, None].expand(shape)) for site in sites]
    parts = [*stretched, Site(-along * scale, None, hat)]
    if not by_rows:
        parts, shape = [site.transposed() for site in parts], shape[::-1]
    return from_sites(parts, shape)


_RULES: dict[str, Callable[[Step, int, Factor], Factor | None]] = {
    "MmBackward0": _mm,
    "BmmBackward0": _mm,
    "AddmmBackward0": _addmm,
    "AddBackward0": _add,
    "SubBackward0": _add,
    "MulBackward0": _mul,
    "DivBackward0": _div,
    "ExpandBackward0": _expand,
    "WeightNormInterfaceBackward0": _weight_norm,
}
"""What cannot be read off the operation: two operands are products of each other, or broadcast."""
