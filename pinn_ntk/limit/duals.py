"""Gaussian expectations of products of derivatives of an activation.

| symbol | meaning | shape |
| --- | --- | --- |
| q, q' | variances of the Gaussian variables u and v | (N,), (N',) |
| c, rho | their covariance, their correlation c / sqrt(q q') | (N, N') |
| E_ij | E[phi^(i)(u) phi^(j)(v)] | (I, J, N, N') |
| h_n | Hermite polynomials, orthonormal under N(0, 1) | |
| a_n^(i) | E[phi^(i)(sqrt(q) z) h_n(z)], z ~ N(0, 1) | (I, N, M) |

The derivatives of E_ij are other E_ij (Price's theorem): dE_ij/dc = E_{i+1,j+1},
dE_ij/dq = E_{i+2,j} / 2 and dE_ij/dq' = E_{i,j+2} / 2. So nothing is ever differentiated
numerically, and nothing is singular at rho = 1 or -1, nor at q = 0.

By Mehler's formula E_ij = sum_n rho^n a_n^(i)(q) a_n^(j)(q'). The coefficients are integrals over
one variable, taken by the trapezoidal rule, which converges exponentially on the whole line. How
many are enough is read off Parseval's identity: what they leave of E[phi^(i)(u)^2] bounds the
truncation of every E_ij, at any rho.
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Protocol

import torch
from torch import Tensor

from pinn_ntk.limit.activations import Activation

TOLERANCE = 1e-12
"""Part of E[phi^(i)(u)^2] that the Hermite coefficients may leave, for each i."""

MOST = 2**14
"""Hermite coefficients at most. For tanh, enough up to i = 1 with variances up to 100, i = 5 up to
40 and i = 13 up to 16; other activations reach further."""

HOPELESS = 1e-2  # what a quarter of `MOST` may leave; with more of it, all would not do either
REACH = 12.0  # half width of the trapezoidal rule, in standard deviations; 1e-32 lies beyond
CHUNK = 2**22  # numbers in a temporary array

ROUNDING = 1e-15
"""Relative error of an E_ij that nothing but rounding has touched, about."""


class Dual(Protocol):
    """E_ij of one activation for i < I and j < J, at variances q (N,) and q' (N',)."""

    def pairs(self, q: Tensor, c: Tensor, other: Tensor, orders: tuple[int, int]) -> Tensor:
        """E_ij of all pairs of covariances c (N, N'), (I, J, N, N'); ``orders`` are I and J."""

    def own(self, q: Tensor, orders: int) -> Tensor:
        """E_ij of each point with itself, rho = 1, (I, I, N); ``orders`` is I."""

    def error(self, q: Tensor, orders: int) -> Tensor:
        """e_i, (I,), where sqrt(e_i e_j) is about the relative error of E_ij; ``orders`` is I."""


class HermiteDual:
    """E_ij of any smooth activation, by Mehler's formula."""

    def __init__(self, activation: Activation) -> None:
        self.activation = activation

    def pairs(self, q: Tensor, c: Tensor, other: Tensor, orders: tuple[int, int]) -> Tensor:
        """See `Dual`."""
        variances, back = torch.cat([q, other]).unique(return_inverse=True)
        coefficients = self._coefficients(variances, max(orders))[0][:, back]  # (I, N + N', M)
        left = coefficients[: orders[0], : len(q)].permute(1, 0, 2)  # (N, I, M)
        right = coefficients[: orders[1], len(q) :].permute(1, 2, 0)  # (N', M, J)
        rho = correlation(q, c, other)
        powers = torch.arange(coefficients.shape[-1], device=q.device)
        rows = max(1, CHUNK // (left[0].numel() * max(1, len(other))))
        parts = []
        for start in range(0, len(q), rows):
            decay = rho[start : start + rows, :, None] ** powers  # (n, N', M)
            scaled = left[start : start + rows, None] * decay[:, :, None]  # (n, N', I, M)
            parts.append(scaled @ right)  # (n, N', I, J)
        return torch.cat(parts).permute(2, 3, 0, 1)

    def own(self, q: Tensor, orders: int) -> Tensor:
        """See `Dual`."""
        variances, back = q.unique(return_inverse=True)
        coefficients, _ = self._coefficients(variances, orders)
        return torch.einsum("inm,jnm->ijn", coefficients, coefficients)[..., back]

    def error(self, q: Tensor, orders: int) -> Tensor:
        """What the Hermite coefficients leave, or rounding; see `Dual`."""
        return self._coefficients(q.unique(), orders)[1].clamp(min=ROUNDING)

    def _coefficients(self, q: Tensor, orders: int) -> tuple[Tensor, Tensor]:
        """a_n^(i) of every variance, (I, N, M), M as large as needed; what they leave, (I,)."""
        terms = 32
        while True:
            coefficients, parts = self._expand(q, orders, terms)
            left = float(parts.max())
            if left <= TOLERANCE:
                return coefficients, parts
            if terms >= MOST or (terms >= MOST // 4 and left > HOPELESS):
                raise ValueError(
                    f"{terms} Hermite polynomials leave {left:.1e} of the variance of "
                    f"{self.activation.name} or of its derivatives up to order {orders - 1}, "
                    f"with pre-activations of variance {float(q.max()):.4g}. Likely they are too "
                    "wide for an activation this steep, or it is not smooth: use a smaller "
                    "weight_std or bias_std, or scale the inputs."
                )
            terms *= 2

    def _expand(self, q: Tensor, orders: int, terms: int) -> tuple[Tensor, Tensor]:
        """Coefficients, and the largest part of a variance that they leave, for each i."""
        z, weight, basis = (table.to(q.device) for table in _tables(terms))
        values = self.activation.derivatives(q.sqrt()[:, None] * z, orders)
        mirrored = self.activation.derivatives(-q.sqrt()[:, None] * z, orders)
        even, odd = (values + mirrored) / 2, (values - mirrored) / 2  # (I, N, Z)
        coefficients = values.new_empty(*values.shape[:2], terms)
        coefficients[..., 0::2] = 2 * even @ basis[0::2].mT
        coefficients[..., 1::2] = 2 * odd @ basis[1::2].mT
        variance = ((values.square() + mirrored.square()) * weight).sum(-1)  # (I, N)
        left = (variance - coefficients.square().sum(-1)) / variance.clamp(min=1e-300)
        return coefficients, left.abs().nan_to_num(math.inf).amax(1)


class NoisyDual:
    """Another dual with random errors of twice the size of its own in every E_ij.

    What it changes in a kernel says how much the operators amplify such errors. Two objects made
    alike have the same noise; the random state of torch is left alone.

    >>> from pinn_ntk.limit.activations import activation
    >>> exact, q = HermiteDual(activation("tanh")), torch.ones(1, dtype=torch.float64)
    >>> 0 < float((NoisyDual(exact).own(q, 1) / exact.own(q, 1) - 1).abs()) < 1e-12
    True
    """

    def __init__(self, dual: Dual) -> None:
        self.dual = dual
        self._generator = torch.Generator().manual_seed(0)

    def pairs(self, q: Tensor, c: Tensor, other: Tensor, orders: tuple[int, int]) -> Tensor:
        """See `Dual`."""
        error = self.error(torch.cat([q, other]), max(orders))
        return self._noisy(self.dual.pairs(q, c, other, orders), error)

    def own(self, q: Tensor, orders: int) -> Tensor:
        """See `Dual`."""
        return self._noisy(self.dual.own(q, orders), self.error(q, orders))

    def error(self, q: Tensor, orders: int) -> Tensor:
        """The error of the dual without noise."""
        return self.dual.error(q, orders)

    def _noisy(self, values: Tensor, error: Tensor) -> Tensor:
        roots = (2 * error).sqrt()  # rather too large than too small
        sizes = roots[: values.shape[0], None] * roots[: values.shape[1]]
        sizes = sizes.reshape(*sizes.shape, *[1] * (values.ndim - 2))  # (I, J, 1, ...)
        noise = torch.randn(values.shape, generator=self._generator, dtype=values.dtype)
        return values * (1 + sizes * noise.to(values))


def correlation(q: Tensor, c: Tensor, other: Tensor) -> Tensor:
    """c / sqrt(q q'), within [-1, 1]; 0 where a variance is 0, (N, N')."""
    scale = q.sqrt()[:, None] * other.sqrt()
    return torch.where(scale > 0, c / torch.where(scale > 0, scale, 1.0), 0.0).clamp(-1.0, 1.0)


@lru_cache(maxsize=8)
def _tables(terms: int) -> tuple[Tensor, Tensor, Tensor]:
    """Nodes z >= 0 and weights of the rule (Z,), and h_n(z) times the weights, (M, Z)."""
    # h_n oscillates with wave number sqrt(n). A function whose coefficients are small from
    # n = terms on has no content beyond about 3.5 sqrt(terms).
    step = 2 * math.pi / (4.5 * math.sqrt(terms) + 10)
    z = torch.arange(math.ceil(REACH / step) + 1, dtype=torch.float64) * step
    weight = torch.exp(-(z**2) / 2) * (step / math.sqrt(2 * math.pi))
    weight[0] /= 2  # every other node stands for -z as well
    polynomials = torch.empty(terms, len(z), dtype=torch.float64)
    polynomials[0], polynomials[1] = 1, z
    for n in range(1, terms - 1):
        below = math.sqrt(n) * polynomials[n - 1]
        polynomials[n + 1] = (z * polynomials[n] - below) / math.sqrt(n + 1)
    return z, weight, polynomials * weight
