"""Traces, the groups of parameters that they are made of, and the weights in force."""

from __future__ import annotations

import math
import re
from typing import Any

import pytest

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


def shares(groups: dict[str, dict[str, float]], **traces: float) -> dict[str, Any]:
    return {"groups": {"groups": groups, "traces": traces}}


BOTH = {"network": {"pde": 100.0, "bc": 3.0}, "inverse": {"pde": 11.0}}
FORCE = "Weights in force, where 1 is a plain mean over the rows: "


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        ({"weights": {"weights": {"pde": 1.0, "bc": 100.0}}}, f"{FORCE}pde 1, bc 100.\n"),
        ({"weights": {"weights": {"pde": 1.0, "bc": 1.0 - 1e-7}}}, "NOT Weights"),
        ({"weights": {"weights": {"pde": 1.0, "bc": math.nan}}}, "NOT Weights"),
        ({"weights": {"weights": {}}}, "NOT Weights"),
        (
            shares(BOTH, pde=111.0, bc=3.0),
            (
                "Shares of the groups of parameters in the trace: pde network 0.9, inverse 0.099; "
                "bc network 1, inverse 0.\n"
            ),
        ),
        (shares(BOTH, pde=math.inf, bc=0.0), "NOT Shares"),
        (shares({}, pde=111.0), "NOT Shares"),
        ({}, "NOT Shares"),
    ],
)
def test_sentences(changes: dict[str, Any], sentence: str):
    assert says(said(**changes), sentence)


@pytest.mark.parametrize("repeats", [1, 50])
@pytest.mark.parametrize("factor", [1e-4, 1.0, 1e4])
def test_nothing_is_said_from_ratios_of_traces(factor: float, repeats: int):
    """Neither how many points were drawn nor a scale tells which term is solved."""
    matrices = {"pde": rows(3), "bc": factor * rows(3, seed=1).repeat(repeats, 1)}
    assert re.search("lag|Rates|Weights|Balancer", ask(look_at(matrices)).summary()) is None
