"""Row gradients made of fixed matrices, of which every residual row scales rows and columns.

| symbol | meaning | shape |
| --- | --- | --- |
| R | rows of the residual | |
| W | a weight that another one is computed from, such as v in g v / abs(v) | (m, n) |
| V | a fixed matrix, None for one of ones | (m, n) |
| left, right | what row i scales rows and columns of V by, None for ones | (R, m), (R, n) |

d r_i / d W = sum_s diag(left_s[i]) V_s diag(right_s[i]). With V of ones that is an outer product.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor


class Site(NamedTuple):
    """diag(left[i]) V diag(right[i]); one of ``left`` and ``right`` at least is there."""

    left: Tensor | None
    right: Tensor | None
    matrix: Tensor | None = None

    @property
    def is_outer(self) -> bool:
        """Whether this is an outer product of two vectors a row."""
        return self.matrix is None and self.left is not None and self.right is not None

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """Those that are there."""
        return tuple(tensor for tensor in self if tensor is not None)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Site:
        """The same site, with each of its tensors changed."""
        return Site(*(None if x is None else change(x) for x in self))

    def times(self, scale: float) -> Site:
        """The same gradients times a number."""
        if self.left is not None:
            return self._replace(left=scale * self.left)
        return self._replace(right=None if self.right is None else scale * self.right)

    def transposed(self) -> Site:
        """The same gradients of the transpose of W."""
        return Site(self.right, self.left, None if self.matrix is None else self.matrix.mT)


@dataclass(frozen=True)
class Scaled:
    """Row gradients of one weight of ``shape`` (m, n) as a sum of `Site`."""

    sites: tuple[Site, ...]
    shape: tuple[int, int]

    @property
    def numel(self) -> int:
        """Entries of the weight, m * n."""
        return math.prod(self.shape)

    @property
    def tensors(self) -> tuple[Tensor, ...]:
        """All that is held."""
        return tuple(tensor for site in self.sites for tensor in site.tensors)

    @property
    def count(self) -> int:
        """R."""
        site = self.sites[0]
        return len(_either(site.left, site.right))

    @property
    def dtype(self) -> torch.dtype:
        """Dtype of what is held."""
        return self.tensors[0].dtype

    @property
    def row(self) -> int:
        """Numbers that are kept of a row."""
        sides = (side for site in self.sites for side in (site.left, site.right))
        return sum(side.shape[1] for side in sides if side is not None)

    def mapped(self, change: Callable[[Tensor], Tensor]) -> Scaled:
        """The same factor, with each of its tensors changed."""
        return Scaled(tuple(site.mapped(change) for site in self.sites), self.shape)

    def to(self, dtype: torch.dtype) -> Scaled:
        """The same factor in ``dtype``."""
        return self.mapped(lambda x: x.to(dtype))

    def columns(self, first: int, last: int, within: slice) -> Scaled:
        """Rows ``first`` to ``last`` of the weight, and of those the columns ``within``."""
        cut = [
            Site(
                None if a is None else a[:, first:last],
                None if b is None else b[:, within],
                None if v is None else v[first:last, within],
            )
            for a, b, v in self.sites
        ]
        width = len(range(*within.indices(self.shape[1])))
        return Scaled(tuple(cut), (last - first, width))

    def slice(self, rows: slice | Tensor) -> Scaled:
        """Some rows only."""

        def some(x: Tensor | None) -> Tensor | None:
            return None if x is None else x[rows]

        return Scaled(tuple(Site(some(a), some(b), v) for a, b, v in self.sites), self.shape)

    def rows(self) -> Tensor:
        """Row gradients written out, (R, m * n)."""
        total: Tensor | None = None
        by_matrix: dict[int, list[Site]] = {}
        for site in self.sites:
            by_matrix.setdefault(id(site.matrix), []).append(site)
        for group in by_matrix.values():
            part = _written_out(group)
            total = part if total is None else total.add_(part)
        assert total is not None
        return total.expand(-1, *self.shape).flatten(1)

    def diagonal(self, dtype: torch.dtype) -> Tensor:
        """Squared norm of each row gradient, contracted in ``dtype``, (R,)."""
        sites, total = self.to(dtype).sites, torch.zeros((), dtype=dtype)
        for s, one in enumerate(sites):
            for other in sites[s:]:
                product = _row_products(one, other, self.shape)
                total = total.to(product.device) + (product if one is other else 2 * product)
        return total

    def matvec(self, vector: Tensor) -> Tensor:
        """Row gradients times a flattened weight, (m * n,) -> (R,)."""
        probe = Site(None, None, vector.view(self.shape))
        products = [_row_products(site, probe, self.shape) for site in self.sites]
        return torch.stack(products).sum(0)

    def rmatvec(self, vector: Tensor) -> Tensor:
        """Weighted sum of the row gradients, (R,) -> (m * n,)."""
        total = vector.new_zeros(self.shape)
        for left, right, matrix in self.sites:
            if left is not None and right is not None:
                part = (left * vector[:, None]).mT @ right
            elif left is not None:
                part = (vector @ left)[:, None]
            else:
                part = (vector @ _either(right, left))[None, :]
            total += part if matrix is None else part * matrix
        return total.flatten()

    def bilinear(self, a: Tensor, b: Tensor) -> Tensor:
        """a_k^T W_i b_k for k columns a (m, k) and b (n, k), (R, k)."""
        total: Tensor | None = None
        for k in range(a.shape[1]):
            column = self.matvec(torch.outer(a[:, k], b[:, k]).flatten())[:, None]
            total = column if total is None else torch.cat([total, column], 1)
        assert total is not None
        return total


def _written_out(sites: Sequence[Site]) -> Tensor:
    """Sum of sites with one matrix, (R, m, n)."""
    matrix = sites[0].matrix
    pairs = [(s.left, s.right) for s in sites if s.left is not None and s.right is not None]
    total: Tensor | None = None
    if pairs:
        lefts, rights = (torch.stack(side) for side in zip(*pairs, strict=True))
        total = lefts.permute(1, 2, 0) @ rights.permute(1, 0, 2)
        total = total if matrix is None else total.mul_(matrix)
    for left, right, _ in sites:
        if matrix is not None and (left is None or right is None):
            scale = right[:, None] if right is not None else _either(left, right)[:, :, None]
            total = scale * matrix if total is None else total.addcmul_(scale, matrix)
    assert total is not None
    return total


def reduces(one: Site, other: Site) -> str | None:
    """The factor that one of both lacks, so that the other can take in the fixed matrices."""
    if one.right is None or other.right is None:
        return "right"
    return "left" if one.left is None or other.left is None else None


def _row_products(one: Site, other: Site, shape: tuple[int, int]) -> Tensor:
    """Inner product of the gradients of both, row by row, (R,)."""
    left, right = _times(one.left, other.left), _times(one.right, other.right)
    weight = fixed_weight(one, other)
    if left is not None and right is not None:
        return left.sum(1) * right.sum(1) if weight is None else ((left @ weight) * right).sum(1)
    only, axis = (left, 1) if left is not None else (_either(right, left), 0)
    return only.sum(1) * shape[axis] if weight is None else only @ weight.sum(axis)


def fixed_weight(one: Site, other: Site) -> Tensor | None:
    """The product of both fixed matrices."""
    return _times(one.matrix, other.matrix)


def _times(a: Tensor | None, b: Tensor | None) -> Tensor | None:
    return b if a is None else a if b is None else a * b


def _either(a: Tensor | None, b: Tensor | None) -> Tensor:
    found = b if a is None else a
    assert found is not None
    return found


def outer_sites(left: Sequence[Tensor], right: Sequence[Tensor]) -> tuple[Site, ...]:
    """Outer products as sites."""
    return tuple(Site(a, b) for a, b in zip(left, right, strict=True))
