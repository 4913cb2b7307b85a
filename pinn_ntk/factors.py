"""Per-parameter pieces of a Jacobian, and the products taken with them.

| symbol | meaning | shape |
| --- | --- | --- |
| R | rows: entries of one residual, flattened | |
| S | sites: places in the graph where the weight meets the points | |
| W | one weight matrix | (m, n) |
| left, right | factors, d r_i / d W = sum_s left[s, i] right[s, i]^T | (S, R, m), (S, R, n) |
| rows | row gradients written out, one flattened parameter a row | (R, numel) |

Every product is taken in the dtype asked for, whatever dtype the factors were captured in.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TypeAlias

import torch
from torch import Tensor

_PASS_COST = 16
"""Multiply-adds that one elementwise pass over a product costs, for choosing a formula."""


@dataclass(frozen=True)
class Outer:
    """Row gradients of one weight matrix as sums of outer products.

    Attributes:
        left: Factor along the weight's rows, (S, R, m).
        right: Factor along the weight's columns, (S, R, n).
    """

    left: Tensor
    right: Tensor

    @property
    def numel(self) -> int:
        """Entries of the weight, m * n."""
        return self.left.shape[2] * self.right.shape[2]

    def to(self, dtype: torch.dtype) -> Outer:
        """The same factors in ``dtype``."""
        return Outer(self.left.to(dtype), self.right.to(dtype))

    def slice(self, rows: slice) -> Outer:
        """Factors of some rows only."""
        return Outer(self.left[:, rows], self.right[:, rows])

    def rows(self) -> Tensor:
        """Row gradients written out, (R, m * n)."""
        return torch.einsum("srm,srn->rmn", self.left, self.right).flatten(1)

    def diagonal(self) -> Tensor:
        """Squared norm of each row gradient, (R,)."""
        return (_site_products(self.left) * _site_products(self.right)).sum((1, 2))

    def matvec(self, vector: Tensor) -> Tensor:
        """Row gradients times a flattened weight, (m * n,) -> (R,)."""
        weight = vector.view(self.left.shape[2], self.right.shape[2])
        return ((self.left @ weight) * self.right).sum((0, 2))

    def rmatvec(self, vector: Tensor) -> Tensor:
        """Weighted sum of the row gradients, (R,) -> (m * n,)."""
        left = (self.left * vector[:, None]).flatten(0, 1)  # (S R, m)
        return (left.mT @ self.right.flatten(0, 1)).flatten()


@dataclass(frozen=True)
class Dense:
    """Row gradients of one parameter written out.

    Attributes:
        gradients: One flattened parameter a row, (R, numel).
    """

    gradients: Tensor

    @property
    def numel(self) -> int:
        """Entries of the parameter."""
        return self.gradients.shape[1]

    def to(self, dtype: torch.dtype) -> Dense:
        """The same rows in ``dtype``."""
        return Dense(self.gradients.to(dtype))

    def slice(self, rows: slice) -> Dense:
        """Some rows only."""
        return Dense(self.gradients[rows])

    def rows(self) -> Tensor:
        """Row gradients written out, (R, numel)."""
        return self.gradients

    def diagonal(self) -> Tensor:
        """Squared norm of each row gradient, (R,)."""
        return self.gradients.square().sum(1)

    def matvec(self, vector: Tensor) -> Tensor:
        """Row gradients times a flattened parameter, (numel,) -> (R,)."""
        return self.gradients @ vector

    def rmatvec(self, vector: Tensor) -> Tensor:
        """Weighted sum of the row gradients, (R,) -> (numel,)."""
        return vector @ self.gradients


Factor: TypeAlias = Outer | Dense


def add_gram(
    out: Tensor, a: Factor, b: Factor, dtype: torch.dtype, budget: int, *, same: bool
) -> None:
    """Add one parameter's share of a kernel block to ``out``, in place.

    The cheaper of two formulas is taken: sum_st (L_s L_t'^T) * (X_s X_t'^T), which never forms a
    row gradient, or one product of written-out rows. Both work in tiles, so that temporaries
    stay below the budget.

    Args:
        out: Block of the kernel, (R_a, R_b).
        a: Factor of the block's rows.
        b: Factor of the block's columns.
        dtype: Dtype of the contraction.
        budget: Bytes that temporaries may take.
        same: ``a is b``, so that the block is symmetric and half the work is enough.
    """
    if isinstance(a, Outer) and isinstance(b, Outer) and _outer_is_cheaper(a, b, same=same):
        side = max(1, math.isqrt(budget // (4 * out.element_size())))
        for rows in _tiles(out.shape[0], side):
            for cols in _tiles(out.shape[1], side):
                if same and cols.start < rows.start:
                    continue
                diagonal = same and cols.start == rows.start
                tile = out[rows, cols]
                _add_outer(tile, a.slice(rows).to(dtype), b.slice(cols).to(dtype), same=diagonal)
        if same:
            _mirror(out, side)
        return
    side = max(1, budget // max(1, 2 * a.numel * out.element_size()))
    for rows in _tiles(out.shape[0], side):
        left = a.slice(rows).to(dtype).rows()
        for cols in _tiles(out.shape[1], side):
            right = left if same and cols == rows else b.slice(cols).to(dtype).rows()
            out[rows, cols] += left @ right.mT


def _site_products(factor: Tensor) -> Tensor:
    """Inner products <factor[s, i], factor[t, i]>, (R, S, S)."""
    by_row = factor.transpose(0, 1)
    # without the contiguous copy the batched product in float64 takes 1.5 times as long on a CPU
    return by_row @ by_row.mT.contiguous()


def _outer_is_cheaper(a: Outer, b: Outer, *, same: bool) -> bool:
    pairs = a.left.shape[0] * b.left.shape[0]
    if same:
        pairs = a.left.shape[0] * (a.left.shape[0] + 1) // 2
    return pairs * (a.left.shape[2] + a.right.shape[2] + _PASS_COST) < a.numel


def _add_outer(out: Tensor, a: Outer, b: Outer, *, same: bool) -> None:
    for s in range(a.left.shape[0]):
        for t in range(s if same else 0, b.left.shape[0]):
            product = a.left[s] @ b.left[t].mT
            product *= a.right[s] @ b.right[t].mT
            out += product
            if same and t > s:
                out += product.mT


def _mirror(out: Tensor, side: int) -> None:
    for rows in _tiles(out.shape[0], side):
        out[rows.stop :, rows] = out[rows, rows.stop :].mT


def _tiles(total: int, side: int) -> Iterator[slice]:
    for start in range(0, total, side):
        yield slice(start, min(start + side, total))
