"""The empirical neural tangent kernel of several loss terms, block by block.

| symbol | meaning | shape |
| --- | --- | --- |
| r_a | unsquared residual of loss term ``a``, flattened row-major | (R_a,) |
| J_a | d r_a / d theta | (R_a, P) |
| K_ab | J_a J_b^T, one block of the kernel | (R_a, R_b) |
| K | all blocks | (sum R, sum R) |

Source: Jacot, Gabriel, Hongler 2018; for residuals with derivatives Wang, Yu, Perdikaris 2022,
eqs 3.4 and 3.5 (Journal of Computational Physics 449, 110768).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Literal

import torch
from torch import Tensor

from pinn_ntk.kernel.jacobian import FactoredJacobian, joined
from pinn_ntk.kernel.spectrum import Spectrum
from pinn_ntk.kernel.tsqr import factor_precision

Method = Literal["fast", "accurate"]


class NTK:
    """Neural tangent kernel of named residuals. Blocks are formed when asked for, and kept.

    Attributes:
        terms: Names of the loss terms.
        certificate: (a, b) -> relative error of v_a^T K_ab v_b against an ordinary backward pass
            for a random probe v; empty when computed with ``certify=False``.
    """

    def __init__(
        self,
        jacobians: Mapping[str, FactoredJacobian],
        certificate: Mapping[tuple[str, str], float] | None = None,
    ) -> None:
        """Keep the Jacobians; use `empirical_ntk` to make them."""
        self._jacobians = dict(jacobians)
        self._blocks: dict[tuple[str, str], Tensor] = {}
        self.terms = tuple(self._jacobians)
        self.at_once = False  # all blocks are formed when the first cross block is asked for
        self.certificate = dict(certificate or {})

    def __getitem__(self, key: str | tuple[str, str]) -> Tensor:
        """Block K_ab of ``kernel[a, b]``, or K_aa of ``kernel[a]``, (R_a, R_b)."""
        a, b = (key, key) if isinstance(key, str) else key
        if (b, a) in self._blocks and (a, b) not in self._blocks:
            return self._blocks[b, a].mT
        if (a, b) not in self._blocks and a != b and self.at_once:
            self._form_all()
        if (a, b) not in self._blocks:
            self._blocks[a, b] = self.jacobian(a).gram(self.jacobian(b))
        return self._blocks[a, b]

    def _form_all(self) -> None:
        """One product in place of one for each pair: with many terms most of these are small."""
        jacobians = [self.jacobian(term) for term in self.terms]
        sizes = [jacobian.rows for jacobian in jacobians]
        for a, rows in zip(self.terms, joined(jacobians).gram().split(sizes), strict=True):
            for b, block in zip(self.terms, rows.split(sizes, dim=1), strict=True):
                self._blocks.setdefault((a, b), block)

    def __repr__(self) -> str:
        rows = ", ".join(f"{term}: {self._rows_in_words(term)}" for term in self.terms)
        return f"NTK({rows}; {next(iter(self._jacobians.values())).shape[1]} parameters)"

    def __iter__(self) -> Iterator[str]:
        return iter(self.terms)

    def jacobian(self, term: str) -> FactoredJacobian:
        """J of one term as a linear operator; KeyError where there is no such term."""
        if term not in self._jacobians:
            raise KeyError(f"no term {term!r} in this kernel; it has {list(self.terms)}.")
        return self._jacobians[term]

    def rows(self, term: str) -> int:
        """Number of rows R of the blocks of one term."""
        return self.jacobian(term).rows

    def sampled(self, term: str) -> tuple[int, int]:
        """Rows that were measured of one term, and all rows of its residual: (64, 6000), say.

        They are equal unless rows were left out to bound time or memory (`empirical_ntk`).
        """
        return self.jacobian(term).rows, self.jacobian(term).all_rows

    @property
    def sampled_terms(self) -> tuple[str, ...]:
        """Terms of which rows were left out."""
        return tuple(t for t in self.terms if self.jacobian(t).sample is not None)

    def diagonal(self, term: str) -> Tensor:
        """Diagonal of K_aa, (R,). Exact; no block is formed."""
        block = self._blocks.get((term, term))
        return self.jacobian(term).diagonal() if block is None else block.diagonal().clone()

    def trace(self, term: str) -> float:
        """Trace of K_aa over all rows, no block is formed.

        Exact, or the estimate of a sample, see `sampled` and `trace_error`.
        """
        return self.jacobian(term).total(self.diagonal(term))

    def trace_error(self, term: str) -> float:
        """Standard error of `trace`; 0 where it is exact."""
        sample = self.jacobian(term).sample
        return 0.0 if sample is None else sample.error(self.diagonal(term))

    def _rows_in_words(self, term: str) -> str:
        measured, every = self.sampled(term)
        return f"{every} rows" if measured == every else f"~{measured} of {every} rows"

    def matrix(self) -> Tensor:
        """All blocks in the order of `terms`, (sum R, sum R)."""
        return torch.cat([torch.cat([self[a, b] for b in self.terms], 1) for a in self.terms])

    def weighted_matrix(self, weights: Mapping[str, float | Tensor]) -> Tensor:
        """D^(1/2) K D^(1/2), whose spectrum governs training with a weighted loss.

        With the loss sum_a (lambda_a / N_a) |r_a|^2 the residuals obey dr/dt = -K D r with
        D = 2 lambda_a / N_a (Wang, Yu, Perdikaris 2022, eq. 6.3), and gradient descent is stable
        for a learning rate below 2 / lambda_max of this matrix.

        Symmetric (sum R, sum R). ``weights`` are the entries of D of each term, one number or one a
        row (R_a,), none negative.

        Raises:
            ValueError: A term has no weight, or a weight is negative or of the wrong length.
        """
        root = self._root_weights(weights)
        return root[:, None] * self.matrix() * root

    def spectrum(
        self, term: str | None = None, *, method: Method = "fast", eigenvectors: bool = False
    ) -> Spectrum:
        """Eigenvalues of one term's block, or of the whole kernel when no term is named.

        Args:
            term: Name of the term; the whole kernel, in the order of `terms`, when left out.
            method: "fast" forms the block and keeps it. "accurate" takes the singular values of
                J instead and forms no block, in ten to twenty times the time: of a float64 model
                twice as many decades of eigenvalues stand above the floor. The J of a float32
                model is itself too coarse for more than "fast" gives.
            eigenvectors: Whether to keep them, too.

        Raises:
            KeyError: No such term.
            ValueError: There is no such method.
        """
        jacobians = [self.jacobian(t) for t in (self.terms if term is None else (term,))]
        if _is_accurate(method):
            return Spectrum.of_jacobians(jacobians, eigenvectors=eigenvectors)
        block = self.matrix() if term is None else self[term]
        precision = factor_precision(jacobians)
        return Spectrum.of(block, eigenvectors=eigenvectors, precision=precision)

    def weighted_spectrum(
        self,
        weights: Mapping[str, float | Tensor],
        *,
        method: Method = "fast",
        eigenvectors: bool = False,
    ) -> Spectrum:
        """Eigenvalues of D^(1/2) K D^(1/2), which are those of K D: what the optimiser sees.

        An eigenvector v belongs to the eigenvector D^(-1/2) v of K D, the operator of the flow
        dr/dt = -K D r, where all weights are positive; see `weighted_matrix` for D.

        Arguments and errors are as in `spectrum` and `weighted_matrix`; the method "accurate"
        scales the rows of J.
        """
        jacobians = [self.jacobian(term) for term in self.terms]
        if _is_accurate(method):
            root = self._root_weights(weights)
            return Spectrum.of_jacobians(jacobians, root, eigenvectors=eigenvectors)
        matrix, precision = self.weighted_matrix(weights), factor_precision(jacobians)
        return Spectrum.of(matrix, eigenvectors=eigenvectors, precision=precision)

    def _root_weights(self, weights: Mapping[str, float | Tensor]) -> Tensor:
        """D^(1/2), (sum R,)."""
        return torch.cat([self._weight_rows(term, weights) for term in self.terms]).sqrt()

    def _weight_rows(self, term: str, weights: Mapping[str, float | Tensor]) -> Tensor:
        if term not in weights:
            raise ValueError(f"no weight for term {term!r}; got weights for {list(weights)}.")
        jacobian = self.jacobian(term)
        weight = torch.as_tensor(weights[term], dtype=jacobian.dtype, device=jacobian.device)
        usable = bool((weight.isfinite() & (weight >= 0)).all())
        if weight.numel() not in (1, jacobian.rows) or not usable:
            raise ValueError(
                f"the weight of term {term!r} has shape {tuple(weight.shape)} and minimum "
                f"{float(weight.min())}; expected one number or {jacobian.rows}, all finite and "
                "none negative."
            )
        return weight.detach().reshape(-1).expand(jacobian.rows)


def _is_accurate(method: str) -> bool:
    if method not in {"fast", "accurate"}:
        raise ValueError(
            f"method is {method!r}; expected 'fast', the eigenvalues of the kernel, or 'accurate', "
            "from the singular values of its Jacobian."
        )
    return method == "accurate"


def _rows(count: int) -> str:
    return f"{count} row{'' if count == 1 else 's'}"
