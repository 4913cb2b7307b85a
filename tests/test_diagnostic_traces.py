"""Traces, the groups of parameters that they are made of, and the weights in force."""

from __future__ import annotations

import math
from typing import Any

import pytest
import torch
from torch import Tensor

from pinn_ntk import look, trace_weights
from tests.looks import ask, grouped, linear, look_at, rows, said, says, traces_of, values

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
    rates: dict[str, float] | None = None,
    traces: dict[str, float] | None = None,
    weights: Any = None,
    balanced: bool = False,
    **more: Any,
) -> dict[str, Any]:
    """Of pde with 3 rows and bc with 2."""
    traces = traces or {"pde": 111.0, "bc": 3.0}
    rates = rates or {"pde": 74.0, "bc": 3.0}
    of_weights = {} if weights is None else {"weights": {"weights": weights}}
    return {"traces": traces_of(traces, rates, balanced=balanced)} | of_weights | more


RATE = "Rates: 2 w mean(K_ii), the rate at which a term learns: "


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [
        (  # (37 + 1.5) / 37 and / 1.5
            facts(),
            RATE + "with equal weights that of pde is 24.7 times that of bc, so bc lags behind. "
            "Weights that even the rates out: pde 1.04, bc 25.7 (NTKBalancer() sets them).",
        ),
        (
            facts({"pde": 2.0, "bc": 3.0}),
            RATE + "with equal weights within a factor of 1.5, and no term lags behind.",
        ),
        (
            facts({"pde": 74.0, "bc": 150.0}, weights={"pde": 1.0, "bc": 50.0}),
            RATE + "with the weights in force within a factor of 2, and no term lags behind.",
        ),
        (
            facts({"pde": 74.0, "bc": 300.0}, weights={"pde": 1.0, "bc": 100.0}),
            RATE + "with the weights in force that of bc is 4.05 times that of pde, so pde lags "
            "behind. Weights of plain means of squares that even the rates out: pde 1.04, bc 25.7 "
            "(NTKBalancer() sets them, which multiplies them with those of the loss).",
        ),
        (
            facts({"pde": 76.96, "bc": 77.0}, weights={"pde": 1.04, "bc": 25.7}, balanced=True),
            RATE + "with the weights in force, the balancer's included, equal to within 5 %.",
        ),
        (
            facts({"pde": 74.0, "bc": 300.0}, weights={"pde": 1.0, "bc": 100.0}, balanced=True),
            RATE + "with the weights in force, the balancer's included, that of bc is 4.05 times "
            "that of pde.",
        ),
        (facts({"pde": 74.0, "bc": 300.0}, balanced=True), "NOT lags behind"),
        (facts({"pde": 74.0, "bc": 300.0}, balanced=True), "NOT even the rates out"),
        (  # of a third term without a kernel that moves
            facts({"pde": 10.0, "bc": 1.0}, {"pde": 15.0, "bc": 1.0, "ic": 0.0}),
            "out: pde 1.1, bc 11 (NTKB",
        ),
        (facts(weights={"pde": 1.0, "bc": 100.0}), "plain mean over the rows: pde 1, bc 100"),
        (
            facts(
                groups={
                    "groups": {"network": {"pde": 100.0}, "inverse": {"pde": 11.0}},
                    "traces": {"pde": 111.0, "bc": 3.0},
                }
            ),
            "pde: shares of the groups of parameters in its trace: network 0.9, inverse 0.099.",
        ),
        (facts({"pde": 1.0}), "NOT Rates"),
        (facts({"pde": 1.0, "bc": 0.0}), "NOT Rates"),
        (facts({"pde": 1.0, "bc": math.inf}), "NOT Rates"),
        (facts({"pde": math.nan, "bc": 1.0}), "NOT Rates"),
        (facts({"pde": math.inf, "bc": math.nan}), "NOT Rates"),
        (facts(weights={"pde": 1.0, "bc": 1.0 - 1e-7}), "NOT Weights in force"),
        (facts(weights={"pde": 1.0, "bc": 1.0 - 1e-7}), "with equal weights"),
        ({}, "NOT shares of the groups"),
        (facts(groups={"groups": {}, "traces": {"pde": 111.0}}), "NOT shares"),
        (facts(groups={"groups": {"g": {}}, "traces": {"pde": math.inf}}), "NOT shares"),
    ],
)
def test_sentences(changes: dict[str, Any], sentence: str):
    assert says(said(**changes), sentence)


# --- Rates


