"""Per-parameter pieces of a Jacobian, and the products taken with them.

| symbol | meaning | shape |
| --- | --- | --- |
| R | rows: entries of one residual, flattened | |
| S | sites: places in the graph where the weight meets the points | |
| W | one weight matrix | (m, n) |
| left, right | factors, d r_i / d W = sum_s left[s][i] right[s][i]^T | S times (R, m), (R, n) |
| rows | row gradients written out, one flattened parameter a row | (R, numel) |

Every product is taken in the dtype asked for, whatever dtype the factors were captured in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

_PASS_COST = 16  # multiply-adds that one elementwise pass over a product costs
_CACHED = 2**15  # entries of a factor that are contracted together while they lie in cache


@dataclass(frozen=True)
class Outer:
    """Row gradients of one weight as sums of outer products: S times (R, m) and (R, n), by site."""

    left: tuple[Tensor, ...]
    right: tuple[Tensor, ...]

    @property
    def shape(self) -> tuple[int, int]:
        """(m, n)."""
        return self.left[0].shape[1], self.right[0].shape[1]

    @property
    def numel(self) -> int:
        """Entries of the weight, m * n."""
        return math.prod(self.shape)

    @property
    def row(self) -> int:
        """Numbers that are kept of a row, S (m + n)."""
        return len(self.left) * sum(self.shape)

    def to(self, dtype: torch.dtype) -> Outer:
        """The same factors in ``dtype``."""
        return Outer(tuple(x.to(dtype) for x in self.left), tuple(x.to(dtype) for x in self.right))

    def slice(self, rows: slice | Tensor) -> Outer:
        """Factors of some rows only."""
        return Outer(tuple(x[rows] for x in self.left), tuple(x[rows] for x in self.right))

    def rows(self) -> Tensor:
        """Row gradients written out, (R, m * n)."""
        sites = zip(self.left, self.right, strict=True)
        products = (left[:, :, None] * right[:, None, :] for left, right in sites)
        total = next(products)
        for product in products:
            total += product
        return total.flatten(1)

    def diagonal(self, dtype: torch.dtype) -> Tensor:
        """Squared norm of each row gradient, contracted in ``dtype``, (R,)."""
        side = 1 + _CACHED // max(*self.shape, len(self.left) ** 2)
        parts = [self.slice(rows) for rows in _tiles(len(self.left[0]), side)]
        products = [_site_products(p.left, dtype) * _site_products(p.right, dtype) for p in parts]
        return torch.cat([product.sum((1, 2)) for product in products])

    def matvec(self, vector: Tensor) -> Tensor:
        """Row gradients times a flattened weight, (m * n,) -> (R,)."""
        weight, total = vector.view(self.shape), vector.new_zeros(len(self.left[0]))
        for left, right in zip(self.left, self.right, strict=True):
            total += ((left @ weight) * right).sum(1)
        return total

    def rmatvec(self, vector: Tensor) -> Tensor:
        """Weighted sum of the row gradients, (R,) -> (m * n,)."""
        total = vector.new_zeros(self.shape)
        for left, right in zip(self.left, self.right, strict=True):
            total.addmm_((left * vector[:, None]).mT, right)
        return total.flatten()


@dataclass(frozen=True)
class Dense:
    """Row gradients of one parameter written out, (R, numel)."""

    gradients: Tensor

    @property
    def numel(self) -> int:
        """Entries of the parameter."""
        return self.gradients.shape[1]

    @property
    def row(self) -> int:
        """Numbers that are kept of a row."""
        return self.numel

    def to(self, dtype: torch.dtype) -> Dense:
        """The same rows in ``dtype``."""
        return Dense(self.gradients.to(dtype))

    def slice(self, rows: slice | Tensor) -> Dense:
        """Some rows only."""
        return Dense(self.gradients[rows])

    def rows(self) -> Tensor:
        """Row gradients written out, (R, numel)."""
        return self.gradients

    def diagonal(self, dtype: torch.dtype) -> Tensor:
        """Squared norm of each row gradient, contracted in ``dtype``, (R,)."""
        parts = self.gradients.split(1 + 4 * _CACHED // max(1, self.numel))
        return torch.cat([part.to(dtype).square().sum(1) for part in parts])

    def matvec(self, vector: Tensor) -> Tensor:
        """Row gradients times a flattened parameter, (numel,) -> (R,)."""
        return self.gradients @ vector

    def rmatvec(self, vector: Tensor) -> Tensor:
        """Weighted sum of the row gradients, (R,) -> (numel,)."""
        return vector @ self.gradients


Factor: TypeAlias = Outer | Dense


def stacked(parts: Sequence[Factor | None], rows: Sequence[int]) -> Factor:
    """Factors of one parameter below one another, None for zero rows; some are not None."""
    outers = [part for part in parts if isinstance(part, Outer)]
    if len(outers) < sum(part is not None for part in parts):
        written = [None if part is None else part.rows() for part in parts]
        return Dense(_below(written, rows))
    sites = range(max(len(part.left) for part in outers))
    pairs = [[_site(part, site) for part in parts] for site in sites]
    left = tuple(_below([left for left, _ in of_site], rows) for of_site in pairs)
    return Outer(left, tuple(_below([right for _, right in of_site], rows) for of_site in pairs))


def _site(part: Factor | None, site: int) -> tuple[Tensor | None, Tensor | None]:
    if not isinstance(part, Outer) or site >= len(part.left):
        return None, None
    return part.left[site], part.right[site]


def _below(parts: Sequence[Tensor | None], rows: Sequence[int]) -> Tensor:
    like = next(part for part in parts if part is not None)
    zeros = (like.new_zeros(count, like.shape[1]) for count in rows)
    filled = zip(parts, zeros, strict=True)
    return torch.cat([zero if part is None else part for part, zero in filled])


def add_gram(
    out: Tensor, a: Factor, b: Factor, dtype: torch.dtype, budget: int, *, same: bool
) -> None:
    """Add one parameter's share of a kernel block to ``out`` (R_a, R_b), in place, by ``dtype``.

    The cheaper of two formulas is taken: sum_st (L_s L_t'^T) * (X_s X_t'^T), which never forms a
    row gradient, or one product of written-out rows. Both work in tiles, so that temporaries stay
    below ``budget`` bytes. Where ``a is b`` (``same``), the block is symmetric and half the work is
    enough.
    """
    if isinstance(a, Outer) and isinstance(b, Outer) and _outer_is_cheaper(a, b, same=same):
        _add_outer_in_tiles(out, a, b, dtype, budget, same=same)
        return
    if isinstance(a, Dense) and isinstance(b, Dense):
        _add_dense(out, a, b, dtype, budget, same=same)
        return
    numbers = 3 * a.numel + max(a.row, b.row)  # of a row: written out on both sides, and a site
    side = max(1, budget // max(1, numbers * out.element_size()))
    for rows in _tiles(out.shape[0], side):
        left = a.slice(rows).to(dtype).rows()
        for cols in _tiles(out.shape[1], side):
            right = left if same and cols == rows else b.slice(cols).to(dtype).rows()
            out[rows, cols] += left @ right.mT


def _add_outer_in_tiles(
    out: Tensor, a: Outer, b: Outer, dtype: torch.dtype, budget: int, *, same: bool
) -> None:
    room = budget // out.element_size()
    side = max(1, min(math.isqrt(room // 4), room // (2 * max(a.row, b.row))))
    for rows in _tiles(out.shape[0], side):
        for cols in _tiles(out.shape[1], side):
            if same and cols.start < rows.start:
                continue
            diagonal = same and cols.start == rows.start
            wide = a.slice(rows).to(dtype)
            other = wide if diagonal else b.slice(cols).to(dtype)
            _add_outer(out[rows, cols], wide, other, same=diagonal)
    for rows in _tiles(out.shape[0], side) if same else ():  # the other half
        out[rows.stop :, rows] = out[rows, rows.stop :].mT


def _add_dense(
    out: Tensor, a: Dense, b: Dense, dtype: torch.dtype, budget: int, *, same: bool
) -> None:
    """The same by columns, each of which is read once."""
    width = max(1, budget // max(1, sum(out.shape) * out.element_size()))
    for columns in _tiles(a.numel, width):
        left = a.gradients[:, columns].to(dtype)
        out += left @ (left if same else b.gradients[:, columns].to(dtype)).mT


def _site_products(factors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Inner products <factors[s][i], factors[t][i]>, (R, S, S)."""
    by_row = torch.stack([factor.to(dtype) for factor in factors], dim=1)  # (R, S, m)
    return by_row @ by_row.mT


def _outer_is_cheaper(a: Outer, b: Outer, *, same: bool) -> bool:
    sites = len(a.left)
    pairs = sites * (sites + 1) // 2 if same else sites * len(b.left)
    return pairs * (sum(a.shape) + _PASS_COST) < a.numel


def _add_outer(out: Tensor, a: Outer, b: Outer, *, same: bool) -> None:
    if not same:
        for left, right in zip(a.left, a.right, strict=True):
            for other_left, other_right in zip(b.left, b.right, strict=True):
                out.addcmul_(left @ other_left.mT, right @ other_right.mT)
        return
    half = torch.zeros_like(out)  # pairs s < t; their mirror images are added at the end
    for s, (left, right) in enumerate(zip(a.left, a.right, strict=True)):
        out.addcmul_(left @ left.mT, right @ right.mT)
        for t in range(s + 1, len(a.left)):
            half.addcmul_(left @ a.left[t].mT, right @ a.right[t].mT)
    out += half
    out += half.mT


def _tiles(total: int, side: int) -> Iterator[slice]:
    for start in range(0, total, side):
        yield slice(start, min(start + side, total))
