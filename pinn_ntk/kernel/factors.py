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
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

from pinn_ntk.kernel.scaled import Scaled, Site, add_products, outer_sites, pairwise_cost

_PASS_COST = 16  # multiply-adds that one elementwise pass over a product costs
_WORTH_HALVING = (
    2**22
)  # entries of written-out rows from which half of a symmetric block is left out
_LEAST_TILE = 32  # rows, below which writing them out costs more than half of their products
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
    def count(self) -> int:
        """R."""
        return len(self.left[0])

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the factors."""
        return self.left[0].dtype

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All factors."""
        return (*self.left, *self.right)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Outer:
        """The same with each factor changed."""
        return Outer(tuple(map(change, self.left)), tuple(map(change, self.right)))

    @property
    def row(self) -> int:
        """Numbers that are kept of a row, S (m + n)."""
        return len(self.left) * sum(self.shape)

    def to(self, dtype: torch.dtype) -> Outer:
        """The same factors in ``dtype``."""
        return self.mapped(lambda tensor: tensor.to(dtype))

    def scaled(self) -> Scaled:
        """The same row gradients, as `Scaled` has them."""
        return Scaled(outer_sites(self.left, self.right), self.shape)

    def columns(self, first: int, last: int, within: slice) -> Outer:
        """Rows ``first`` to ``last`` of the weight, and of those the columns ``within``."""
        left = tuple(x[:, first:last] for x in self.left)
        return Outer(left, tuple(x[:, within] for x in self.right))

    def slice(self, rows: slice | Tensor) -> Outer:
        """Factors of some rows only."""
        return self.mapped(lambda tensor: tensor[rows])

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

    def bilinear(self, a: Tensor, b: Tensor) -> Tensor:
        """a_k^T W_i b_k for k columns a (m, k) and b (n, k), (R, k)."""
        sites = zip(self.left, self.right, strict=True)
        return torch.stack([(left @ a) * (right @ b) for left, right in sites]).sum(0)


