"""One measurement of the kernel during training: what is taken off it, and of which rows.

| symbol | meaning | shape |
| --- | --- | --- |
| K_aa | kernel block of loss term ``a`` | (R_a, R_a) |
| w | coefficient of r_i^2 in the loss, entry by entry | shape of r |
| lambda | weight that a balancer puts on the term | () |
| D | curvature of the loss, 2 lambda w, which turns K into the operator of training | (R_a,) |

Blocks and spectra of a term with more than ``max_points`` rows are those of every k-th row only,
so that their cost stays bounded; traces are always exact and of all rows.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from torch import Tensor

from pinn_ntk.drift import Drift, flat
from pinn_ntk.jacobian import FactoredJacobian
from pinn_ntk.kernel import NTK
from pinn_ntk.spectrum import Spectrum

if TYPE_CHECKING:
    from pinn_ntk.graph.terms import Term


@dataclass(frozen=True)
class Measurement:
    """The kernel at one training step.

    Attributes:
        step: Training step.
        rows: Term -> rows of its residual.
        n_params: Number of parameters that the kernel is taken over.
        traces: Term -> trace of its block, of all rows.
        spectra: Term -> spectrum of its block, of the rows kept.
        drift: Change of each tensor of `KernelDrift.update` since the first measurement.
        max_stable_lr: Largest stable learning rate of gradient descent; None where not defined.
        certificate: Largest relative error against ordinary backward passes; None if unchecked.
        dtype: Dtype of the model, in which the factors of the kernel were captured.
    """

    step: int
    rows: Mapping[str, int]
    n_params: int
    traces: Mapping[str, float]
    spectra: Mapping[str, Spectrum]
    drift: Mapping[str, float]
    max_stable_lr: float | None = None
    certificate: float | None = None
    dtype: str = "float32"


def measure(
    kernel: NTK,
    step: int,
    *,
    drift: KernelDrift,
    params: Mapping[str, Tensor],
    curvature: Mapping[str, Tensor] | None = None,
    max_points: int = 512,
    dtype: str = "float32",
) -> Measurement:
    """Take everything that is reported off a kernel.

    Args:
        kernel: Kernel of all rows.
        step: Training step.
        drift: Knows the first measurement; updated.
        params: Name -> parameter, for their drift.
        curvature: Term -> D, (R_a,), see `curvature`; None leaves `max_stable_lr` out.
        max_points: Rows of a term above which blocks are formed of evenly strided rows only.
        dtype: Dtype of the model, for the record.

    Returns:
        The measurement.
    """
    kept = thinned(kernel, max_points)
    spectra = {term: kept.spectrum(term) for term in kept.terms}
    return Measurement(
        step=step,
        rows={term: kernel.rows(term) for term in kernel.terms},
        n_params=kernel.jacobian(kernel.terms[0]).shape[1],
        traces={term: kernel.trace(term) for term in kernel.terms},
        spectra={t: Spectrum(s.eigenvalues.cpu(), s.floor) for t, s in spectra.items()},
        drift=drift.update(kept, params),
        max_stable_lr=None if curvature is None else max_stable_lr(kept, kernel, curvature),
        certificate=max(kernel.certificate.values(), default=None),
        dtype=dtype,
    )


def thinned(kernel: NTK, max_points: int) -> NTK:
    """The kernel of at most ``max_points`` rows a term: rows 0, k, 2k, ... of its residual.

    Args:
        kernel: Kernel of all rows.
        max_points: Rows to keep of a term at most.

    Returns:
        The same kernel where no term has more rows, else one of fewer rows; its factors are views
        of the given ones, and nothing is differentiated again.

    Example:
        >>> import torch
        >>> from pinn_ntk import empirical_ntk
        >>> w = torch.tensor(1.0, requires_grad=True)
        >>> thinned(empirical_ntk(w * torch.arange(5.0), [w]), 3)["residual"].diag().tolist()
        [0.0, 4.0, 16.0]
    """
    if all(kernel.rows(term) <= max_points for term in kernel.terms):
        return kernel
    return NTK({term: _every(kernel.jacobian(term), max_points) for term in kernel.terms})


def _every(jacobian: FactoredJacobian, max_points: int) -> FactoredJacobian:
    rows = slice(0, jacobian.rows, math.ceil(jacobian.rows / max_points))
    return FactoredJacobian(
        {name: factor.slice(rows) for name, factor in jacobian.factors.items()},
        jacobian.sizes,
        len(range(jacobian.rows)[rows]),
        dtype=jacobian.dtype,
        device=jacobian.device,
        memory_budget=jacobian.memory_budget,
    )


def curvature(terms: Mapping[str, Term], factors: Mapping[str, float]) -> dict[str, Tensor] | None:
    """D of each term, for the operator that governs training.

    Args:
        terms: Terms of the loss.
        factors: Term -> what its weight in the loss is to be multiplied with, 1 where absent.

    Returns:
        Term -> D, (R_a,); None where the loss is no sum of squares with weights above 0, for which
        D is not constant or gradient descent not a descent.
    """
    if any(term.kind != "square" or bool((term.weight < 0).any()) for term in terms.values()):
        return None
    return {
        name: 2 * factors.get(name, 1.0) * term.weight.detach().double().flatten()
        for name, term in terms.items()
    }


def max_stable_lr(kept: NTK, kernel: NTK, curvature: Mapping[str, Tensor]) -> float:
    """2 / lambda_max of D^(1/2) K D^(1/2): above it gradient descent diverges.

    The gradient flow of a sum of weighted squares is dr/dt = -K D r (Wang, Yu, Perdikaris 2022,
    eq. 6.3, with our D).

    Args:
        kept: Kernel of the rows kept. Where some were left out, each row stands for R_a / R_kept
            of them, and the result is an estimate.
        kernel: Kernel of all rows.
        curvature: Term -> D of all rows, (R_a,).

    Returns:
        The learning rate; inf for a zero kernel.
    """
    weights = {}
    for term in kernel.terms:
        every = math.ceil(kernel.rows(term) / kept.rows(term))
        weights[term] = curvature[term][::every] * (kernel.rows(term) / kept.rows(term))
    top = Spectrum.of(kept.weighted_matrix(weights)).lambda_max
    return 2 / top if top else math.inf


class KernelDrift:
    """Relative change of each block, of the whole kernel and of the parameters.

    What has another shape than when it was first seen is left out, since drift is only defined on
    the same rows.

    Attributes:
        start: Tag -> what was seen first.
        terms: Terms of the kernel that was seen first.
    """

    def __init__(self) -> None:
        """Start with nothing seen."""
        self._drift = Drift()
        self.terms: tuple[str, ...] = ()

    @property
    def start(self) -> dict[str, Tensor]:
        """Name -> tensor that was seen first."""
        return self._drift.start

    def update(self, kernel: NTK, params: Mapping[str, Tensor]) -> dict[str, float]:
        """Drift since the first call.

        Args:
            kernel: The kernel now.
            params: The parameters now.

        Returns:
            Term -> drift of its block; "kernel" -> of all blocks with their cross blocks, while
            the terms are those of the first call; "parameters" -> of the parameters. A term of
            that name goes as "kernel_" or "parameters_".
        """
        self.terms = self.terms or kernel.terms
        now = {f"{t}_" if t in {"kernel", "parameters"} else t: kernel[t] for t in kernel.terms}
        if kernel.terms == self.terms:
            now["kernel"] = kernel.matrix()
        now["parameters"] = flat(params)
        same = {n: t for n, t in now.items() if self.start.get(n, t).shape == t.shape}
        self.start.update(
            {n: self.start[n].to(t.device) for n, t in same.items() if n in self.start}
        )
        return self._drift.update(same)

    def state_dict(self) -> dict[str, Any]:
        """What was seen first, on the CPU."""
        start = {name: tensor.cpu() for name, tensor in self.start.items()}
        return {"terms": list(self.terms), "start": start}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what another instance saw first."""
        self.terms = tuple(state["terms"])
        self._drift.start = dict(state["start"])
