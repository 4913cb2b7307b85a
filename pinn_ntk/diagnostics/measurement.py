"""One measurement of the kernel during training: what is taken off it, and of which rows.

| symbol | meaning | shape |
| --- | --- | --- |
| K_aa | kernel block of loss term ``a`` | (R_a, R_a) |
| J_g | columns of the Jacobian that belong to a group ``g`` of parameters | (R_a, P_g) |
| D | curvature of the loss, see `pinn_ntk.analysis.step_size` | (R_a,) |

Blocks and spectra of a term with more than ``max_points`` rows are those of some rows only, so
that their cost stays bounded; traces are always exact and of all rows.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import Protocol, TypeVar

from torch import Tensor

from pinn_ntk.analysis.definiteness import Definiteness, definiteness
from pinn_ntk.analysis.distinct_rows import distinct_rows
from pinn_ntk.analysis.interference import Interference
from pinn_ntk.analysis.step_size import max_stable_lr, mode_rates
from pinn_ntk.diagnostics.kernel_drift import KernelDrift
from pinn_ntk.kernel.ntk import NTK
from pinn_ntk.kernel.rows import kernel_of_rows, thinned
from pinn_ntk.kernel.spectrum import Spectrum

__all__ = ["BATCH", "PROBE", "Measurement", "measure"]

BATCH = "the training batch"
PROBE = "a fixed probe"

T = TypeVar("T")


class Attempt(Protocol):
    """Runs a part that the rest does without, such as `pinn_ntk.callbacks.trainer.guard.Guard.run`."""

    def __call__(self, what: str, part: Callable[[], T], /) -> T | None:
        """What the part returns; None where it may fail and does."""


def outright(_what: str, part: Callable[[], T], /) -> T:
    """An `Attempt` that lets failures through.

    Args:
        _what: Name of the part.
        part: The part.

    Returns:
        What it returns.
    """
    return part()


@dataclass(frozen=True)
class Measurement:
    """The kernel at one training step.

    Attributes:
        step: Training step.
        rows: Term -> rows of its residual; without the undefined terms.
        n_params: Number of parameters that the kernel is taken over.
        traces: Term -> trace of its block, of all rows.
        spectra: Term -> spectrum of its block, of the rows kept.
        drift: What `KernelDrift.update` gave.
        max_stable_lr: Largest stable learning rate of gradient descent; None where not defined.
        certificate: Largest relative error against ordinary backward passes; None if unchecked.
        dtype: Dtype of the model, in which the factors of the kernel were captured.
        points: What the kernel was taken on, `BATCH` or `PROBE`.
        group_traces: Group of parameters -> term -> trace of J_g J_g^T, of all rows; empty
            unless residuals depend on more than one group.
        effective_weights: Term -> sum of its coefficients in the loss, see
            `pinn_ntk.graph.terms.curvature.effective_weights`.
        undefined: Terms whose residual holds NaN or inf, and which have no kernel.
        moved_points: Terms whose points changed since the first measurement.
        learning_rate: Learning rate of the step; None where it is not known.
        rates: Term -> rate of its fastest and of its slowest mode above the noise, see
            `pinn_ntk.analysis.step_size.mode_rates`.
        interference: Inner products of the gradients of the terms whose place in the loss is
            known; None for fewer than two.
        definiteness: Term -> rank of the block of the rows kept, and why it is not full.
        distance_to_limit: Distance of the network's kernel from its limit of infinite width; None
            where that is not known.
        repeated: Term -> number of its rows that cannot be told from another one before, of all
            rows; of the terms whose block is formed of some rows only.
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
    points: str = BATCH
    group_traces: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    effective_weights: Mapping[str, float] = field(default_factory=dict)
    undefined: tuple[str, ...] = ()
    moved_points: tuple[str, ...] = ()
    learning_rate: float | None = None
    rates: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    interference: Interference | None = None
    definiteness: Mapping[str, Definiteness] = field(default_factory=dict)
    distance_to_limit: float | None = None
    repeated: Mapping[str, int] = field(default_factory=dict)


