"""Rows that stand for all rows of a residual, where measuring all would take too long or too much.

| symbol | meaning |
| --- | --- |
| R | rows of the residual |
| c | strata of neighbouring points, of each of which one point is drawn |
| n_h | points of stratum h |
| y_h | sum of K_ii over the rows of the point drawn there |

Tr K = sum_h n_h y_h is unbiased. Its variance is estimated from neighbouring strata as if they were
one, (1 - c / N) c / (2 (c - 1)) sum_h (n_h y_h - n_(h+1) y_(h+1))^2 with N = sum_h n_h, which is
exact for a plain random order of rows, and too large rather than too small for any other (Wolter
2007, Introduction to Variance Estimation, section 8.2, there for systematic samples).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pinn_ntk.kernel.strata import stratified_rows

SEED = 0x5A17
"""Seed of the rows that are drawn: the same at each measurement."""

FEW = 4
"""Rows of each term that are measured whatever it costs."""


@dataclass(frozen=True)
class Sample:
    """The rows drawn of one residual.

    Attributes:
        rows: Their places in the flattened residual, (r,), those of one point together.
        total: R.
        sizes: n_h, (c,) float64; each point drawn has r / c rows.

    Example:
        >>> sample = Sample(torch.tensor([1, 2]), 4, torch.tensor([2.0, 2.0]))
        >>> sample.estimate(torch.tensor([1.0, 3.0]))  # 2 * 1 + 2 * 3
        8.0
        >>> round(sample.error(torch.tensor([1.0, 3.0])), 3)  # sqrt((1 - 2 / 4) (2 - 6)^2)
        2.828
    """

    rows: Tensor
    total: int
    sizes: Tensor

    @classmethod
    def drawn(cls, shape: torch.Size, most: int, *, whole_points: bool = False) -> Sample | None:
        """At most ``most`` entries of a residual, evenly spread; None where all of them are few.

        With ``whole_points`` all entries of one place along the longest axis come together, as
        the components of a point do.
        """
        total = shape.numel()
        if total <= most:
            return None
        axis = max(range(len(shape)), key=lambda i: shape[i])
        each = total // shape[axis]
        if not whole_points or most < FEW * each:
            axis, each, shape = 0, 1, torch.Size([total])
        points = max(1, most // each)
        picked = stratified_rows(shape[axis], points, SEED)
        rows = torch.arange(total).view(shape).movedim(axis, 0)[picked].flatten()
        return cls(rows, total, _strata(shape[axis], points).double())

    @property
    def each(self) -> int:
        """Rows of each point drawn."""
        return len(self.rows) // len(self.sizes)

    def fewer(self, most: int) -> tuple[Tensor, Sample]:
        """Places of at most ``most`` of the rows drawn, (r',), and the sample that they are."""
        picked = stratified_rows(len(self.rows), most, SEED + 1)
        stands_for = self.sizes.repeat_interleave(self.each)
        strata = torch.arange(len(picked)).repeat_interleave(_strata(len(self.rows), len(picked)))
        sizes = torch.zeros(len(picked), dtype=torch.float64).index_add_(0, strata, stands_for)
        return picked, Sample(self.rows[picked], self.total, sizes)

    def estimate(self, values: Tensor) -> float:
        """Sum over all R rows of what is known of the rows drawn, (r,)."""
        return float(self._by_stratum(values).sum())

    def error(self, values: Tensor) -> float:
        """Standard error of `estimate`; inf for a single point."""
        by_stratum, count = self._by_stratum(values), len(self.sizes)
        if count < 2:
            return math.inf
        left_out = max(0.0, 1 - count / float(self.sizes.sum()))
        squares = float(by_stratum.diff().square().sum())
        return math.sqrt(left_out * count / (2 * (count - 1)) * squares)

    def _by_stratum(self, values: Tensor) -> Tensor:
        sums = values.detach().cpu().double().view(len(self.sizes), -1).sum(1)
        return sums * self.sizes


def _strata(rows: int, count: int) -> Tensor:
    """Sizes of the strata of `stratified_rows`, (count,)."""
    return (torch.arange(count + 1) * rows // count).diff()


def shared_out(wanted: Mapping[str, int], total: int, least: int = FEW) -> dict[str, int]:
    """Rows of each term, ``total`` together: those who want little get it, others equal shares.

    Each gets ``least`` or what it wants, be the sum larger.

    >>> shared_out({"pde": 100, "bc": 10, "ic": 50}, 60)
    {'pde': 25, 'bc': 10, 'ic': 25}
    """
    given: dict[str, int] = {}
    for term in sorted(wanted, key=wanted.__getitem__):
        share = max(least, total // (len(wanted) - len(given)))
        given[term] = min(wanted[term], share)
        total = max(0, total - given[term])
    return {term: given[term] for term in wanted}
