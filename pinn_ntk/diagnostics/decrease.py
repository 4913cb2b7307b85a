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
so long that the linear residuals grow has a negative predicted decrease, and a ratio near 1 then
says that the loss rose as foretold.

A step of gradient descent is s = -lr sum_b J_b^T g_b, so J s = -lr K g, and to first order the
predicted decrease is lr sum_ab g_a^T K_ab g_b = lr |dL/dtheta|^2, the rate dL/dt = -||d||_K^2 of
Jacot, Gabriel, Hongler 2018 (section 3). Any other step (momentum, Adam, L-BFGS) is taken as it is.
"""

from __future__ import annotations

import math
from collections.abc import Container, Iterable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor

from pinn_ntk.analysis.linearized import linearized_residuals
from pinn_ntk.graph.terms.term_loss import TermLoss
from pinn_ntk.kernel.factors import Dense, Factor, Outer
from pinn_ntk.kernel.jacobian import FactoredJacobian
from pinn_ntk.kernel.ntk import NTK

if TYPE_CHECKING:
    pass

NOISE = 32
"""Rounding units of the loss below which a decrease is noise."""


def kept_apart(kernel: NTK, tensors: Iterable[Tensor]) -> NTK:
    """The same kernel without memory in common with tensors that are about to change in place.

    Args:
        kernel: The kernel; weights of a network may be factors of its Jacobians as they are.
        tensors: What changes, such as the parameters.

    Returns:
        A kernel whose factors are copies where they shared memory; blocks are not kept.
    """
    changing = {tensor.untyped_storage().data_ptr() for tensor in tensors}
    return NTK({term: _apart(kernel.jacobian(term), changing) for term in kernel.terms})


def _apart(jacobian: FactoredJacobian, changing: Container[int]) -> FactoredJacobian:
    def own(tensor: Tensor) -> Tensor:
        return tensor.clone() if tensor.untyped_storage().data_ptr() in changing else tensor

    def owned(factor: Factor) -> Factor:
        if isinstance(factor, Dense):
            return Dense(own(factor.gradients))
        return Outer(tuple(map(own, factor.left)), tuple(map(own, factor.right)))

    return FactoredJacobian(
        {name: owned(factor) for name, factor in jacobian.factors.items()},
        jacobian.sizes,
        jacobian.rows,
        dtype=jacobian.dtype,
        device=jacobian.device,
        fallbacks=jacobian.fallbacks,
        memory_budget=jacobian.memory_budget,
    )


def versions(kernel: NTK) -> list[int]:
    """How often the memory behind the factors of a kernel was written to in place.

    Args:
        kernel: The kernel.

    Returns:
        Counters of autograd, others once a factor is no more what it was: it may be a view of
        points that somebody overwrites. Tensors made in inference mode have none.
    """
    factors = [f for term in kernel.terms for f in kernel.jacobian(term).factors.values()]
    tensors = [tensor for factor in factors for tensor in _tensors(factor)]
    return [tensor._version for tensor in tensors if not tensor.is_inference()]


def _tensors(factor: Factor) -> tuple[Tensor, ...]:
    return (factor.gradients,) if isinstance(factor, Dense) else (*factor.left, *factor.right)


class Judged(NamedTuple):
    """What became of a forecast.

    Attributes:
        step: Step that it was made for.
        ratio: Measured over predicted decrease.
        predicted: Predicted decrease, below 0 for a rise; None where it is not known.
    """

    step: int
    ratio: float
    predicted: float | None = None


@dataclass(frozen=True)
class Forecast:
    """The predicted decrease of a loss, to be compared with what comes.

    Attributes:
        losses: Term -> its loss, weights of the step before.
        loss: L(r) before the step.
        predicted: L(r) - L(r + J s).
        unit: Rounding unit of the residuals' dtype.
    """

    losses: Mapping[str, TermLoss]
    loss: float
    predicted: float
    unit: float

    @classmethod
    def of(
        cls,
        kernel: NTK,
        losses: Mapping[str, TermLoss],
        residuals: Mapping[str, Tensor],
        step: Mapping[str, Tensor],
    ) -> Forecast:
        """Predict the decrease by a step.

        Args:
            kernel: Kernel before the step, of the terms of the loss.
            losses: Term -> its loss.
            residuals: Term -> r before the step.
            step: Parameter name -> its change, of all parameters of the kernel.

        Returns:
            The forecast.
        """
        sizes = kernel.jacobian(kernel.terms[0]).sizes
        after = linearized_residuals(
            kernel,
            {term: residuals[term] for term in kernel.terms},
            {name: step[name] for name in sizes},
        )
        # In float64 the sums of L lose no digits that the residuals have.
        before = {term: losses[term].value(residuals[term]) for term in kernel.terms}
        falls = [before[term] - losses[term].value(after[term]) for term in kernel.terms]
        return cls(
            losses={term: losses[term] for term in kernel.terms},
            loss=math.fsum(before.values()),
            predicted=math.fsum(falls),
            unit=max(torch.finfo(residuals[term].dtype).eps for term in kernel.terms),
        )

    def ratio(self, residuals: Mapping[str, Tensor]) -> float | None:
        """Measured over predicted decrease: 1 where the kernel tells it.

        It is below 0 for a rise where a fall was predicted, and near 1 for a rise that was
        predicted as well; `predicted` tells these apart.

        Args:
            residuals: Term -> r after the step, on the same points; others are passed over.

        Returns:
            The ratio; None where a term is missing or has another number of rows, where it is not
            finite, or where the prediction does not stand out of the rounding noise of the loss.
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
