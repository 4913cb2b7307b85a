"""Sites (kernel/scaled.py) multiplied entry by entry with a matrix, and summed along an axis."""

from __future__ import annotations

import torch
from torch import Tensor

from pinn_ntk.kernel.scaled import Site


def as_matrix(shape: torch.Size) -> tuple[int, int] | None:
    """Rows and columns of a tensor, the first axis and the others; None for a vector."""
    return None if len(shape) < 2 else (shape[0], shape[1:].numel())


def weighted(site: Site, weight: Tensor) -> Site:
    """The site times ``weight`` (m, n), which is taken into ``left`` or ``right`` if it can be."""
    if bool((weight == weight[:, :1]).all()):
        return _rows_scaled(site, weight[:, 0])
    if bool((weight == weight[:1]).all()):
        return _rows_scaled(site.transposed(), weight[0]).transposed()
    if site.is_outer and site.left is not None and site.right is not None:
        if _choose_one(site.left):
            return site._replace(right=site.right * ((site.left != 0).to(weight) @ weight))
        if _choose_one(site.right):
            return site._replace(left=site.left * ((site.right != 0).to(weight) @ weight.mT))
    return site._replace(matrix=weight if site.matrix is None else site.matrix * weight)


def _choose_one(factor: Tensor) -> bool:
    """Whether every row of the residual takes one row (column) of the weight alone, or none."""
    return bool(((factor != 0).sum(1) <= 1).all())


def _rows_scaled(site: Site, by: Tensor) -> Site:
    if site.left is not None:
        return site if bool((by == 1).all()) else site._replace(left=site.left * by)
    assert site.matrix is not None
    return site._replace(matrix=site.matrix * by[:, None])


def row_sums(site: Site, weight: Tensor) -> Tensor:
    """Sums along the rows of the site times ``weight`` (m, n), (R, m)."""
    left, right, matrix = site
    weight = weight if matrix is None else weight * matrix
    if right is None:
        assert left is not None
        return left * weight.sum(1)
    sums = right @ weight.mT
    return sums if left is None else left * sums


def column_sums(site: Site, weight: Tensor) -> Tensor:
    """Sums along the columns of the site times ``weight`` (m, n), (R, n)."""
    return row_sums(site.transposed(), weight.mT)
