"""Eigenvalues of a kernel block, with the noise floor below which they mean nothing.

| symbol | meaning | shape |
| --- | --- | --- |
| J | d r / d theta | (R, P) |
| K | J J^T, or D^(1/2) J J^T D^(1/2) | (R, R) |
| lambda_i, v_i | eigenvalues, largest first, and eigenvectors of K | (R,), (R, R) |
| sigma_i | singular values of J, lambda_i = sigma_i^2 | (min(R, P),) |
| eps | rounding unit of the dtype in which K, or the singular values, were computed | |
| eps_J | rounding unit of the dtype of the model, in which J was captured | |

PINN kernels are numerically low rank: more than half of what an eigensolver returns for them can
be rounding noise. Every statistic here uses only what lies above the floor, which is, in units of
lambda_max, the larger of two:

- R eps where K was formed, (R eps)^2 where the eigenvalues are squares of singular values of J:
  forming K costs half of the digits;
- R eps_J^2: J is off by eps_J sqrt(R) sigma_max in norm, whatever is made of it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from pinn_ntk.kernel.decay import Decay
from pinn_ntk.kernel.jacobian import FactoredJacobian
from pinn_ntk.kernel.tsqr import factor_precision, triangular_factor

DIRECT = 200
"""Rows up to which the largest eigenvalue is found among all of them."""

NOT_FINITE = (
    "the Jacobian holds NaN or inf, so the kernel has no eigenvalues. Likely the residual is "
    "finite and its derivative is not, as of a square root or a norm at 0: kernel.diagonal(term)."
)


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of a symmetric positive semidefinite kernel block.

    Attributes:
        eigenvalues: All of them, largest first, (R,). Those below the floor are noise.
        floor: Size of the rounding noise in the eigenvalues.
        eigenvectors: Orthonormal, column i belongs to eigenvalue i, (R, R); None unless asked
            for. Those of eigenvalues below the floor are some basis of what is left.

    Example:
        >>> spectrum = Spectrum.of(torch.diag(torch.tensor([4.0, 2.0, 1e-20])).double())
        >>> spectrum.rank, spectrum.lambda_max, spectrum.condition
        (2, 4.0, 2.0)
        >>> round(spectrum.effective_rank, 6)  # (4 + 2)^2 / (4^2 + 2^2)
        1.8
        >>> spectrum.stable_rank  # (4 + 2) / 4
        1.5
    """

    eigenvalues: Tensor
    floor: float
    eigenvectors: Tensor | None = None

    @classmethod
    def of(
        cls, kernel: Tensor, *, eigenvectors: bool = False, precision: float | None = None
    ) -> Spectrum:
        """Spectrum of a kernel block that was formed.

        Args:
            kernel: Symmetric positive semidefinite up to rounding, (R, R).
            eigenvectors: Whether to keep them; about three times the work.
            precision: eps_J; that of ``kernel`` when left out. The floor also follows the dtype in
                which ``kernel`` was contracted.

        Raises:
            ValueError: ``kernel`` is not square.
        """
        if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1]:
            raise ValueError(
                f"expected a square block (R, R), got {tuple(kernel.shape)}; the spectrum of a "
                "cross block is not defined, take kernel[a] or kernel.matrix()."
            )
        values, vectors = _eigensystem((kernel + kernel.mT) / 2, vectors=eigenvectors)
        top = max(float(values[-1]), 0.0)
        noise = max(torch.finfo(kernel.dtype).eps, (precision or 0.0) ** 2)
        floor = len(values) * noise * top
        return cls(values.flip(0), floor, None if vectors is None else vectors.flip(1))

    @classmethod
    def of_jacobians(
        cls,
        jacobians: Sequence[FactoredJacobian],
        scale: Tensor | None = None,
        *,
        eigenvectors: bool = False,
    ) -> Spectrum:
        """Spectrum of the kernel of Jacobians below one another, from their singular values.

        Neither the kernel nor the whole Jacobian is formed, see `pinn_ntk.kernel.tsqr`. Twice as
        many decades of eigenvalues come out right as from the kernel.

        Args:
            jacobians: One or more, over the same parameters, R rows in all.
            scale: Factor of each row, (R,): D^(1/2) for the weighted kernel D^(1/2) K D^(1/2).
            eigenvectors: Whether to keep them. No eigenvalue comes out negative.

        Raises:
            ValueError: A Jacobian holds NaN or inf.
        """
        triangle = triangular_factor(jacobians, scale)
        if not bool(torch.isfinite(triangle).all()):
            raise ValueError(NOT_FINITE)
        sigma, vectors = _singular_system(triangle, vectors=eigenvectors)
        rows = triangle.shape[1]
        values = torch.zeros(rows, dtype=triangle.dtype, device=triangle.device)
        values[: len(sigma)] = sigma.square()
        floor = floor_of_triangle(rows, triangle.dtype, factor_precision(jacobians))
        return cls(values, floor * float(values[:1].sum()), vectors)

    @property
    def above_floor(self) -> Tensor:
        """The eigenvalues that stand out of the noise, largest first, (rank,)."""
        return self.eigenvalues[self.eigenvalues > self.floor]

    @property
    def rank(self) -> int:
        """Number of eigenvalues above the floor."""
        return len(self.above_floor)

    @property
    def lambda_max(self) -> float:
        """Largest eigenvalue; 0 for a zero kernel."""
        return max(float(self.eigenvalues[0]), 0.0)

    @property
    def trace(self) -> float:
        """Sum of all eigenvalues."""
        return float(self.eigenvalues.sum())

    @property
    def effective_rank(self) -> float:
        """Participation ratio Tr^2 / ||K||_F^2 of the eigenvalues above the floor; 0 for none."""
        kept = self.above_floor
        share = kept / kept[:1]  # squares of the eigenvalues themselves may overflow
        return float(share.sum() ** 2 / share.square().sum()) if len(kept) else 0.0

    @property
    def stable_rank(self) -> float:
        """||J||_F^2 / ||J||_2^2 = sum lambda_i / lambda_max above the floor; 0 for none.

        Rudelson and Vershynin 2007, Journal of the ACM 54 (4), article 21, there called numerical
        rank. At most the rank, and moved little by small eigenvalues.
        """
        kept = self.above_floor
        return float(kept.sum() / kept[0]) if len(kept) else 0.0

    @property
    def entropy_rank(self) -> float:
        """exp(-sum p_i log p_i) with p_i = lambda_i / sum lambda above the floor; 0 for none.

        Roy and Vetterli 2007, European Signal Processing Conference, p. 606, of the kernel.
        """
        kept = self.above_floor
        share = kept / kept.sum()
        return float(torch.exp(-(share * share.log()).sum())) if len(kept) else 0.0

    @property
    def condition(self) -> float:
        """Largest over smallest eigenvalue above the floor; NaN for none."""
        kept = self.above_floor
        return float(kept[0] / kept[-1]) if len(kept) else math.nan

    @property
    def decay(self) -> Decay | None:
        """Power law and exponential through the eigenvalues above the floor; None for fewer than 3.

        A floor cuts the tail off, so the fit says how the resolvable part falls.
        """
        return Decay.of(self.above_floor)