def loss_of(
    matrices: dict[str, Tensor], weights: dict[str, Any], kinds: dict[str, Any]
) -> tuple[Tensor, Tensor]:
    """sum_a w_a phi_a(A_a theta), and theta."""
    theta = torch.linspace(1, 2, 4, dtype=torch.float64).requires_grad_()
    means = [kinds.get(n, plain)(A @ theta, weights.get(n, 1.0)) for n, A in matrices.items()]
    return torch.stack(means).sum(), theta


def plain(r: Tensor, w: Any) -> Tensor:
    return (w * r.square()).mean()


def read(matrices: dict[str, Tensor], own: Any = None, kinds: Any = None, **of_look: Any) -> Any:
    """The panel that has read a step of this loss."""
    loss, theta = loss_of(matrices, own or {}, kinds or {})
    return ask(look(loss, {"theta": theta}.items(), names=list(matrices), **of_look))


SLOW, FAST = rows(3, seed=1), 5 * rows(3, seed=2)


@pytest.mark.parametrize("repeats", [(1, 1), (1, 50), (7, 2), (40, 1)])
@pytest.mark.parametrize("own", [{}, {"bc": 20.0}, {"pde": 0.3, "bc": 4000.0}], ids=str)
def test_what_is_said_does_not_depend_on_how_many_points_were_drawn(
    repeats: tuple[int, int], own: dict[str, float]
):
    matrices = {"pde": FAST, "bc": SLOW}
    many = {n: A.repeat(k, 1) for (n, A), k in zip(matrices.items(), repeats, strict=True)}
    (few,) = [line for line in read(matrices, own).summary().splitlines() if "Rates" in line]
    assert few in read(many, own).summary()


def test_rates_are_traces_of_the_operator_of_training():
    matrices = {"pde": rows(5), "bc": rows(3, seed=1), "l1": rows(2, seed=2)}
    causal = torch.tensor([1.0, 0.5, 0.25, 0.1, 0.0], dtype=torch.float64)
    kinds = {"bc": lambda r, w: w * r.square().sum(), "l1": lambda r, w: w * r.abs().mean()}
    panel = read(matrices, {"pde": causal, "bc": 2.0, "l1": 3.0}, kinds)
    squares = {n: A.square().sum(1) for n, A in matrices.items()}
    expected = {
        "pde": float(2 / 5 * causal @ squares["pde"]),
        "bc": float(2 * 2 * squares["bc"].sum()),
        "l1": float(2 * 3 * squares["l1"].mean()),
    }
    assert panel.readings["traces"].facts["rates"] == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("repeats", [(1, 1), (30, 1), (1, 30)])
def test_weights_of_the_trace_rule_leave_nothing_to_say(repeats: tuple[int, int]):
    matrices = {"pde": FAST.repeat(repeats[0], 1), "bc": SLOW.repeat(repeats[1], 1)}
    kernel, _ = linear(**matrices)
    weights = trace_weights(kernel)
    listed = ", ".join(f"{term} {weight:.3g}" for term, weight in weights.items())
    assert f"even the rates out: {listed} (NTKBalancer() sets" in read(matrices).summary()
    balanced = read(matrices, weights=weights).summary()
    assert "equal to within 5 %, and no term lags behind" in balanced


def test_a_term_that_only_rounding_moves_is_left_out():
    matrices = {"pde": FAST, "bc": SLOW, "wall": 1e-17 * SLOW}
    summary = read(matrices).summary()
    assert "Weights that even the rates out: pde 1.0" in summary
    assert "wall" not in next(line for line in summary.splitlines() if "Rates" in line)


def test_who_lags_behind_follows_from_the_trace_of_the_operator_of_training():
    """The number of points says nothing in a plain mean."""
    generator = torch.Generator().manual_seed(0)
    sizes = {"pde": (400, 3.0), "ic": (4, 1.0), "bc": (2, 1.0)}
    matrices = {
        name: scale * torch.randn(n, 9, generator=generator, dtype=torch.float64)
        for name, (n, scale) in sizes.items()
    }
    rates = {
        name: float(torch.linalg.eigvalsh(2 / len(A) * A @ A.mT).sum())
        for name, A in matrices.items()
    }
    slow, fast = (choose(rates, key=rates.__getitem__) for choose in (min, max))
    assert fast == "pde"
    ratio = rates[fast] / rates[slow]
    sentence = f"that of {fast} is {ratio:.3g} times that of {slow}, so {slow} lags behind."
    assert sentence in ask(look_at(matrices)).summary()
