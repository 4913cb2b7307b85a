"""What the weights of a loss mean for its residuals: curvature, and the sum of the weights.

| symbol | meaning | shape |
| --- | --- | --- |
| w_i | coefficient of r_i^2 in the loss, whatever made it | shape of r |
| lambda | weight that a balancer puts on the term | () |
| D | curvature of the loss, 2 lambda w, which turns K into the operator of training | (R_a,) |

The gradient flow of a sum of weighted squares is dr/dt = -K D r (Wang, Yu, Perdikaris 2022,
eq. 6.3, with our D).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from pinn_ntk.graph.terms.term import Term


def curvature(
    terms: Mapping[str, Term], factors: Mapping[str, float] | None = None
) -> dict[str, Tensor] | None:
    """D of each term, for the operator that governs training.

    Args:
        terms: Terms of the loss.
        factors: Term -> what its weight in the loss is to be multiplied with, 1 where absent or
            left out.

    Returns:
        Term -> D, (R_a,); None where the loss is no sum of squares with finite weights, none below
        0: D is not constant then, or gradient descent not a descent.

    Example:
        >>> from pinn_ntk import find_terms
        >>> w = torch.tensor(1.0, requires_grad=True)
        >>> r = w * torch.ones(4)
        >>> curvature(find_terms(r.square().mean(), names=["pde"]))["pde"].tolist()
        [0.5, 0.5, 0.5, 0.5]
    """
    factors = factors or {}
    if any(term.kind != "square" for term in terms.values()):
        return None
    weights = {name: term.weight.detach() for name, term in terms.items()}
    if not all(bool((w.isfinite() & (w >= 0)).all()) for w in weights.values()):
        return None
    return {name: 2 * factors.get(name, 1.0) * w.double().flatten() for name, w in weights.items()}


def effective_weights(terms: Mapping[str, Term], factors: Mapping[str, float]) -> dict[str, float]:
    """Sum of the coefficients of phi(r_i) in the loss times the term's factor, term by term.

    It is 1 for a mean of squares, N for a sum over N rows, 100 for 100 times a mean.
    """
    return {name: factors.get(name, 1.0) * _total_weight(term) for name, term in terms.items()}


def uniform_weight(term: Term, factor: float = 1.0) -> float | None:
    """Sum of the coefficients of phi(r_i) times a factor, if all rows have the same finite one.

    Weights of single points (pointwise, causal or attention weights) cannot be carried over to
    other points; a weight that all points share can, see `curvature_of_rows`.
    """
    weight = term.weight.detach().double().flatten()
    if not len(weight) or not bool(torch.isfinite(weight).all()):
        return None
    spread = float((weight - weight[0]).abs().max())
    rounding = 4 * torch.finfo(term.weight.dtype).eps
    if spread > rounding * float(weight[0].abs()):
        return None
    return factor * _total_weight(term)


def curvature_of_rows(
    weight_sums: Mapping[str, float | None], rows: Mapping[str, int]
) -> dict[str, Tensor] | None:
    """D on other points than those of the loss, 2 sum(w) / R in each row of a term, (R,).

    ``weight_sums`` are such as from `uniform_weight`, with the balancer's weight. None where a term
    has no sum or one below 0, or none is given.
    """
    sums = {term: weight_sums.get(term) for term in rows}
    known = {term: total for term, total in sums.items() if total is not None and total >= 0}
    if not rows or len(known) < len(rows):
        return None
    return {
        term: torch.full((rows[term],), 2 * total / rows[term], dtype=torch.float64)
        for term, total in known.items()
    }


def _total_weight(term: Term) -> float:
    """Sum over what phi gives: one number a norm, else one a row."""
    weight = term.weight
    if term.kind == "norm":
        weight = term.coefficient.expand(term.phi.value(term.residual.detach()).shape)
    return float(weight.detach().double().sum())
