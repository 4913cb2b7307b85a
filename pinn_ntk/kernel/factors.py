"""Per-parameter pieces of a Jacobian, and the products of each row taken with them.

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

from pinn_ntk.kernel.scaled import Scaled, outer_sites

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
        parts = [self.slice(rows) for rows in tiles(len(self.left[0]), side)]
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


def _site_products(factors: Sequence[Tensor], dtype: torch.dtype) -> Tensor:
    """Inner products <factors[s][i], factors[t][i]>, (R, S, S)."""
    by_row = torch.stack([factor.to(dtype) for factor in factors], dim=1)  # (R, S, m)
    return by_row @ by_row.mT


def tiles(total: int, side: int) -> Iterator[slice]:
    """``side`` of all ``total`` rows at a time."""
    for start in range(0, max(total, 1), side):
        yield slice(start, min(start + side, total))