@dataclass(frozen=True)
class Dense:
    """Row gradients of one parameter written out, (R, numel)."""

    gradients: Tensor

    @property
    def numel(self) -> int:
        """Entries of the parameter."""
        return self.gradients.shape[1]

    @property
    def count(self) -> int:
        """R."""
        return len(self.gradients)

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of the rows."""
        return self.gradients.dtype

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """The rows."""
        return (self.gradients,)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Dense:
        """The same with the rows changed."""
        return Dense(change(self.gradients))

    @property
    def row(self) -> int:
        """Numbers that are kept of a row."""
        return self.numel

    def to(self, dtype: torch.dtype) -> Dense:
        """The same rows in ``dtype``."""
        return self.mapped(lambda tensor: tensor.to(dtype))

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


Factor: TypeAlias = Outer | Dense | Scaled


def add_gram(
    out: Tensor, a: Factor, b: Factor, dtype: torch.dtype, budget: int, *, same: bool
) -> None:
    """Add one parameter's share of a kernel block to ``out`` (R_a, R_b), in place, by ``dtype``.

    The cheaper of two formulas is taken: sum_st (L_s L_t'^T) * (X_s X_t'^T), which never forms a
    row gradient, or one product of written-out rows. Both work in tiles, so that temporaries stay
    below ``budget`` bytes. Where ``a is b`` (``same``), the block is symmetric and half the work is
    enough.
    """
    if isinstance(a, Dense) and isinstance(b, Dense):
        _add_dense(out, a, b, dtype, budget, same=same)
        return
    pairs = _factored(a, b, same=same)
    if pairs is None:
        _add_written_out(out, a, b, dtype, budget, same=same)
        return
    room = budget // out.element_size()
    side = max(1, min(math.isqrt(room // 4), room // max(1, 2 * max(a.row, b.row))))
    for rows in _tiles(out.shape[0], side):
        for cols in _tiles(out.shape[1], side):
            if same and cols.start < rows.start:
                continue
            diagonal = same and cols.start == rows.start
            wide = pairs[0].slice(rows).to(dtype)
            other = wide if diagonal else pairs[1].slice(cols).to(dtype)
            _add_pairs(out[rows, cols], wide, other, same=diagonal)
    if same:
        _mirror(out, side)


def _mirror(out: Tensor, side: int) -> None:
    """Fill the lower half of a symmetric block, by tiles, from the upper one."""
    for rows in _tiles(out.shape[0], side):
        out[rows.stop :, rows] = out[rows, rows.stop :].mT


def _halves(out: Tensor, numel: int, side: int, *, same: bool) -> int:
    """Rows of a tile, so that half of a large symmetric block is left out."""
    if same and len(out) * numel > _WORTH_HALVING:
        return min(side, max(_LEAST_TILE, math.ceil(len(out) / 4)))
    return side


def _add_written_out(
    out: Tensor, a: Factor, b: Factor, dtype: torch.dtype, budget: int, *, same: bool
) -> None:
    numbers = 3 * a.numel + max(a.row, b.row)  # of a row: written out on both sides, and a site
    side = max(1, budget // max(1, numbers * out.element_size()))
    side = _halves(out, a.numel, side, same=same)
    for rows in _tiles(out.shape[0], side):
        left = a.slice(rows).to(dtype).rows()
        for cols in _tiles(out.shape[1], side):
            if same and cols.start < rows.start:
                continue
            right = left if same and cols == rows else b.slice(cols).to(dtype).rows()
            product = left @ right.mT
            out[rows, cols] += product
            if same and cols != rows:
                out[cols, rows] += product.mT


_Pairs: TypeAlias = tuple[Outer | Scaled, Outer | Scaled]


def _factored(a: Factor, b: Factor, *, same: bool) -> _Pairs | None:
    """Both as pairs of one kind whose inner products are cheaper than those of written-out rows."""
    if isinstance(a, Dense) or isinstance(b, Dense):
        return None
    if isinstance(a, Outer) and isinstance(b, Outer):
        return (a, b) if _outer_is_cheaper(a, b, same=same) else None
    first = a.scaled() if isinstance(a, Outer) else a
    second = b.scaled() if isinstance(b, Outer) else b
    if first.shape != second.shape or pairwise_cost(first, second) >= first.numel:
        return None
    return first, second


def _add_pairs(out: Tensor, a: Outer | Scaled, b: Outer | Scaled, *, same: bool) -> None:
    if isinstance(a, Outer) and isinstance(b, Outer):
        _add_outer(out, a, b, same=same)
    elif isinstance(a, Scaled) and isinstance(b, Scaled):

        def add_outer(target: Tensor, left: Sequence[Site], right: Sequence[Site]) -> None:
            _add_outer(target, _as_outer(left), _as_outer(right), same=same)

        add_products(out, a, b, add_outer)


def _as_outer(sites: Sequence[Site]) -> Outer:
    pairs = [(s.left, s.right) for s in sites if s.left is not None and s.right is not None]
    return Outer(tuple(left for left, _ in pairs), tuple(right for _, right in pairs))


def _add_dense(
    out: Tensor, a: Dense, b: Dense, dtype: torch.dtype, budget: int, *, same: bool
) -> None:
    """The same by columns, each of which is read once."""
    width = max(1, budget // max(1, sum(out.shape) * out.element_size()))
    side = _halves(out, a.numel, max(1, len(out)), same=same)
    for columns in _tiles(a.numel, width):
        left = a.gradients[:, columns].to(dtype)
        right = left if same else b.gradients[:, columns].to(dtype)
        for rows in _tiles(len(out), side):
            first = rows.start if same else 0
            out[rows, first:] += left[rows] @ right[first:].mT
    if same and side < len(out):
        _mirror(out, side)


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
    for start in range(0, max(total, 1), side):
        yield slice(start, min(start + side, total))
