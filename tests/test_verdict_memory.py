"""What lasts is computed once in a training, and what may change anew at each measurement."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from pinn_ntk.verdict.case import Case
from tests.cases_of_residuals import case_of, d, grid, network

LASTS = {
    "order": {"ode": 3},
    "holders": {"ode": ["points"]},
    "demand": {"ode": 7.0},
    "unit": 7.0,
    "random": {"ode": 0.0, "start": 0.0},
    "cut": {"ode": 1e-9},
}
CHANGES = {
    "random": {"ode": 0.5, "start": 0.0},
    "cut": {"ode": 0.5},
    "rounding": {"ode": 0.5},
    "error": 0.5,
}
TERMS = {"ode": 1.0, "start": 1.0}


def decay(model: nn.Module, points: Tensor) -> dict[str, Tensor]:
    """u' = -u, u(0) = 1."""
    x = points.clone().requires_grad_()
    u = model(x)
    return {"ode": d(u, x) + u, "start": model(0 * points[:1]) - 1}


def case_after(*previous: Mapping[str, Any]) -> Case:
    case = case_of(decay, network(), grid())
    case.previous = previous
    return case


def two_after(found: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The measurement in which it was found, and one that had no use for it."""
    return {"rms": TERMS, **found}, {"rms": TERMS}


@pytest.mark.parametrize("name", LASTS)
def test_what_lasts_is_taken_from_an_earlier_measurement(name: str):
    assert getattr(case_after(*two_after({name: LASTS[name]})), name) == LASTS[name]


@pytest.mark.parametrize("name", CHANGES)
def test_what_may_change_is_looked_at_again(name: str):
    first, again = getattr(case_after(), name), getattr(case_after({"rms": TERMS, **CHANGES}), name)
    assert first == again != CHANGES[name]


@pytest.mark.parametrize("name", LASTS)
def test_nothing_is_taken_from_a_step_with_other_terms(name: str):
    before = {"rms": {"ode": 1.0}, name: LASTS[name]}
    assert getattr(case_after(before), name) == getattr(case_after(), name)


def test_the_step_is_run_in_float64_once():
    case = case_after()
    assert case.rounding == pytest.approx({"ode": 0.0, "start": 0.0}, abs=1e-12)
    assert all(r.dtype == torch.float64 for r in case.wide.residuals.values())
    runs = case.wide
    _ = case.cut, case.error, case.unit, case.exact
    assert case.wide is runs
