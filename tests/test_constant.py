"""The part of a loss that no gradient flows from, and scalars that are squared twice."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from pinn_ntk.graph.terms.constant import constant_part, is_sum_of_squares
from tests.idioms import IDIOMS, Problem


@pytest.mark.parametrize("idiom", IDIOMS)
def test_a_loss_as_people_write_it_has_no_constant_part(problem: Problem, idiom: str):
    loss, _ = IDIOMS[idiom](problem)
    constant = constant_part(loss)
    assert constant is not None
    assert not constant.seen


@pytest.mark.parametrize("idiom", IDIOMS)
@pytest.mark.parametrize("factor", [1.0, -1e-3, 100.0])
def test_what_was_detached_is_found_to_rounding(problem: Problem, idiom: str, factor: float):
    loss, _ = IDIOMS[idiom](problem)
    lost = factor * problem.s.square().mean().detach()
    constant = constant_part(loss + lost)
    assert constant is not None
    assert constant.seen
    assert constant.value == pytest.approx(float(lost), rel=1e-9)


SLIPS: dict[str, Callable[[Problem], tuple[Tensor, float]]] = {
    # the loss, and what of it has no gradient
    "item": lambda p: (p.r.square().mean() + (c := p.s.square().mean().item()), c),
    "integer": lambda p: (p.r.square().mean() + (p.r > 0).sum(), float((p.r > 0).sum())),
    "number in front": lambda p: (3.0 + p.r.square().sum() - 1, 2.0),
    "stacked": lambda p: (
        torch.stack([p.r.square().mean(), c := p.s.detach().square().mean()]).sum(),
        float(c),
    ),
    "weighed": lambda p: (
        (torch.stack([p.r.square().mean(), c := p.s.detach().square().mean()]) * 4).sum(),
        4 * float(c),
    ),
    "concatenated": lambda p: (
        torch.cat([p.r.square(), p.s.detach().square().expand(3, 2)]).mean(),
        float(2 * p.s.detach().square().sum() / 16),
    ),
    "beside learned weights": lambda p: (
        torch.exp(-p.log_var) * p.r.square().mean() + p.log_var + (c := p.s.detach().norm()),
        float(c),
    ),
    "barrier": lambda p: (
        p.r.square().mean() - torch.log(1 + p.s.square().sum()) / 10 + 0.25,
        0.25,
    ),
    "subtracted": lambda p: (p.r.abs().mean() - (c := p.s.detach().abs().mean()), -float(c)),
}


@pytest.mark.parametrize("slip", SLIPS)
def test_kinds_of_it(problem: Problem, slip: str):
    loss, expected = SLIPS[slip](problem)
    constant = constant_part(loss)
    assert constant is not None
    assert constant.value == pytest.approx(expected, rel=1e-12)
    assert constant.seen == (expected != 0)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_rounding_is_no_constant(dtype: torch.dtype):
    net = nn.Sequential(nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1)).to(dtype)
    u = net(torch.rand(3000, 1, dtype=dtype))
    for loss in (u.square().mean(), u.square().sum(), sum(row.square().sum() for row in u[:300])):
        constant = constant_part(3 * loss + mse_loss(u, torch.ones_like(u)))
        assert constant is not None
        assert not constant.seen


def test_a_mean_of_nothing_is_not_finite_though_its_terms_are(problem: Problem):
    constant = constant_part(problem.r.square().mean() + problem.s[:0].square().mean())
    assert constant is not None
    assert constant.value != constant.value
    assert constant.seen
    nothing = constant_part(problem.r.square().mean() + problem.s[:0].square().sum())
    assert nothing is not None
    assert not nothing.seen
    assert constant_part((problem.r / 0).square().mean()) is None  # a term is not finite itself


TWICE: dict[str, tuple[Callable[[Problem], Tensor], int]] = {
    # residual of one number -> rows of what is squared in it
    "mean of squares": (lambda p: p.r.square().mean(), 10),
    "weighted sum": (lambda p: 3 * p.r.square().mean() + mse_loss(p.s, 0 * p.s.detach()), 13),
    "of shape (1,)": (lambda p: p.r.square().mean().reshape(1), 10),
    "absolute values": (lambda p: p.r.abs().mean(), 10),
    "with a target": (lambda p: p.r.square().mean() - 1, 0),
    "with a target at the network": (lambda p: p.r.square().mean() - p.u[0, 0] ** 2, 0),
    "integral": (lambda p: p.r.mean(), 0),
    "integral with a target": (lambda p: p.r.mean() - 2, 0),
    "one point": (lambda p: p.u[0, 0] - 1, 0),
    "square of one point": (lambda p: p.u[0, 0] ** 2, 0),
    "norm": (lambda p: p.r.norm(), 0),
    "rmse": (lambda p: p.r.square().mean().sqrt(), 0),
    "difference of energies": (lambda p: p.r.square().mean() - p.s.square().mean(), 0),
    "inverse parameter": (lambda p: (p.lam**2).mean(), 0),
    "many rows": (lambda p: p.r.square(), 0),
}


@pytest.mark.parametrize("residual", TWICE)
def test_scalars_that_are_losses_are_told_from_honest_ones(problem: Problem, residual: str):
    make, rows = TWICE[residual]
    assert is_sum_of_squares(make(problem)) == rows
