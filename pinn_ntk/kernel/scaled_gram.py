"""Inner products of all rows of two `Scaled` factors, without writing them out."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TypeAlias

from torch import Tensor

from pinn_ntk.kernel.scaled import Scaled, Site, fixed_weight, reduces

_Grouped: TypeAlias = dict[int, tuple[Tensor, Tensor]]


def pairwise_cost(a: Scaled, b: Scaled) -> float:
    """Multiply-adds a pair of rows that `add_products` takes; infinite where it has no formula."""
    m, n = a.shape
    cost = 0.0
    for one in a.sites:
        for other in b.sites:
            if one.matrix is None and other.matrix is None:
                cost += m + n
            elif reduces(one, other) is None:
                return math.inf
    return cost + m * sum(not site.is_outer for site in (*a.sites, *b.sites))


def add_products(out: Tensor, a: Scaled, b: Scaled, add_outer: Callable[..., None]) -> None:
    """Add the inner products of all rows of a and b to ``out`` (R_a, R_b), never writing them out.

    ``add_outer`` does that for the outer products among themselves. Sites of fixed matrices take
    one product of (R_a, m) and (m, R_b), or of (R_a, n) and (n, R_b), together with all others.
    """
    outers = [[site for site in x.sites if site.is_outer] for x in (a, b)]
    if all(outers):
        add_outer(out, *outers)
    by_right: _Grouped = {}
    by_left: _Grouped = {}
    for one in a.sites:
        for other in b.sites:
            if one.is_outer and other.is_outer:
                continue
            left, right, fixed = _operands(one, other, a.shape)
            grouped, key = (by_right, right) if fixed else (by_left, left)
            if id(key) in grouped:
                p, q = grouped[id(key)]
                grouped[id(key)] = (p + left, q) if fixed else (p, q + right)
            else:
                grouped[id(key)] = left, right
    for left, right in (*by_right.values(), *by_left.values()):
        out.addmm_(left, right.mT)


def _operands(one: Site, other: Site, shape: tuple[int, int]) -> tuple[Tensor, Tensor, bool]:
    """P and Q of the products P Q^T, and whether Q is a tensor of ``other`` as it is."""
    if reduces(one, other) == "left":  # the rows of one of both scale columns alone
        one, other, shape = one.transposed(), other.transposed(), (shape[1], shape[0])
    fixed = other.right is None
    first, second = (one, other) if fixed else (other, one)
    assert second.left is not None
    weight = fixed_weight(one, other)
    if first.right is None:
        summed = shape[1] if weight is None else weight.sum(1)
        assert first.left is not None
        product = first.left * summed
    else:
        spread = first.right.sum(1, keepdim=True) if weight is None else first.right @ weight.mT
        product = spread.expand(-1, shape[0]) if first.left is None else spread * first.left
    return (product, second.left, True) if fixed else (second.left, product, False)
