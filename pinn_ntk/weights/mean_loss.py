"""The loss of each term as a mean, without weights: what rules on gradients compare."""

from __future__ import annotations

from torch import Tensor

from pinn_ntk.analysis.kernel_gradient import backward_gradient, term_gradients
from pinn_ntk.looks.look import Look


def mean_gradient(look: Look, term: str) -> Tensor:
    """Gradient of the mean of phi(r) of one term, (P,), in the unit of r^2 over theta.

    A term whose place in the loss is not known counts as a mean of squares.
    """
    weight = _weight(look, term)
    if weight:
        return look.gradients[term] / weight
    residual = look.residuals[term].detach().double().flatten()
    slope = 2 * residual / residual.numel()
    if term in look.kernel.sampled_terms:
        return backward_gradient(look.residuals[term], look.params, slope)
    return term_gradients(look.kernel, {term: slope})[term]


def mean_loss(look: Look, term: str) -> float:
    """Mean of phi(r) of one term; a mean of squares where its place in the loss is not known."""
    weight = _weight(look, term)
    if weight:
        return look.losses[term].value(look.residuals[term]) / weight
    return float(look.residuals[term].detach().double().square().mean())


def _weight(look: Look, term: str) -> float:
    """Sum of the coefficients in force, 0 where they are not known."""
    return look.effective_weights[term] if term in look.losses else 0.0