def measure(
    kernel: NTK | None,
    step: int,
    *,
    drift: KernelDrift,
    params: Mapping[str, Tensor],
    curvature: Mapping[str, Tensor] | None = None,
    max_points: int = 512,
    dtype: str = "float32",
    points: str = BATCH,
    fingerprints: Mapping[str, str | None] | None = None,
    groups: Mapping[str, str] | None = None,
    effective_weights: Mapping[str, float] | None = None,
    undefined: tuple[str, ...] = (),
    rows_kept: Mapping[str, Tensor] | None = None,
    learning_rate: float | None = None,
    interference: Interference | None = None,
    distance_to_limit: float | None = None,
    residuals: Mapping[str, Tensor] | None = None,
    attempt: Attempt = outright,
) -> Measurement:
    """Take everything that is reported off a kernel.

    Args:
        kernel: Kernel of all rows; None where every term is undefined.
        step: Training step.
        drift: Knows the first measurement; updated.
        params: Name -> parameter, for their drift.
        curvature: Term -> D, (R_a,), see `pinn_ntk.graph.terms.curvature.curvature`; `max_stable_lr` is left
            out for None, and where a term of the kernel is absent.
        max_points: Rows of a term above which blocks are formed of evenly strided rows only.
        dtype: Dtype of the model, for the record.
        points: What the kernel was taken on; points of a probe are known not to change.
        fingerprints: Term -> fingerprint of its points, see `pinn_ntk.graph.jacobian.inputs`.
        groups: Parameter name -> group, for traces and drift of each group.
        effective_weights: Term -> sum of its coefficients in the loss, for the record.
        undefined: Terms that the kernel lacks since their residual holds NaN or inf.
        rows_kept: Term -> indices of the rows of which blocks are formed, instead of
            ``max_points``, see `pinn_ntk.kernel.rows.stratified_rows`; all rows of a term that is absent.
        learning_rate: Learning rate of the step, for the record.
        interference: Inner products of the terms' gradients, for the record.
        distance_to_limit: Distance from the limit of infinite width, for the record.
        residuals: Term -> residual in the shape that the loss sees, which tells accidental
            broadcasting.
        attempt: Runs what may be left out: rates, the step size, definiteness and repeats.

    Returns:
        The measurement.
    """
    kept = None
    if kernel is not None:
        kept = thinned(kernel, max_points)
        if rows_kept is not None:
            kept = kernel_of_rows(kernel, rows_kept)
    moved = drift.update(kept, params, fingerprints, fixed=points != BATCH, groups=groups)
    spectra = {} if kept is None else {term: _spectrum(kept, term) for term in kept.terms}
    traces, group_traces = _traces(kernel, groups or {})  # off the blocks, where those are whole
    known = curvature or {}
    step_size: float | None = None
    rates: Mapping[str, tuple[float, float]] = {}
    if kernel is not None and kept is not None:
        part = partial(mode_rates, kept, kernel, spectra, known, rows_kept)
        rates = attempt("the rate of each mode", part) or {}
        if set(kernel.terms) <= known.keys():
            bound = partial(max_stable_lr, kept, kernel, known, rows_kept)
            step_size = attempt("the largest stable learning rate", bound)
    definite = partial(_definiteness, kernel, kept, spectra, residuals or {})
    return Measurement(
        step=step,
        rows={} if kernel is None else {term: kernel.rows(term) for term in kernel.terms},
        n_params=_n_params(kernel, params),
        traces=traces,
        spectra=spectra,
        drift=moved,
        max_stable_lr=step_size,
        certificate=None if kernel is None else max(kernel.certificate.values(), default=None),
        dtype=dtype,
        points=points,
        group_traces=group_traces,
        effective_weights=effective_weights or {},
        undefined=undefined,
        moved_points=drift.moved_points,
        learning_rate=learning_rate,
        rates=rates,
        interference=interference,
        definiteness=attempt("the definiteness", definite) or {},
        distance_to_limit=distance_to_limit,
        repeated=attempt("the count of repeated points", partial(_repeated, kernel, kept)) or {},
    )


def _repeated(kernel: NTK | None, kept: NTK | None) -> dict[str, int]:
    """Repeats among all rows, which those kept may miss."""
    if kernel is None or kept is None:
        return {}
    return {
        term: kernel.rows(term) - distinct_rows(kernel.jacobian(term))
        for term in kernel.terms
        if kept.rows(term) < kernel.rows(term)
    }


def _definiteness(
    kernel: NTK | None,
    kept: NTK | None,
    spectra: Mapping[str, Spectrum],
    residuals: Mapping[str, Tensor],
) -> dict[str, Definiteness]:
    if kernel is None or kept is None:
        return {}
    return {
        term: definiteness(kept, term, residuals.get(term), spectrum=spectra[term], whole=kernel)
        for term in kept.terms
    }


def _traces(
    kernel: NTK | None, groups: Mapping[str, str]
) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Trace of each term, and of each group of parameters if residuals depend on several."""
    if kernel is None:
        return {}, {}
    jacobians = {term: kernel.jacobian(term) for term in kernel.terms}
    used = {groups[n] for jacobian in jacobians.values() for n in jacobian.factors if n in groups}
    if len(used) < 2:
        return {term: kernel.trace(term) for term in kernel.terms}, {}
    shares = {term: jacobian.squared_norms() for term, jacobian in jacobians.items()}
    by_group = {
        group: {
            term: sum(share for name, share in of_term.items() if groups.get(name) == group)
            for term, of_term in shares.items()
            if any(groups.get(name) == group for name in of_term)
        }
        for group in dict.fromkeys(groups.values())
        if group in used
    }
    return {term: sum(of_term.values()) for term, of_term in shares.items()}, by_group


def _n_params(kernel: NTK | None, params: Mapping[str, Tensor]) -> int:
    if kernel is None:
        return sum(parameter.numel() for parameter in params.values())
    return kernel.jacobian(kernel.terms[0]).shape[1]


def _spectrum(kernel: NTK, term: str) -> Spectrum:
    spectrum = kernel.spectrum(term)
    return Spectrum(spectrum.eigenvalues.cpu(), spectrum.floor)