def floor_of_triangle(rows: int, dtype: torch.dtype, precision: float) -> float:
    """Noise in squared singular values of J, in units of the largest: max((R eps)^2, R eps_J^2)."""
    return float(max((rows * torch.finfo(dtype).eps) ** 2, rows * precision**2))


def largest_eigenvalue(symmetric: Tensor) -> float:
    """Largest eigenvalue of a positive semidefinite (R, R), symmetric up to rounding; 0 of zeros.

    Above `DIRECT` rows by the Lanczos method on the CPU, from a start vector that is always the
    same, so that the result is; to the accuracy of the direct method.
    """
    if not bool(torch.isfinite(symmetric).all()):
        raise ValueError(
            f"a matrix of shape {tuple(symmetric.shape)} holds NaN or inf and has no eigenvalues. "
            "Likely a weight of the loss has overflowed."
        )
    top = _lanczos(symmetric) if len(symmetric) > DIRECT else None
    if top is None:
        values, _ = _eigensystem((symmetric + symmetric.mT) / 2, vectors=False)
        top = float(values[-1])
    return max(top, 0.0)


def _lanczos(symmetric: Tensor) -> float | None:
    """The largest eigenvalue; None where the method does not converge."""
    from scipy.sparse.linalg import ArpackError, eigsh

    matrix = symmetric.double().cpu().numpy()
    scale = float(abs(matrix).max())
    if not scale:
        return 0.0
    start = np.random.default_rng(0).standard_normal(len(matrix))
    try:
        top = eigsh(matrix / scale, k=1, which="LA", v0=start, return_eigenvectors=False)
    except ArpackError:
        return None
    return scale * float(top[0])


def _eigensystem(symmetric: Tensor, *, vectors: bool) -> tuple[Tensor, Tensor | None]:
    """Eigenvalues, smallest first, and eigenvectors if asked for; on the CPU if all else fails."""

    def solved(matrix: Tensor) -> Sequence[Tensor]:
        return torch.linalg.eigh(matrix) if vectors else (torch.linalg.eigvalsh(matrix),)

    try:
        found = solved(symmetric)
    except RuntimeError:
        if symmetric.device.type == "cpu":
            raise
        found = [x.to(symmetric.device) for x in solved(symmetric.cpu())]
    return found[0], found[1] if vectors else None


def _singular_system(triangle: Tensor, *, vectors: bool) -> tuple[Tensor, Tensor | None]:
    """Singular values, largest first, and right singular vectors as columns if asked for."""
    # On the CPU, whatever the device: a Jacobi solver of the device would be as accurate, but what
    # torch picks there depends on the size, and has failed on matrices that lack rank.
    if not vectors:
        return torch.linalg.svdvals(triangle.cpu()).to(triangle.device), None
    _, sigma, right = torch.linalg.svd(triangle.cpu(), full_matrices=True)
    return sigma.to(triangle.device), right.mT.to(triangle.device)
