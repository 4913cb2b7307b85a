"""Rows of a residual that the parameters cannot tell apart, and accidental broadcasting.

| symbol | meaning | shape |
| --- | --- | --- |
| J_i | gradient of row i, d r_i / d theta | (P,) |
| K_ij | J_i^T J_j | (R, R) |
| d_ij | K_ii + K_jj - 2 K_ij, squared distance of J_i and J_j | (R, R) |

Rows at distance zero cannot be told apart by training: they are one row with several targets. Of
very many rows see `pinn_ntk.analysis.distinct_rows`.

A difference of a column (N, 1) and a row (N,) is a matrix (N, N) that nobody wanted. Its rows are
r_ij = a_i + b_j, so that all contrasts r_ij - r_il - r_kj + r_kl have no gradient. What is left of
K once the sums of that form are taken out, tr(P K) with P = (I - 1 1^T / N) x (I - 1 1^T / N), is
zero to rounding, and that is looked for. Where only one of a and b has a gradient, rows are equal
by the row or column, and it hardly is meant. Where both have, it may be: outputs that share all
but their last biases are of this form, and nothing in J tells them from an accident.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Sequence
from typing import NamedTuple

import torch
from torch import Tensor

from pinn_ntk.graph.broadcast import SMALLEST, by_accident
from pinn_ntk.kernel.jacobian import FactoredJacobian
from pinn_ntk.kernel.tsqr import factor_precision

_MARGIN = 32
"""Rounding units by which two equal rows may differ; ten times what was seen."""

SIDE = 12
"""Rows and columns of an (N, N) residual that are looked at."""


def rounding(jacobian: FactoredJacobian) -> float:
    """Squared distance of two rows that are the same but for rounding, relative to their size.

    The larger of what the contraction and what the factors bring.
    """
    formed = _MARGIN * 8 * torch.finfo(jacobian.dtype).eps
    return max(formed, float((_MARGIN * factor_precision([jacobian])) ** 2))


def first_alike(block: Tensor, tolerance: float) -> Tensor:
    """For each row of K (R, R) the first one that it cannot be told from, itself or earlier, (R,).

    Two rows are one where d_ij is at most ``tolerance`` (K_ii + K_jj), see `rounding`.
    """
    sizes = block.diagonal()
    sums = sizes[:, None] + sizes
    alike = sums - block - block.mT <= tolerance * sums
    alike.fill_diagonal_(True)
    return alike.to(torch.uint8).argmax(1)  # of several maxima the first


def duplicated_rows(
    block: Tensor, tolerance: float, still: Collection[int] = ()
) -> tuple[tuple[int, ...], ...]:
    """Groups of rows of K (R, R) that cannot be told apart, without those that stand ``still``."""
    groups: dict[int, list[int]] = {}
    for row, first in enumerate(first_alike(block, tolerance).tolist()):
        if row not in still:
            groups.setdefault(first, []).append(row)
    return tuple(tuple(group) for group in groups.values() if len(group) > 1)


def still_rows(block: Tensor, precision: float) -> frozenset[int]:
    """Rows of K (R, R) that no parameter moves, or so little that it may be what rounding leaves.

    >>> sorted(still_rows(torch.diag(torch.tensor([1.0, 0.0, 1e-3])), 1e-7))
    [1]
    """
    sizes = block.diagonal()
    bound = (_MARGIN * precision) ** 2 * float(sizes.max())
    return frozenset(torch.nonzero(sizes <= bound).flatten().tolist())


class Additive(NamedTuple):
    """A residual (N, M) whose rows are r_ij = a_i + b_j."""

    shape: tuple[int, int]
    certain: bool  # an accident: only one of a and b has a gradient, and nobody wants N M rows then


def additive_form(
    jacobian: FactoredJacobian, shape: Sequence[int] | None = None
) -> Additive | None:
    """Whether a residual looks like a column minus a row, and whether that must be an accident.

    Rows of J are row-major. Of a large residual a sample of `SIDE` times `SIDE` entries is looked
    at. Where the shape is not known, the residual is taken for a square if R is a square number of
    at least 9. Where the distinct rows are not N, M or N M as for different points, rows are equal
    for another reason, and there is no form.

    >>> from pinn_ntk import empirical_ntk
    >>> w, b = (torch.ones(n, requires_grad=True) for n in ((), (3,)))
    >>> u = w * torch.tensor([[1.0], [2.0], [3.0], [4.0]]) + b  # three components
    >>> tuple(additive_form(empirical_ntk(u, [w, b]).jacobian("residual"), u.shape))
    ((4, 3), False)
    >>> accident = w * torch.tensor([[1.0], [2.0], [3.0], [4.0]]) - torch.zeros(3)
    >>> tuple(additive_form(empirical_ntk(accident, [w]).jacobian("residual"), accident.shape))
    ((4, 3), True)
    """
    if shape is None:
        side = math.isqrt(jacobian.rows)
        sides = (side, side) if side**2 == jacobian.rows else (1, 1)
    else:
        long = [size for size in shape if size > 1]
        sides = (long[0], long[1]) if len(long) == 2 else (1, 1)
    if min(sides) < SMALLEST:
        return None
    rows, columns = (_spread(size) for size in sides)
    picked = (rows[:, None] * sides[1] + columns).flatten().to(jacobian.device)
    block = jacobian.take(picked).gram()
    tolerance = rounding(jacobian)
    n, m = len(rows), len(columns)
    if not _is_sum(block.reshape(n, m, n, m), tolerance):
        return None
    distinct = len(set(first_alike(block, tolerance).tolist()))
    return Additive(sides, distinct != n * m) if distinct in {n, m, n * m} else None


def additive_cause(term: str, shape: tuple[int, int], *, certain: bool) -> str:
    """What is the matter with the rows of a term of such a form, in a sentence."""
    n, m = shape
    if not certain:
        return (
            f"The {n * m} rows of {term}, ({n}, {m}), are sums a_i + b_j, of rank {n + m - 1} at "
            "most: components that differ by a shift, or a difference that was broadcast by "
            "accident; check shapes of prediction and target."
        )
    return (
        f"The {n * m} rows of {term} look like those of a difference that was {by_accident(n, m)}."
    )


def _spread(size: int) -> Tensor:
    """Indices of at most `SIDE` evenly spread places."""
    return torch.linspace(0, size - 1, min(size, SIDE)).round().long()


def _is_sum(kernel: Tensor, tolerance: float) -> bool:
    """Whether every row r_ij is a_i + b_j, from K of the shape (n, m, n, m)."""
    n, m = kernel.shape[:2]
    whole = torch.einsum("ijij->", kernel)
    same_row, same_column = torch.einsum("ijil->", kernel) / m, torch.einsum("ijkj->", kernel) / n
    left = whole - same_row - same_column + kernel.sum() / (n * m)  # tr(P K)
    return bool(whole > 0) and bool(left <= tolerance * whole)
