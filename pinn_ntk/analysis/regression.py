"""Kernel regression with the neural tangent kernel: where training of a wide network ends.

| symbol | meaning | shape |
| --- | --- | --- |
| X, Y | points and targets of the terms that are fitted | (R,) targets |
| f(x, 0) | outputs of the network at the start, of every term | (R_a,) |
| K(x, X) | cross kernel of a term with those that are fitted | (R_a, R) |
| lambda | ridge | () |

    f(x) = f(x, 0) + K(x, X) (K(X, X) + lambda I)^-1 (Y - f(X, 0))

An "output" is whatever the kernel was taken of, f itself or an operator of it such as u_xx, and
its target is what the loss compares it with. lambda is added to K itself: with the loss
w sum (f - Y)^2 + rho/2 |theta - theta(0)|^2 it is rho / (2 w), and for a Gaussian process of
covariance K it is the variance of the noise.

Source: Jacot, Gabriel, Hongler 2018, section 5, for lambda = 0; Rasmussen and Williams 2006,
Gaussian Processes for Machine Learning, eq. 2.25.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import partial

import torch
from torch import Tensor

from pinn_ntk.analysis.row_values import row_values
from pinn_ntk.kernel.ntk import NTK
from pinn_ntk.kernel.spectrum import Spectrum
from pinn_ntk.kernel.tsqr import factor_precision


def kernel_regression(
    kernel: NTK,
    targets: Mapping[str, Tensor],
    starts: Mapping[str, Tensor] | None = None,
    ridge: float = 0.0,
) -> dict[str, Tensor]:
    """Fit the targets of some terms, and predict all terms of a kernel.

    All rows that are fitted weigh the same; see `LinearizedTraining.limit` for weighted losses.

    Args:
        kernel: Kernel of the outputs, at points with targets and at others.
        targets: Term -> Y, of any shape with R_a entries; the terms that are fitted.
        starts: Term -> f(x, 0), of any shape with R_a entries; 0 for a term that is absent, of
            which then the change f(x) - f(x, 0) comes out.
        ridge: lambda. For 0, or one below the noise floor of the kernel, modes below the floor
            stay as they were: the pseudo-inverse.

    Returns:
        Term -> f, (R_a,), of all terms of the kernel.

    Raises:
        KeyError: A term is not in the kernel.
        ValueError: Nothing is fitted, ``ridge`` is negative, or targets or starts have a wrong
            shape or are not finite.

    Example:
        >>> from pinn_ntk import empirical_ntk
        >>> w = torch.tensor(0.0, requires_grad=True, dtype=torch.float64)
        >>> kernel = empirical_ntk({"data": w * torch.ones(2).double(), "unseen": 3 * w}, [w])
        >>> targets = {"data": torch.tensor([1.0, 3.0])}
        >>> round(kernel_regression(kernel, targets)["unseen"].item(), 6)  # w = 2
        6.0
        >>> round(kernel_regression(kernel, targets, ridge=2.0)["unseen"].item(), 6)  # w = 1
        3.0
    """
    checked = partial(row_values, kernel, expected="one for each row of the kernel")
    start = {term: checked(term, f, "start") for term, f in (starts or {}).items()}
    wanted = {term: checked(term, y, "target") for term, y in targets.items()}
    if not wanted or not 0 <= ridge < math.inf:
        raise ValueError(
            f"expected targets of at least one term and a ridge of 0 or more, got targets of "
            f"{list(wanted)} and a ridge of {ridge}."
        )
    gap = torch.cat([y - start.get(term, 0.0) for term, y in wanted.items()])
    blocks = {b: torch.cat([kernel[b, a] for a in wanted], 1) for b in kernel}  # (R_b, R)
    precision = factor_precision([kernel.jacobian(term) for term in wanted])
    dual = _solved(torch.cat([blocks[term] for term in wanted]), gap, ridge, precision)
    return {b: start.get(b, 0.0) + block @ dual for b, block in blocks.items()}


def _solved(matrix: Tensor, gap: Tensor, ridge: float, precision: float) -> Tensor:
    """(K + lambda I)^-1 gap, or what stands above the floor of it, (R,)."""
    symmetric = (matrix + matrix.mT) / 2
    if ridge > 0:
        shifted = symmetric + ridge * torch.eye(len(gap), dtype=gap.dtype, device=gap.device)
        factor, failed = torch.linalg.cholesky_ex(shifted)
        noise = len(gap) * torch.finfo(gap.dtype).eps * float(symmetric.diagonal().sum())
        if not int(failed) and ridge > noise:
            return torch.cholesky_solve(gap[:, None], factor)[:, 0]
    spectrum = Spectrum.of(symmetric, eigenvectors=True, precision=precision)
    assert spectrum.eigenvectors is not None
    kept = spectrum.eigenvectors[:, : spectrum.rank]
    return kept @ ((kept.mT @ gap) / (spectrum.above_floor + ridge))
