"""The modes in which training with a kernel that stands still comes apart.

With J^T D^(1/2) = U Sigma V^T, (P, R), and S = V Lambda V^T as in dynamics.py, Lambda = Sigma^2,
and the cross kernel of term ``b`` to each mode is X_b = K_b. D^(1/2) V = J_b U Sigma, (R_b, R).

From the kernel, a rate has an error near eps lambda_max, and so has X. From the Jacobian, Sigma
has one near eps sigma_max, and X comes as the product of J_b U and Sigma: what Sigma multiplies
can later be divided by Lambda without loss. That keeps twice as many decades.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from pinn_ntk.kernel.ntk import NTK, Method
from pinn_ntk.kernel.spectrum import Spectrum, floor_of_triangle
from pinn_ntk.kernel.tsqr import factor_precision, triangular_factor


@dataclass(frozen=True)
class ModeBasis:
    """Modes of the terms that are trained, and how all terms follow them: X_b = F_b G."""

    spectrum: Spectrum  # Lambda with its floor, and V
    followers: dict[str, Tensor]  # F_b, (R_b, R), of all terms of the kernel
    gains: Tensor  # G, (R,): Sigma from the Jacobian, 1 from the kernel

    @classmethod
    def of(cls, kernel: NTK, terms: Sequence[str], root: Tensor, method: Method) -> ModeBasis:
        """Modes of the trained ``terms``; ``root`` is D^(1/2) of their rows, (R,).

        >>> from pinn_ntk import empirical_ntk
        >>> w = torch.tensor(3.0, requires_grad=True, dtype=torch.float64)
        >>> kernel = empirical_ntk({"data": w.reshape(1), "unseen": 2 * w}, [w])
        >>> root = torch.tensor([0.5], dtype=torch.float64)
        >>> basis = ModeBasis.of(kernel, ["data"], root, "fast")
        >>> basis.spectrum.eigenvalues.tolist(), basis.followers["unseen"].abs().tolist()
        ([0.25], [[1.0]])
        """
        return (_of_kernel if method == "fast" else _of_jacobian)(kernel, terms, root)


def _of_kernel(kernel: NTK, terms: Sequence[str], root: Tensor) -> ModeBasis:
    blocks = {b: torch.cat([kernel[b, a] for a in terms], 1) for b in kernel}  # (R_b, R)
    matrix = torch.cat([blocks[term] for term in terms])
    precision = factor_precision([kernel.jacobian(term) for term in terms])
    weighted = root[:, None] * matrix * root
    spectrum = Spectrum.of(weighted, eigenvectors=True, precision=precision)
    assert spectrum.eigenvectors is not None
    scaled = root[:, None] * spectrum.eigenvectors
    followers = {term: block @ scaled for term, block in blocks.items()}
    return ModeBasis(spectrum, followers, torch.ones_like(root))


def _of_jacobian(kernel: NTK, terms: Sequence[str], root: Tensor) -> ModeBasis:
    order = [*terms, *(term for term in kernel if term not in terms)]
    jacobians = [kernel.jacobian(term) for term in order]
    triangle = triangular_factor(jacobians).cpu()  # solvers of devices give up digits for speed
    rows = len(root)
    left, sigma, right = torch.linalg.svd(triangle[:, :rows] * root.cpu(), full_matrices=True)
    missing = max(rows - len(triangle), 0)  # fewer parameters than rows: modes of rate 0
    sigma, left = pad(sigma, (0, missing)), pad(left[:, :rows], (0, missing))
    precision = factor_precision(jacobians)
    floor = floor_of_triangle(rows, sigma.dtype, precision) * float(sigma.max()) ** 2
    spectrum = Spectrum(sigma.square().to(root.device), floor, right.mT.to(root.device))
    parts = (triangle.mT @ left).to(root.device).split([kernel.rows(term) for term in order])
    return ModeBasis(spectrum, dict(zip(order, parts, strict=True)), sigma.to(root.device))
