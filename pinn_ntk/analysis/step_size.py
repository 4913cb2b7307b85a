"""The largest stable step of gradient descent, from the kernel and the weights of the loss.

With D the curvature of the loss (`pinn_ntk.graph.terms.curvature` has the notation), the gradient
flow of a sum of weighted squares is dr/dt = -K D r (Wang, Yu, Perdikaris 2022, eq. 6.3), and
gradient descent is stable below 2 / lambda_max(D^(1/2) K D^(1/2)).
"""

from __future__ import annotations

import math
from collections.abc import Mapping

from torch import Tensor

from pinn_ntk.kernel.ntk import NTK
from pinn_ntk.kernel.rows import strided_by
from pinn_ntk.kernel.spectrum import largest_eigenvalue


def max_stable_lr(
    kept: NTK,
    kernel: NTK,
    curvature: Mapping[str, Tensor],
    rows_kept: Mapping[str, Tensor] | None = None,
) -> float:
    """2 / lambda_max of D^(1/2) K D^(1/2): above it gradient descent diverges; inf for K = 0.

    ``kept`` is the kernel of the rows kept, ``rows_kept`` are their indices, (R_kept,), every k-th
    where left out; ``curvature`` is D of all rows of ``kernel``, (R_a,). Where rows were left out,
    each one stands for R_a / R_kept of them, and the result is an estimate.
    """
    of_kernel = {term: curvature[term] for term in kernel.terms}
    weights = _weights_kept(kept, kernel, of_kernel, rows_kept)
    top = largest_eigenvalue(kept.weighted_matrix(weights))
    return 2 / top if top else math.inf


def _weights_kept(
    kept: NTK, kernel: NTK, curvature: Mapping[str, Tensor], rows_kept: Mapping[str, Tensor] | None
) -> dict[str, Tensor]:
    """D of the rows kept, each of which stands for R_a / R_kept of them."""
    weights = {}
    for term, D in curvature.items():
        share = kernel.sampled(term)[1] / kept.rows(term)
        rows: slice | Tensor = slice(None, None, strided_by(kernel.rows(term), kept.rows(term)))
        if rows_kept is not None:
            rows = rows_kept[term].to(D.device) if term in rows_kept else slice(None)
        weights[term] = D[rows] * share
    return weights
