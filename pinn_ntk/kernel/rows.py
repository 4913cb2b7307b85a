"""Some rows of a kernel instead of all, so that the cost of blocks and spectra stays bounded."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor

from pinn_ntk.kernel.ntk import NTK


def thinned(kernel: NTK, max_points: int | Mapping[str, int]) -> NTK:
    """The kernel of at most ``max_points`` rows a term: rows 0, k, 2k, ... of its residual.

    The same kernel where no term has more; else its factors are views of the given ones.

    >>> from pinn_ntk import empirical_ntk
    >>> w = torch.tensor(1.0, requires_grad=True)
    >>> thinned(empirical_ntk(w * torch.arange(5.0), [w]), 3)["residual"].diag().tolist()
    [0.0, 4.0, 16.0]
    """
    most = dict.fromkeys(kernel.terms, max_points) if isinstance(max_points, int) else max_points
    if all(kernel.rows(term) <= most[term] for term in kernel.terms):
        return kernel
    strides = {term: strided_by(kernel.rows(term), most[term]) for term in kernel.terms}
    return kernel_of_rows(kernel, {term: slice(None, None, k) for term, k in strides.items()})


def strided_by(rows: int, max_points: int) -> int:
    """k of the rows 0, k, 2k, ... of which at most ``max_points`` remain."""
    return max(1, math.ceil(rows / max_points))


def kernel_of_rows(kernel: NTK, rows: Mapping[str, Tensor | slice]) -> NTK:
    """The kernel of the rows named, term -> indices (R_kept,); a term that is absent keeps all.

    Nothing is differentiated again, and there is no certificate.

    >>> from pinn_ntk import empirical_ntk
    >>> w = torch.tensor(1.0, requires_grad=True)
    >>> kernel = empirical_ntk(w * torch.arange(5.0), [w])
    >>> kernel_of_rows(kernel, {"residual": torch.tensor([1, 3])})["residual"].tolist()
    [[1.0, 3.0], [3.0, 9.0]]
    """
    return NTK(
        {term: kernel.jacobian(term).take(rows.get(term, slice(None))) for term in kernel.terms}
    )


def stratified_rows(rows: int, max_points: int, seed: int) -> Tensor:
    """One row drawn from each of ``max_points`` neighbouring strata of equal size, in order.

    Batches are often joined of parts (initial line, two boundaries), or repeat points at a fixed
    distance. Strata keep every part represented as to its size, which a plain draw does not; the
    draw within them keeps from hitting a period, which every k-th row may. The generator is seeded
    by itself; the indices are int64 on the CPU.

    >>> stratified_rows(6, 3, seed=0).tolist()  # one of 0 1, one of 2 3, one of 4 5
    [1, 3, 4]
    >>> stratified_rows(2, 3, seed=0).tolist()
    [0, 1]
    """
    if max_points < 1:
        raise ValueError(f"max_points is {max_points}; expected 1 or more rows to keep.")
    if rows <= max_points:
        return torch.arange(rows)
    edges = torch.arange(max_points + 1) * rows // max_points
    sizes = edges.diff()
    generator = torch.Generator().manual_seed(seed)
    place = torch.rand(max_points, generator=generator, dtype=torch.float64)
    return edges[:-1] + (place * sizes).long()
