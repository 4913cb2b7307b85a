"""How much a step lowers the loss: as the kernel predicts, and in truth.

| symbol | meaning | shape |
| --- | --- | --- |
| r_a, r_a' | residual of term ``a`` before and after a step, flattened | (R_a,) |
| J_a | d r_a / d theta before the step | (R_a, P) |
| s | step, theta after it less theta before it | (P,) |
| w_a, phi_a | weights in force and function of the term, kept over the step | |
| L(r) | sum_a sum_i w_ai phi_a(r_ai) | () |
| g_a | dL/dr_a | (R_a,) |

The kernel predicts the decrease L(r) - L(r + J s), of residuals that are linear in the parameters.
Measured is L(r) - L(r'). Their ratio, measured over predicted, is the one by which trust-region
methods judge a model (Nocedal, Wright 2006, eq. 4.4): near 1 the kernel explains the step. A step
so long that the linear residuals grow, or one that goes uphill as momentum may, has a negative
predicted decrease, and a ratio near 1 then says that the loss rose as foretold.

A step of gradient descent is s = -lr sum_b J_b^T g_b, so J s = -lr K g, and to first order the
predicted decrease is lr sum_ab g_a^T K_ab g_b = lr |dL/dtheta|^2, the rate dL/dt = -||d||_K^2 of
Jacot, Gabriel, Hongler 2018 (section 3). Any other step (momentum, Adam, L-BFGS) is taken as it is.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from pinn_ntk.analysis.linearized import linearized_residuals
from pinn_ntk.graph.terms.term_loss import TermLoss
from pinn_ntk.kernel.ntk import NTK

NOISE = 32
"""Rounding units of the loss below which a decrease is noise."""


@dataclass(frozen=True)
class Forecast:
    """The predicted decrease of a loss, to be compared with what comes."""

    losses: Mapping[str, TermLoss]  # with the weights of the step before
    loss: float  # L(r) before the step
    predicted: float  # L(r) - L(r + J s)
    unit: float  # rounding unit of the residuals' dtype
    slope: float = 0.0  # sum_a g_a^T J_a s: below 0 the step goes downhill

    @classmethod
    def of(
        cls,
        kernel: NTK,
        losses: Mapping[str, TermLoss],
        residuals: Mapping[str, Tensor],
        slopes: Mapping[str, Tensor],
        step: Mapping[str, Tensor],
    ) -> Forecast:
        """Predict the decrease by a step, from kernel and residuals before it.

        ``slopes`` are g_a, and ``step`` holds the changes of all parameters of the kernel, by name.
        """
        before = {term: residuals[term] for term in kernel.terms}
        change = {name: step[name] for name in kernel.jacobian(kernel.terms[0]).sizes}
        after = linearized_residuals(kernel, before, change)
        # In float64 the sums of L lose no digits that the residuals have.
        start = {term: losses[term].value(r) for term, r in before.items()}
        falls = [start[term] - losses[term].value(after[term]) for term in kernel.terms]
        rises = [
            float(slopes[term] @ (after[term] - r.detach().double().flatten()))
            for term, r in before.items()
        ]
        return cls(
            losses={term: losses[term] for term in kernel.terms},
            loss=math.fsum(start.values()),
            predicted=math.fsum(falls),
            unit=max(torch.finfo(r.dtype).eps for r in before.values()),
            slope=math.fsum(rises),
        )

    def ratio(self, residuals: Mapping[str, Tensor]) -> float | None:
        """Measured over predicted decrease: 1 where the kernel tells it.

        It is below 0 for a rise where a fall was predicted, and near 1 for a rise that was
        predicted as well; `predicted` tells these apart. ``residuals`` are those after the step on
        the same points, others are passed over. None where a term is missing or has another number
        of rows, where the ratio is not finite, or where the prediction does not stand out of the
        rounding noise of the loss.
        """
        rows = {name: r.numel() for name, r in residuals.items()}
        if any(rows.get(term) != loss.shape.numel() for term, loss in self.losses.items()):
            return None
        measured = self.loss - math.fsum(
            loss.value(residuals[term]) for term, loss in self.losses.items()
        )
        if not abs(self.predicted) > NOISE * self.unit * abs(self.loss):  # NaN compares false
            return None
        ratio = measured / self.predicted
        return ratio if math.isfinite(ratio) else None
