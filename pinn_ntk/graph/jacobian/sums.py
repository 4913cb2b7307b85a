"""Sums of factors of one parameter: what has a factor in common is joined.

Equal tensors are found by a digest of their bits before they are compared, so that the cost grows
with the number of sites and not with that of their pairs. A row gradient is an (m, n) matrix, so it
is a sum of min(m, n) outer products at most: where there are more sites, it is written out.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence

import torch
from torch import Tensor

from pinn_ntk.kernel.factors import Dense, Factor, Outer
from pinn_ntk.kernel.scaled import Scaled, Site, outer_sites

FEW_SITES = 12
"""Sites up to which all pairs are compared: that is faster than a digest of each."""
_INTEGERS = {8: torch.int64, 4: torch.int32, 2: torch.int16}
"""Integers of the size of a number, to read its bits."""


def total(factors: Sequence[Factor]) -> Factor:
    """Sum of factors of one parameter, in factors if all are of one shape."""
    if len(factors) == 1:
        return factors[0]
    held = [factor for factor in factors if not isinstance(factor, Dense)]
    shapes = {factor.shape for factor in held}
    if len(held) == len(factors) and len(shapes) == 1:
        return from_sites([site for f in held for site in sites_of(f)], held[0].shape)
    rows = factors[0].rows()
    for factor in factors[1:]:
        rows = rows + factor.rows()
    return Dense(rows)


def gather(factors: list[Factor], factor: Factor) -> None:
    """Put a factor to others of one parameter; written-out rows are added up as they come."""
    last = factors[-1] if factors else None
    if isinstance(factor, Dense) and isinstance(last, Dense):
        factors[-1] = Dense(last.gradients + factor.gradients)
    else:
        factors.append(factor)


def sites_of(factor: Outer | Scaled) -> tuple[Site, ...]:
    """The terms that a factor is a sum of."""
    return factor.sites if isinstance(factor, Scaled) else outer_sites(factor.left, factor.right)


def from_sites(sites: Sequence[Site], shape: tuple[int, int]) -> Factor:
    """Sum of sites in the widest of their dtypes; those that share a factor are joined."""
    tensors = [x for site in sites for x in site if x is not None]
    dtype = functools.reduce(torch.promote_types, (x.dtype for x in tensors))
    sites = _joined([site.mapped(lambda x: x.to(dtype)) for site in sites])
    if len(sites) > min(shape):
        return written_out(sites, shape)
    if not all(site.is_outer for site in sites):
        return Scaled(tuple(sites), shape)
    pairs = [(a, b) for a, b, _ in sites if a is not None and b is not None]
    return Outer(tuple(left for left, _ in pairs), tuple(right for _, right in pairs))


def written_out(sites: Sequence[Site], shape: tuple[int, int]) -> Dense:
    """The sum, one flattened gradient a row."""
    return Dense(Scaled(tuple(sites), shape).rows())


def _joined(sites: Sequence[Site]) -> list[Site]:
    """Sites with equal right factors, or equal left ones, become one with the sum of the others."""
    many = len(sites) > FEW_SITES
    for side in ("right", "left"):
        groups: dict[tuple[object, ...], list[Site]] = {}
        numbers: dict[object, list[tuple[Tensor, int]]] = {}
        for site in sites:
            shared, other = (site.right, site.left) if side == "right" else (site.left, site.right)
            key = (
                _number(shared, numbers, many),
                _number(site.matrix, numbers, many),
                other is None,
            )
            groups.setdefault(key, []).append(site)
        sites = [_sum(group, side) for group in groups.values()]
    return list(sites)


def _sum(group: Sequence[Site], side: str) -> Site:
    first, *others = group
    for site in others:
        if side == "right" and first.left is not None and site.left is not None:
            first = first._replace(left=first.left + site.left)
        elif side == "left" and first.right is not None and site.right is not None:
            first = first._replace(right=first.right + site.right)
        elif first.matrix is not None and site.matrix is not None:
            first = first._replace(matrix=first.matrix + site.matrix)
    return first


def _number(
    tensor: Tensor | None, known: dict[object, list[tuple[Tensor, int]]], many: bool
) -> int:
    """The same number for equal tensors, another one for others; -1 for none."""
    if tensor is None:
        return -1
    alike = known.setdefault((tensor.shape, _digest(tensor) if many else 0), [])
    for other, number in alike:
        if other is tensor or (torch.equal(other[:1], tensor[:1]) and torch.equal(other, tensor)):
            return number
    number = sum(map(len, known.values()))
    alike.append((tensor, number))
    return number


def _digest(tensor: Tensor) -> int:
    """A number made of all bits and their places, exact whatever the order of summation."""
    integers = _INTEGERS.get(tensor.element_size())
    if integers is None or not tensor.numel():
        return 0
    bits = (tensor + 0.0).contiguous().view(integers).reshape(len(tensor), -1)  # -0 becomes 0
    places = torch.arange(1, 2 * len(bits), 2, device=bits.device)
    columns = torch.arange(1, 2 * bits.shape[1], 2, device=bits.device)
    return int(((bits.long() * columns).sum(1) * places).sum())
