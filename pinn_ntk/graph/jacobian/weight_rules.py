"""How one operation on weights turns the gradients of its result into those of its operand.

The gradients stay in factors (`Outer`, `Scaled`, or a short `Dense`). Most operations show what
they do (`weight_probes.py` here); products and what broadcasts have rules.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor

from pinn_ntk.graph import nodes
from pinn_ntk.graph.jacobian.site_algebra import column_sums, row_sums, weighted
from pinn_ntk.graph.jacobian.sums import from_sites, sites_of
from pinn_ntk.graph.jacobian.weight_probes import Step, probed, times
from pinn_ntk.kernel.factors import Dense, Factor
from pinn_ntk.kernel.scaled import Site


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
        return [times(factor, step.vjp(torch.ones_like(step.numbers(factor.tensors[0]))))]
    rule = _RULES.get(nodes.kind(step.result.node))
    if rule is not None and not nodes.missing(step.result.node):
        parts = [rule(step, position, factor) for position in step.positions]
        known = [part for part in parts if part is not None]
        if len(known) == len(parts):
            return known
    part = probed(step, factor)
    return None if part is None else [part]


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
    return times(found, torch.full(found.shape, alpha).to(found.tensors[0]))


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
        return times(factor, weight)
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
