"""Some rows of a kernel instead of all, so that the cost of blocks and spectra stays bounded."""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from pinn_ntk.kernel.ntk import NTK


def thinned(kernel: NTK, max_points: int | Mapping[str, int]) -> NTK:
    """The kernel of at most ``max_points`` rows a term: rows 0, k, 2k, ... of its residual.

    The same kernel where no term has more; else its factors are views of the given ones.

    >>> import torch
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

    >>> import torch
    >>> from pinn_ntk import empirical_ntk
    >>> w = torch.tensor(1.0, requires_grad=True)
    >>> kernel = empirical_ntk(w * torch.arange(5.0), [w])
    >>> kernel_of_rows(kernel, {"residual": torch.tensor([1, 3])})["residual"].tolist()
    [[1.0, 3.0], [3.0, 9.0]]
    """
    return NTK(
        {term: kernel.jacobian(term).take(rows.get(term, slice(None))) for term in kernel.terms}
    )
