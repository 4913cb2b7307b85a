"""Traces, the groups of parameters that they are made of, and the weights in force."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from tests.looks import ask, grouped, look_at, rows, said, says, values

NETWORK = {"pde": rows(3).square().sum().item(), "bc": rows(2, seed=1).square().sum().item()}


def test_traces_of_groups_of_parameters():
    panel = ask(grouped({"theta": "network", "c": "inverse", "lam": "loss_weights"}))
    found, traces = values(panel), panel.readings["groups"].facts["groups"]
    assert list(traces) == ["network", "inverse"]  # no residual has loss weights
    assert traces["network"] == pytest.approx(NETWORK)
    assert traces["inverse"] == pytest.approx({"pde": 14.0, "bc": 0.0})
    assert found["trace_network/bc"] == pytest.approx(NETWORK["bc"])
    assert (found["trace_inverse/pde"], found["trace_inverse/bc"]) == pytest.approx((14.0, 0.0))
    whole = {term: found[f"trace/{term}"] for term in NETWORK}
    assert whole == pytest.approx(NETWORK | {"pde": NETWORK["pde"] + 14.0})
    tags = {f"drift/parameters_{group}" for group in ("network", "inverse")}  # lam starts as well
    assert tags | {"drift/parameters_loss_weights"} < set(found)


@pytest.mark.parametrize(
    "groups",
    [{}, {"theta": "network", "c": "network"}, {"theta": "network", "lam": "loss_weights"}],
)
def test_a_single_group_has_no_traces_of_its_own(groups: dict[str, str]):
    found = values(ask(grouped(groups)))
    assert not [tag for tag in found if tag.startswith("trace_")]
    assert found["trace/pde"] == pytest.approx(NETWORK["pde"] + 14.0)


def test_what_is_not_finite_is_left_out_but_for_the_trace_of_an_undefined_term():
    known = {"traces": {"pde": math.inf, "bc": 3.0}, "effective_weights": {"bc": 100.0}}
    known["effective_weights"]["ic"] = math.inf
    panel = ask(
        look_at({"bc": rows(2), "ic": math.nan * rows(2)}, known=known), "traces", "weights"
    )
    found = values(panel)
    assert math.isnan(found.pop("trace/ic"))
    assert found == {"trace/bc": 3.0, "effective_weight/bc": 100.0}


def facts(
    rows: int = 3, traces: dict[str, float] | None = None, weights: Any = None, **more: Any
) -> dict[str, Any]:
    of_traces = {} if traces is None else {"traces": {"traces": traces}}
    of_weights = {} if weights is None else {"weights": {"weights": weights}}
    return {"step": {"rows": {"pde": rows, "bc": 2}}} | of_traces | of_weights | more


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (
            facts(rows=2),
            (
                "that of pde is 37 times that of bc, so with equal weights bc lags behind. "
                "Weights that even the traces out: pde 1.03, bc 38."
            ),
        ),
        (
            facts(2, {"pde": 2.0, "bc": 3.0}),
            "Traces: within a factor of 1.5; with equal weights no term lags behind.",
        ),
        (
            facts(traces={"pde": 10.0, "bc": 1.0, "ic": math.inf}),
            "traces out: pde 1.1, bc 11 (the trace rule",
        ),
        (  # 111 / 9 = 12.33 and 3 / 4 = 0.75
            {},
            (
                "that of pde is 37 times that of bc; for plain means over the rows the average "
                "rate of convergence, 2 w Tr K / N^2, of pde is 16.4 times that of bc, so bc lags "
                "behind. Weights that even the rates of plain means of squares out: pde 1.06, bc "
                '17.4 (NTKBalancer(convention="rate")); that even the traces out: pde 1.03, bc 38 '
                '(the trace rule, eqs 6.5 and 6.6, convention="sum").'
            ),
        ),
        (  # 12.33 and 37.5
            facts(weights={"pde": 1.0, "bc": 50.0}),
            (
                "times that of bc; with the weights in force the average rate of convergence, "
                "2 w Tr K / N^2, of bc is 3.04 times that of pde, so pde lags behind."
            ),
        ),
        (
            facts(2, weights={"pde": 1.0, "bc": 37.0}),
            (
                "Traces: that of pde is 37 times that of bc; with the weights in force the average "
                "rates of convergence, 2 w Tr K / N^2, are equal to 5 %, and no term lags"
            ),
        ),
        (
            facts(2, weights={"pde": 4.0}),
            (
                "of pde is 148 times that of bc, so bc lags behind. Weights that even the traces "
                "out: pde 1.03, bc 38."
            ),
        ),
        (facts(weights={"pde": 1.0, "bc": 100.0}), "plain mean over the rows: pde 1, bc 1"),
        (
            facts(
                groups={
                    "groups": {"network": {"pde": 100.0}, "inverse": {"pde": 11.0}},
                    "traces": {"pde": 111.0, "bc": 3.0},
                }
            ),
            "pde: shares of the groups of parameters in its trace: network 0.9, inverse 0.099.",
        ),
        (facts(traces={"pde": 1.0}), "NOT Traces"),
        (facts(traces={"pde": 1.0, "bc": 0.0}), "NOT Traces"),
        (facts(traces={"pde": 1.0, "bc": math.inf}), "NOT Traces"),
        (facts(traces={"pde": math.nan, "bc": 1.0}), "NOT Traces"),
        (facts(traces={"pde": math.inf, "bc": math.nan}), "NOT Traces"),
        (facts(weights={"pde": 1.0, "bc": 0.0}), "NOT Traces"),
        (facts(weights={"pde": 1.0, "bc": math.inf}), "NOT Traces"),
        (facts(weights={"pde": 1.0, "bc": math.nan}), "NOT Traces"),
        (facts(weights={"pde": 1.0, "bc": 25.0}), "NOT even"),  # nobody lags behind
        (facts(weights={"pde": 1.0, "bc": 1.0 - 1e-7}), "NOT Weights in force"),
        ({}, "NOT shares of the groups"),
        (facts(groups={"groups": {}, "traces": {"pde": 111.0}}), "NOT shares"),
        (facts(groups={"groups": {"g": {}}, "traces": {"pde": math.inf}}), "NOT shares"),
    ],
)
def test_sentences(changes: dict[str, Any], sentence: str):
    assert says(said(**changes), sentence)


def test_who_lags_behind_follows_from_the_mean_eigenvalue_of_training():
    """Few points learn fast in a plain mean, whatever their trace."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"pde": (400, 3.0), "ic": (4, 1.0), "bc": (2, 1.0)}
    matrices = {
        name: scale * torch.randn(n, 9, generator=generator, dtype=torch.float64)
        for name, (n, scale) in sizes.items()
    }
    rates = {
        name: float(torch.linalg.eigvalsh(2 / len(A) * A @ A.mT).mean())
        for name, A in matrices.items()
    }
    assert max(rates, key=rates.__getitem__) == "bc"
    assert min(rates, key=rates.__getitem__) == "pde"
    ratio = rates["bc"] / rates["pde"]
    sentence = f"2 w Tr K / N^2, of bc is {ratio:.3g} times that of pde, so pde lags behind."
    assert sentence in ask(look_at(matrices)).summary()
