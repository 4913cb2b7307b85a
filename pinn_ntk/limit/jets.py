"""Truncated Taylor series in several variables, of functions of one point or of two.

| symbol | meaning | shape |
| --- | --- | --- |
| A, B | multi-indices kept in the first and in the second point | |
| f(x + s) | sum over alpha in A of f_alpha s^alpha | (A, N) |
| f(x + s, x' + t) | sum over alpha in A, beta in B of f_alpha,beta s^alpha t^beta | (A, B, N, N') |

A derivative is alpha! f_alpha. A set holds with each multi-index all that are smaller, so that
products of truncated series are exact in what is kept. Index 0 is the value.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor

MultiIndex = tuple[int, ...]


class IndexSet:
    """One or more multi-indices with all that are smaller, zero first, in order of ``degree``."""

    def __init__(self, largest: Iterable[MultiIndex]) -> None:
        below = (itertools.product(*(range(n + 1) for n in index)) for index in largest)
        self.indices = sorted(set(itertools.chain(*below)), key=lambda index: (sum(index), index))
        self.degree = max(map(sum, self.indices))
        self._place = {index: place for place, index in enumerate(self.indices)}
        self._sums = [
            (i, j, self._place[total])
            for i, one in enumerate(self.indices)
            for j, other in enumerate(self.indices)
            if (total := tuple(map(sum, zip(one, other, strict=True)))) in self._place
        ]

    def __len__(self) -> int:
        return len(self.indices)

    def __contains__(self, index: object) -> bool:
        return index in self._place

    def place(self, index: MultiIndex) -> int:
        """Where a multi-index stands in a series."""
        return self._place[index]

    def multiply(self, one: Tensor, other: Tensor) -> Tensor:
        """Product of two series of one point, (A, ...)."""
        first, second, target = map(list, zip(*self._sums, strict=True))
        terms = one[first] * other[second]
        out = terms.new_zeros(len(self), *terms.shape[1:])
        return out.index_add_(0, torch.tensor(target, device=out.device), terms)

    def powers(self, change: Tensor) -> Tensor:
        """change^k for k = 0 ... degree, (degree + 1, A, N); change (A, N) is 0 at index 0."""
        one = torch.zeros_like(change)
        one[0] = 1
        powers = [one]
        for _ in range(self.degree):
            powers.append(self.multiply(powers[-1], change))
        return torch.stack(powers)


def multiply(one: Tensor, other: Tensor, first: IndexSet, second: IndexSet) -> Tensor:
    """Product of two series of two points, (A, B, N, N'); ``first`` is A and ``second`` is B."""
    out = torch.zeros_like(one)
    for i, j, k in first._sums:
        out[k] += second.multiply(one[i], other[j])
    return out


def compose_own(derivatives: Tensor, variance: Tensor, indices: IndexSet) -> Tensor:
    """A function f of the variance alone, as a series (A, N), from that of q.

    ``derivatives`` are f^(k) at the value of q for k = 0 ... degree, (degree + 1, N).
    """
    return torch.einsum("kn,kan->an", derivatives, _taylor_powers(variance, indices))


def compose(
    expectations: Tensor,
    shift: int,
    variances: tuple[Tensor, Tensor],
    covariance: Tensor,
    sets: tuple[IndexSet, IndexSet],
) -> Tensor:
    """E_shift,shift as a series (A, B, N, N'), from the series of q, q' and c.

    The Taylor series of E_ij in (q, c, q') is made of other E_ij: see `pinn_ntk.limit.duals`.
    ``expectations`` are E_ij at the values of q (A, N), c (A, B, N, N') and q' (B, N'), (I, J, N,
    N'), with I at least 2 a + b + 1 + shift and J at least a + 2 b + 1 + shift for sets of degrees
    a and b; ``shift`` is 0 or 1.
    """
    total = sets[0].degree + sets[1].degree
    left, right = (_taylor_powers(q / 2, kept) for q, kept in zip(variances, sets, strict=True))
    change = covariance.clone()
    change[0, 0] = 0
    series = torch.zeros_like(covariance)
    for order in range(total, -1, -1):  # Horner's rule in the change of c
        if order < total:
            series = multiply(series, change, *sets)
        start, rest = order + shift, total - order
        k, m = min(sets[0].degree, rest) + 1, min(sets[1].degree, rest) + 1
        block = expectations[start : start + 2 * k - 1 : 2, start : start + 2 * m - 1 : 2]
        inner = torch.einsum("kmnp,mbp->kbnp", block, right[:m])
        series += torch.einsum("kbnp,kan->abnp", inner, left[:k]) / math.factorial(order)
    return series


def derivatives(indices: Sequence[MultiIndex], like: Tensor) -> Tensor:
    """alpha! of each multi-index: what turns coefficients into derivatives, (A,)."""
    return like.new_tensor([math.prod(map(math.factorial, index)) for index in indices])


def _taylor_powers(series: Tensor, indices: IndexSet) -> Tensor:
    """change^k / k! of a series (A, N) without its value, (degree + 1, A, N)."""
    change = series.clone()
    change[0] = 0
    scale = change.new_tensor([1 / math.factorial(k) for k in range(indices.degree + 1)])
    return indices.powers(change) * scale[:, None, None]
