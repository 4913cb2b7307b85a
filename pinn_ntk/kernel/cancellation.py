"""Rows whose terms all but cancel, as those of finite differences: what rounding does to them.

A row gradient is a sum over sites and parts. In (u(x + h) - 2 u(x) + u(x - h)) / h^2 the terms are
1 / h^2 times as large as their sum, and a product of two rows that is formed term by term loses the
square of that: four digits are left of it for h = 0.001. Rows written out first lose it once.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor

from pinn_ntk.kernel.factors import Dense, Outer
from pinn_ntk.kernel.gram import add_gram
from pinn_ntk.kernel.parts import Parts, RowFactor, add_block
from pinn_ntk.kernel.scaled import Scaled

LARGE = 1e4
"""Squared size of the terms over that of their sum, from which rows are written out; common
operators have 100 at most."""

FEW = 16
"""Rows that are looked at, twice as many at most."""


def row_squares(factor: RowFactor, dtype: torch.dtype, budget: int) -> Tensor:
    """Squared norm of each row gradient, contracted in ``dtype``, (R,)."""
    if not _cancels(factor):
        return factor.diagonal(dtype)
    written = [rows.square().sum(1) for _, rows in _written(factor, dtype, budget)]
    return torch.cat(written)


def add_products(
    out: Tensor, a: RowFactor, b: RowFactor, dtype: torch.dtype, budget: int, *, same: bool
) -> None:
    """Add one parameter's share of a kernel block to ``out`` (R_a, R_b), as `add_block` does."""
    if not _cancels(a) and (same or not _cancels(b)):
        add_block(out, a, b, dtype, budget, same=same)
        return
    for rows, left in _written(a, dtype, budget):
        for columns, right in _written(b, dtype, budget):
            add_gram(out[rows, columns], Dense(left), Dense(right), dtype, budget, same=False)


def _written(factor: RowFactor, dtype: torch.dtype, budget: int) -> Iterator[tuple[slice, Tensor]]:
    side = max(1, budget // max(1, 4 * factor.numel * torch.finfo(dtype).bits // 8))
    for start in range(0, max(factor.count, 1), side):
        rows = slice(start, min(start + side, factor.count))
        yield rows, factor.slice(rows).to(dtype).rows()


def _cancels(factor: RowFactor) -> bool:
    """Whether the terms of the rows are much larger than the rows, by a few of these."""
    if isinstance(factor, Dense) or (isinstance(factor, Outer) and len(factor.left) == 1):
        return False
    some = factor.slice(slice(0, None, max(1, factor.count // FEW)))
    if isinstance(some, Outer):  # products of terms, (r, S, S)
        products = _products(some.left) * _products(some.right)
        sizes, squares = products.diagonal(dim1=1, dim2=2).sqrt().sum(1), products.sum()
    else:
        sizes, squares = _sizes(some), some.diagonal(torch.float64).sum()
    return bool(sizes.square().sum() > LARGE * squares)


def _products(sites: tuple[Tensor, ...]) -> Tensor:
    by_row = torch.stack(sites, dim=1).double()
    return by_row @ by_row.mT


def _sizes(factor: RowFactor) -> Tensor:
    """Sum of the norms of the terms of each row, (R,), in float64."""
    if isinstance(factor, Parts):
        return factor.sizes(_sizes)
    if isinstance(factor, Scaled):
        alone = [Scaled((site,), factor.shape).diagonal(torch.float64) for site in factor.sites]
        return torch.stack(alone).clamp(min=0).sqrt().sum(0)
    if isinstance(factor, Dense):
        return factor.diagonal(torch.float64).sqrt()
    sites = zip(factor.left, factor.right, strict=True)
    norms = [left.double().norm(dim=1) * right.double().norm(dim=1) for left, right in sites]
    return torch.stack(norms).sum(0)
