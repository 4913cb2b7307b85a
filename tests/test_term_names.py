"""Names of loss terms: given by position, by the graph of what is logged, or by its value."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.nn import functional

from pinn_ntk import Term, find_terms
from pinn_ntk.graph.terms.names import name_terms
from tests.idioms import Problem


@pytest.fixture
def parts(problem: Problem) -> SimpleNamespace:
    """Three terms and the numbers that a user may log of them."""
    s, pde = problem.s, (problem.r**2).mean()
    left, right = functional.mse_loss(s, 0 * s.detach()), (s - 1).abs().mean()
    return SimpleNamespace(pde=pde, left=left, right=right, loss=2 * pde + 10 * (left + right))


def names_of(loss: Tensor, names: object) -> list[str]:
    return list(find_terms(loss, names=names))


def test_names_by_position(parts: SimpleNamespace):
    loss = parts.loss
    assert names_of(loss, None) == ["term_0", "term_1", "term_2"]
    assert names_of(loss, ("a", "b", "c")) == ["a", "b", "c"]
    assert [term.name for term in find_terms(loss, names=["a", "b", "c"]).values()] == [*"abc"]
    terms: list[Term] = list(find_terms(loss).values())
    assert name_terms(terms[1:], {"right": parts.right}) == ["term_0", "right"]


@pytest.mark.parametrize("names", [["a"], ["a", "b", "c", "d"], ["a", "b", "a"]])
def test_names_that_do_not_fit_are_refused(parts: SimpleNamespace, names: list[str]):
    found = r"square of shape \(5, 2\), square of shape \(3, 1\), abs of shape \(3, 1\)"
    with pytest.raises(ValueError, match=rf"expected 3 different names.*{found}"):
        find_terms(parts.loss, names=names)
    with pytest.raises(TypeError, match="'abc'"):  # one string is no list of names
        find_terms(parts.loss, names="abc")


def test_names_by_graph(parts: SimpleNamespace):
    loss = parts.loss
    logged = {"loss": loss, "l/right": parts.right, "l/pde": 2 * parts.pde, "l/left": parts.left}
    assert names_of(loss, logged) == ["l/pde", "l/left", "l/right"]


def test_key_of_several_terms_numbers_them_and_names_stay_different(parts: SimpleNamespace):
    loss = parts.loss
    boundary = parts.left + parts.right
    assert names_of(loss, {"bc": boundary, "loss": loss}) == ["term_0", "bc_0", "bc_1"]
    logged = {"bc": boundary, "pde": parts.pde, "right": parts.right}
    assert names_of(loss, logged) == ["pde", "bc_0", "right"]
    logged = {"term_1": parts.pde, "bc_0": parts.right, "bc": boundary}
    assert names_of(loss, logged) == ["term_1", "term_1_", "bc_0"]


def test_total_names_only_a_single_term(parts: SimpleNamespace):
    assert names_of(parts.loss, {"loss": parts.loss}) == ["term_0", "term_1", "term_2"]
    assert names_of(3 * parts.pde, {"loss": parts.pde, "again": parts.pde}) == ["loss"]


def test_names_by_value(parts: SimpleNamespace):
    logged = {
        "lr": 1e-3,
        "loss": parts.loss.item(),
        "weighted": (2 * parts.pde).item(),
        "mean": parts.left.detach(),
        "sum": 3 * parts.right.item(),
    }
    assert names_of(parts.loss, logged) == ["weighted", "mean", "sum"]


@pytest.mark.parametrize(("factor", "named"), [(1 + 1e-7, True), (1 + 1e-5, False)])
def test_value_has_to_agree_to_six_digits(parts: SimpleNamespace, factor: float, named: bool):
    names = names_of(parts.loss, {"pde": factor * parts.pde.item()})
    assert names[0] == ("pde" if named else "term_0")


def test_value_of_two_terms_names_neither(problem: Problem):
    loss = (problem.r[:2] ** 2).mean() + (problem.r[:2].clone() ** 2).mean()
    value = (problem.r[:2] ** 2).mean().item()
    assert names_of(loss, {"a": value, "b": value}) == ["term_0", "term_1"]


def test_other_logged_tensors_are_passed_over(problem: Problem, parts: SimpleNamespace):
    logged = {
        "error": (problem.u - problem.r.detach()).norm(),
        "residual": problem.r,
        "output": problem.u.detach(),
        "nan": math.nan,
        "pde": parts.pde,
    }
    assert names_of(parts.loss, logged) == ["pde", "term_1", "term_2"]


@pytest.mark.parametrize("pick", [lambda all_, i: all_[i], lambda all_, i: all_.unbind()[i]])
def test_numbers_picked_from_a_stack_name_their_terms(pick: Any):
    """As ``losses = torch.stack([...])``, each logged from there; the stack itself is the total."""
    w = torch.ones(3, requires_grad=True)
    residuals = {"pde": w - 2, "bc": w[:1] - 3, "ic": w[:2] - 4}
    losses = torch.stack([r.square().mean() for r in residuals.values()])
    logged = {key: pick(losses, i - 3) for i, key in enumerate(residuals)}
    assert list(find_terms(losses.sum(), names=logged)) == list(residuals)
