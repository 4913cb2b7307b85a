"""What the weights of a loss mean for its residuals: curvature, sums, and each term's loss."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from pinn_ntk import curvature, find_terms
from pinn_ntk.analysis.step_size import max_stable_lr
from pinn_ntk.graph.terms.curvature import curvature_of_rows, effective_weights, uniform_weight
from pinn_ntk.graph.terms.term_loss import TermLoss
from tests.looks import linear, rows

LOSSES: dict[str, tuple[Callable[[Tensor], Tensor], float, float | None]] = {
    "mean": (lambda r: r.square().mean(), 1.0, 1.0),
    "sum": (lambda r: r.square().sum(), 6.0, 6.0),
    "scaled": (lambda r: 100 * torch.nn.functional.mse_loss(r, r * 0), 100.0, 100.0),
    "abs": (lambda r: 3 * r.abs().mean(), 3.0, 3.0),
    "norm": (lambda r: 5 * torch.linalg.vector_norm(r), 5.0, 5.0),
    "norms": (lambda r: torch.linalg.vector_norm(r.view(3, 2), dim=1).mean(), 1.0, 1.0),
    "pointwise": (lambda r: (torch.arange(6.0).double() * r.square()).mean(), 2.5, None),
    "negated": (lambda r: -r.square().mean(), -1.0, -1.0),
    "nan": (lambda r: math.nan * r.square().mean(), math.nan, None),
}


def residual(count: int = 6) -> Tensor:
    return rows(count) @ torch.ones(4, dtype=torch.float64, requires_grad=True)


@pytest.mark.parametrize(("loss", "total", "uniform"), LOSSES.values(), ids=LOSSES)
def test_weights_of_a_term(loss: Callable[[Tensor], Tensor], total: float, uniform: float | None):
    (term,) = find_terms(loss(residual()), check=False).values()
    weights = effective_weights({"a": term}, {"a": 0.5})
    assert weights == pytest.approx({"a": 0.5 * total}, nan_ok=True)
    assert uniform_weight(term) == (None if uniform is None else pytest.approx(uniform))


def test_uniform_weights_in_float32_are_uniform_up_to_rounding():
    r = rows(600).float() @ torch.ones(4, requires_grad=True)
    (term,) = find_terms((r / 3).square().mean() / 7).values()
    assert uniform_weight(term) == pytest.approx(1 / 7, rel=1e-6)


def test_factors_enter_the_curvature():
    terms = find_terms(3 * residual().square().mean(), names=["pde"])
    D = curvature(terms, {"pde": 5.0})["pde"]
    torch.testing.assert_close(D, torch.full((6,), 2 * 3 / 6 * 5, dtype=torch.float64))


NO_SQUARES = {name: LOSSES[name][0] for name in ("abs", "negated", "nan")} | {
    "huber": lambda r: torch.nn.functional.huber_loss(r, 0 * r),
    "inf": lambda r: math.inf * r.square().mean(),
}


@pytest.mark.parametrize("loss", NO_SQUARES.values(), ids=NO_SQUARES)
def test_no_curvature_without_a_descending_square(loss: Callable[[Tensor], Tensor]):
    terms = find_terms(loss(residual()) + residual(2).square().mean(), check=False)
    assert len(terms) == 2
    assert curvature(terms) is None


def test_curvature_on_other_points_gives_the_same_step_size():
    A = rows(3)
    few, many = linear(pde=A)[0], linear(pde=A.repeat(4, 1))[0]  # the same points, four times
    theta = torch.ones(4, dtype=torch.float64, requires_grad=True)
    terms = find_terms(5 * (A.repeat(4, 1) @ theta).square().mean(), names=["pde"])
    exact = max_stable_lr(many, many, curvature(terms))
    D = curvature_of_rows({"pde": uniform_weight(terms["pde"])}, {"pde": 3})
    assert max_stable_lr(few, few, D) == pytest.approx(exact, rel=1e-12)


@pytest.mark.parametrize("sums", [{}, {"pde": None}, {"pde": -1.0}, {"bc": 1.0}])
def test_no_curvature_on_other_points_without_a_weight(sums: dict[str, float | None]):
    assert curvature_of_rows(sums, {"pde": 3}) is None


def test_a_factor_multiplies_value_and_slope_of_a_term():
    (term,) = find_terms(10 * residual(2).square().sum()).values()
    plain, weighted = (TermLoss.of(term, factor) for factor in (1.0, 0.5))
    r = term.residual
    assert weighted.value(r) == pytest.approx(plain.value(r) / 2, rel=1e-15)
    torch.testing.assert_close(weighted.slope(r), plain.slope(r) / 2)


def test_on_other_points_a_uniform_weight_is_spread_over_them():
    (term,) = find_terms(10 * residual(2).square().sum()).values()
    other = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    loss = TermLoss.on_other_points(term, 3.0, 5)  # 10 * sum of 2 = 20 * mean; times 3
    assert loss.value(other) == pytest.approx(3 * 20 * 11, rel=1e-14)
    torch.testing.assert_close(loss.slope(other), (24 * other).double())


@pytest.mark.parametrize("name", ["pointwise", "norm", "mean", "abs"])
def test_weights_of_points_are_not_carried_over_to_others(name: str):
    (term,) = find_terms(LOSSES[name][0](residual())).values()
    assert (TermLoss.on_other_points(term, 1.0, 4) is not None) == (name in {"mean", "abs"})
