"""One measured step: the quantities that diagnostics and weighting rules read of it.

| symbol | meaning | shape |
| --- | --- | --- |
| r_a | live residual of term ``a``, flattened | (R_a,) |
| K_ab | block of the kernel of two terms | (R_a, R_b) |
| g_a | dL/dr_a, slope of the loss, weights in force included | (R_a,) |
| D | curvature of the loss, see `pinn_ntk.graph.terms.curvature` | (R_a,) |
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor
from torch.autograd.graph import Node

from pinn_ntk.analysis.distinct_rows import distinct_rows
from pinn_ntk.analysis.kernel_gradient import backward_gradient, term_gradients
from pinn_ntk.graph.jacobian.empirical import kernel_within
from pinn_ntk.graph.terms.curvature import effective_weights
from pinn_ntk.graph.terms.term import Term
from pinn_ntk.graph.terms.term_loss import TermLoss
from pinn_ntk.kernel.columns import scaled_columns
from pinn_ntk.kernel.ntk import NTK
from pinn_ntk.kernel.spectrum import Spectrum
from pinn_ntk.looks.measured_step import MeasuredStep
from pinn_ntk.looks.parameters import (
    group_scales,
    learning_rate,
    parameter_groups,
    used_names,
)
from pinn_ntk.looks.rows_kept import Places, kept_places, kernel_of_places, places_in_residuals
from pinn_ntk.looks.shared import shared
from pinn_ntk.looks.step_terms import PROBE, StepTerms


class Look(MeasuredStep):
    """One measured step, to be read only. Each quantity is computed when first asked for, and kept.

    A quantity that fails raises `pinn_ntk.errors.UnavailableError` to all who ask. All of them can
    be had while the graph of the step is alive, that is until its backward pass is over.
    """

    @shared("the finite terms")
    def finite(self) -> StepTerms:
        """`found` without the terms that hold NaN or inf, which have no kernel."""
        return self.found.finite

    @property
    def residuals(self) -> Mapping[str, Tensor]:
        """Term -> live residual, in the shape that the loss sees; finite ones only."""
        return self.finite.residuals

    @property
    def terms(self) -> Mapping[str, Term]:
        """Term -> its place in the loss, of the finite ones that were found there."""
        return self.finite.terms

    @property
    def undefined(self) -> tuple[str, ...]:
        """Terms whose residual holds NaN or inf."""
        return tuple(name for name in self.found.residuals if name not in self.residuals)

    @property
    def points(self) -> str:
        """What the residuals are on, "the training batch" or "a fixed probe"."""
        return self.found.points

    @property
    def over_all(self) -> bool:
        """Whether the kernel is taken over all parameters that are trained."""
        return len(self.params) == len(self.trained)

    @shared("the kernel")
    def kernel(self) -> NTK:
        """Kernel of all rows, or of a sample where `bounds` ask for it (``kernel.sampled``).

        One without terms where every term is undefined.
        """
        if not self.residuals:
            return NTK({})
        return kernel_within(
            self.residuals,
            self.params,
            self.bounds,
            certify=self.certify,
            say=self.say,
            allow=self.allow,
        )

    @property
    def left_out(self) -> dict[str, tuple[int, int]]:
        """Term -> rows measured and all rows, where rows are left out; empty before `kernel`."""
        kernel, _ = self.kept.get("kernel", (None, None))
        return {} if kernel is None else {t: kernel.sampled(t) for t in kernel.sampled_terms}

    @shared("the rows kept")
    def _places(self) -> Places:
        drawn = self.found.rows or {}
        return kept_places(self.kernel, self.max_points, self.bounds, drawn)

    @shared("the kernel of the rows kept")
    def sampled(self) -> NTK:
        """Kernel of the rows that blocks are formed of, `max_points` a term at most."""
        return kernel_of_places(self.kernel, self._places)

    @shared("the rows of the residuals kept")
    def rows_kept(self) -> dict[str, Tensor]:
        """Term -> places of the rows of `sampled` in the flattened residual, (R_kept,)."""
        return places_in_residuals(self.kernel, self._places)

    @shared("the spectra")
    def spectra(self) -> dict[str, Spectrum]:
        """Term -> spectrum of its block of `sampled`, eigenvalues on the CPU."""
        found = {term: self.sampled.spectrum(term) for term in self.sampled.terms}
        return {term: Spectrum(s.eigenvalues.cpu(), s.floor) for term, s in found.items()}

    @shared("the count of different rows")
    def distinct(self) -> dict[str, int]:
        """Term -> rows that differ from one another, of terms whose block is of some rows only.

        Of terms that were sampled nothing is known of the others.
        """
        kernel, some = self.kernel, self.sampled
        whole = [term for term in kernel.terms if term not in kernel.sampled_terms]
        fewer = [term for term in whole if some.rows(term) < kernel.rows(term)]
        return {term: distinct_rows(kernel.jacobian(term)) for term in fewer}

    @shared("the share of each parameter in the traces")
    def shares(self) -> dict[str, dict[str, float]]:
        """Term -> parameter -> squared norm of its columns; empty unless groups are several."""
        used = {self.groups[n] for n in used_names(self.kernel) if n in self.groups}
        if len(used) < 2:
            return {}
        return {term: self.kernel.jacobian(term).squared_norms() for term in self.kernel.terms}

    @shared("the diagonals")
    def diagonals(self) -> dict[str, Tensor]:
        """Term -> K_ii of the rows measured, (R,); no block is formed."""
        return {term: self.kernel.diagonal(term) for term in self.kernel.terms}

    def trace(self, term: str) -> float:
        """Tr K_aa of all rows off `diagonals`, an estimate where the kernel is of some."""
        return self.kernel.jacobian(term).total(self.diagonals[term])

    @shared("the traces")
    def traces(self) -> dict[str, float]:
        """Term -> trace of its block, of all rows; an estimate where the kernel is of some."""
        if self.shares:  # off the blocks, where those are whole
            return {term: sum(of_term.values()) for term, of_term in self.shares.items()}
        return {term: self.trace(term) for term in self.kernel.terms}

    @shared("the groups of parameters")
    def groups(self) -> dict[str, str]:
        """Parameter -> "network", "inverse" or "loss_weights"."""
        return parameter_groups(self.module, self.params, self.kernel, self.loss)

    @property
    def weights(self) -> dict[str, float]:
        """Term -> weight that a balancer puts on its gradient, 1 where there is none."""
        return {n: self._balanced.get(t.head, 1.0) for n, t in self.found.terms.items()}

    @shared("the weights of the balancer")
    def _balanced(self) -> Mapping[Node, float]:
        return self.balanced()

    @property
    def factors(self) -> dict[str, float]:
        """Term -> what its weight in the differentiated loss is to be multiplied with."""
        return {name: self.scale * weight for name, weight in self.weights.items()}

    @shared("the weights in force")
    def effective_weights(self) -> dict[str, float]:
        """Term -> sum of its coefficients in the loss in force, 1 for a plain mean."""
        return effective_weights(self.found.terms, self.factors)

    @shared("the loss of each term")
    def losses(self) -> dict[str, TermLoss]:
        """Term -> its part of the loss in force, where its place in the loss is known."""
        return self.finite.losses(self.factors)

    @shared("the slopes of the loss")
    def slopes(self) -> dict[str, Tensor]:
        """Term -> g_a, (R_a,), of the terms of `losses`, in the order of the kernel."""
        known = [term for term in self.kernel.terms if term in self.losses]
        return {term: self.losses[term].slope(self.residuals[term]) for term in known}

    @shared("the gradients of the terms")
    def gradients(self) -> dict[str, Tensor]:
        """Term -> J_a^T g_a, the gradient of its part of the loss, (P,).

        By products with J where that is of all rows, else by a backward pass.
        """
        sampled = self.kernel.sampled_terms
        whole = {term: g for term, g in self.slopes.items() if term not in sampled}
        found = term_gradients(self.kernel, whole) if whole else {}
        for term in sampled:
            if term in self.slopes:
                residual, slope = self.residuals[term], self.slopes[term]
                found[term] = backward_gradient(residual, self.params, slope)
        return {term: found[term] for term in self.slopes}

    @shared("the curvature of the loss")
    def curvature(self) -> dict[str, Tensor] | None:
        """Term -> D, (R_a,); None for other losses than sums of squares over `trained`."""
        return self.finite.curvature(self.factors) if self.over_all else None

    @shared("the learning rate")
    def learning_rate(self) -> float | None:
        """That of the optimizer whose step this is; None where it is not known."""
        return learning_rate(self.optimizers, self.params, self.kernel)

    @shared("the learning rates of the groups")
    def group_scales(self) -> dict[str, float]:
        """Parameter of the kernel -> its learning rate over `learning_rate`; empty if all are 1."""
        scales = group_scales(self.optimizers, {n: self.params[n] for n in used_names(self.kernel)})
        return {} if all(scale == 1 for scale in scales.values()) else scales

    @shared("the kernel of descent")
    def descent(self) -> NTK:
        """`sampled` in units of `learning_rate`, group by group: what plain gradients descend."""
        roots = {name: math.sqrt(scale) for name, scale in self.group_scales.items()}
        return scaled_columns(self.sampled, roots) if roots else self.sampled

    @shared("the curvature of what descends")
    def descending(self) -> dict[str, Tensor] | None:
        """`curvature`, 0 where the residual is exactly zero: whether it can move is not known."""
        if self.curvature is None:
            return None
        rows = {term: self.residuals[term].detach() for term in self.curvature}
        return {t: D * bool(rows[t].count_nonzero()) for t, D in self.curvature.items()}

    @shared("the fingerprints of the points")
    def fingerprints(self) -> dict[str, str | None]:
        """Term -> fingerprint of its points; empty on a probe."""
        return self.finite.fingerprints(self.trained)

    @shared("the setting of the step")
    def setting(self) -> str | None:
        """Digest of batch, buffers and frozen parameters; None where nothing was kept of them."""
        if self.inputs is None or self.module is None:
            return None
        return self.inputs.setting(self.module, self.trained, batch=self.points != PROBE)

    @shared("the random states")
    def drew_numbers(self) -> bool:
        """Whether the step may have drawn random numbers before the backward pass."""
        if self.inputs is None or self.module is None:
            return True
        return self.inputs.drew_numbers(self.module)

    @property
    def n_params(self) -> int:
        """Number of parameter entries that the kernel is taken over."""
        return sum(parameter.shape.numel() for parameter in self.params.values())

    def again(self) -> Look | None:
        """The residual function run once more with the parameters as they are now, or None."""
        if self.find_again is None:
            return None
        return replace(self, found=self.find_again(), loss=None, kept={})

    def weigh_points(self, weights: Mapping[Node, Tensor]) -> None:
        """Count weights of single points in: head of a term -> what is put on its points."""
        if weights:
            self.found = self.found.with_points(weights)
            self.kept = {name: found for name, found in self.kept.items() if name != "finite"}

    def close(self) -> None:
        """Let go of graph and kernel, when the backward pass is over."""
        self.kept.clear()
        self.loss, self.found = None, StepTerms({}, {}, self.found.points)
