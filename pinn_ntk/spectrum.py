"""Eigenvalues of a kernel block, with the noise floor below which they mean nothing.

PINN kernels are numerically low rank: more than half of what an eigensolver returns for them can
be rounding noise. Every statistic here uses only what lies above the floor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

DIRECT = 200
"""Rows up to which the largest eigenvalue is found among all of them."""


@dataclass(frozen=True)
class Spectrum:
    """Eigenvalues of a symmetric positive semidefinite kernel block.

    Attributes:
        eigenvalues: All of them, largest first, (R,). Those below the floor are noise.
        floor: Size of the rounding noise, R * eps * lambda_max.

    Example:
        >>> spectrum = Spectrum.of(torch.diag(torch.tensor([4.0, 2.0, 1e-20])).double())
        >>> spectrum.rank, spectrum.lambda_max, spectrum.condition
        (2, 4.0, 2.0)
        >>> round(spectrum.effective_rank, 6)  # (4 + 2)^2 / (4^2 + 2^2)
        1.8
    """

    eigenvalues: Tensor
    floor: float

    @classmethod
    def of(cls, kernel: Tensor) -> Spectrum:
        """Spectrum of a kernel block.

        Args:
            kernel: Symmetric positive semidefinite up to rounding, (R, R).

        Returns:
            Its spectrum; the floor follows the dtype in which ``kernel`` was contracted.

        Raises:
            ValueError: ``kernel`` is not square.
        """
        if kernel.ndim != 2 or kernel.shape[0] != kernel.shape[1]:
            raise ValueError(
                f"expected a square block (R, R), got {tuple(kernel.shape)}; the spectrum of a "
                "cross block is not defined, take kernel[a] or kernel.matrix()."
            )
        symmetric = (kernel + kernel.mT) / 2
        eigenvalues = _eigvalsh(symmetric).flip(0)
        top = max(float(eigenvalues[0]), 0.0)
        return cls(eigenvalues, len(eigenvalues) * torch.finfo(kernel.dtype).eps * top)

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
        return float(kept.sum() ** 2 / kept.square().sum()) if len(kept) else 0.0

    @property
    def condition(self) -> float:
        """Largest over smallest eigenvalue above the floor; NaN for none."""
        kept = self.above_floor
        return float(kept[0] / kept[-1]) if len(kept) else math.nan


def largest_eigenvalue(symmetric: Tensor) -> float:
    """Largest eigenvalue of a symmetric positive semidefinite matrix; 0 for a zero one.

    Above `DIRECT` rows by the Lanczos method on the CPU, from a start vector that is always the
    same, so that the result is; to the accuracy of the direct method.

    Args:
        symmetric: Symmetric up to rounding, (R, R).

    Returns:
        The eigenvalue, none below 0.

    Raises:
        ValueError: A matrix holds NaN or inf.

    Example:
        >>> largest_eigenvalue(torch.diag(torch.tensor([1.0, 5.0, 2.0])))
        5.0
    """
    if not bool(torch.isfinite(symmetric).all()):
        raise ValueError(
            f"a matrix of shape {tuple(symmetric.shape)} holds NaN or inf and has no eigenvalues. "
            "Likely a weight of the loss has overflowed."
        )
    top = _lanczos(symmetric) if len(symmetric) > DIRECT else None
    if top is None:
        top = float(_eigvalsh((symmetric + symmetric.mT) / 2)[-1])
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


def _eigvalsh(symmetric: Tensor) -> Tensor:
    """Eigenvalues, smallest first; on the CPU where the device's solver does not converge."""
    eigenvalues: Tensor
    try:
        eigenvalues = torch.linalg.eigvalsh(symmetric)
    except RuntimeError:
        if symmetric.device.type == "cpu":
            raise
        eigenvalues = torch.linalg.eigvalsh(symmetric.cpu()).to(symmetric.device)
    return eigenvalues
