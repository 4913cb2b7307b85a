"""Trace weights in the three conventions, against numbers computed by hand."""

from __future__ import annotations

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from pinn_ntk import NTK, trace_weights
from pinn_ntk.weights.trace import Convention, weights_from_traces
from tests.kernels import explicit
from tests.scripts import load

CONVENTIONS: list[Convention] = ["sum", "mean", "rate"]

# pde: 4 rows, trace 8; bc: 2 rows, trace 2; ic: 3 rows, trace 30. Sum of traces 40.
TRACES, ROWS = {"pde": 8.0, "bc": 2.0, "ic": 30.0}, {"pde": 4, "bc": 2, "ic": 3}
BY_HAND: dict[Convention, dict[str, float]] = {
    "sum": {"pde": 5.0, "bc": 20.0, "ic": 4 / 3},
    "mean": {"pde": 6.5, "bc": 13.0, "ic": 1.3},
    "rate": {"pde": 26 / 3, "bc": 26 / 3, "ic": 1.3},
}


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_weights_by_hand(convention: Convention) -> None:
    weights = weights_from_traces(TRACES, ROWS, convention)
    assert weights == pytest.approx(BY_HAND[convention], rel=1e-15)
    assert list(weights) == list(TRACES)
    assert weights_from_traces({"pde": 0.3}, {"pde": 11}, convention) == {"pde": 1.0}


@pytest.mark.parametrize("convention", CONVENTIONS)
def test_weighted_terms_learn_at_one_rate(convention: Convention) -> None:
    weights = weights_from_traces(TRACES, ROWS, convention)
    power = CONVENTIONS.index(convention)  # of the rows, in what the convention makes equal
    rates = {n: weights[n] * TRACES[n] / ROWS[n] ** power for n in TRACES}
    assert rates == pytest.approx(dict.fromkeys(TRACES, rates["pde"]), rel=1e-14)


def test_all_conventions_agree_when_all_terms_have_as_many_rows() -> None:
    rows = dict.fromkeys(TRACES, 7)
    by_sum, by_mean, by_rate = (weights_from_traces(TRACES, rows, c) for c in CONVENTIONS)
    assert by_sum == pytest.approx(by_mean, rel=1e-15)
    assert by_sum == pytest.approx(by_rate, rel=1e-15)
    assert by_sum == BY_HAND["sum"]


def test_the_papers_weights_are_shares_turned_over() -> None:
    """sum_a 1 / lambda_a = 1, since 1 / lambda_a is the share of term a in the trace."""
    generator = torch.Generator().manual_seed(2)
    for terms in range(1, 6):
        exponents = 20 * torch.rand(terms, generator=generator, dtype=torch.float64) - 10
        traces = {str(i): float(10**e) for i, e in enumerate(exponents)}
        weights = weights_from_traces(traces, dict.fromkeys(traces, 3), "sum")
        assert sum(1 / w for w in weights.values()) == pytest.approx(1.0, rel=1e-14)
        assert min(weights.values()) >= 1.0


def two_terms() -> NTK:
    """pde: 2 rows with gradients (3, 0) and (0, 4); bc: 1 row with gradient (1, 1)."""
    return explicit(pde=torch.tensor([3.0, 4.0]).diag(), bc=torch.ones(1, 2))


def test_weights_of_a_kernel() -> None:
    """Traces 25 and 2, rows 2 and 1."""
    kernel = two_terms()
    assert trace_weights(kernel, "sum") == {"pde": 27 / 25, "bc": 27 / 2}
    mean, rate = {"pde": 14.5 / 12.5, "bc": 14.5 / 2}, {"pde": 8.25 / 6.25, "bc": 8.25 / 2}
    assert trace_weights(kernel) == trace_weights(kernel, "mean") == pytest.approx(mean, rel=1e-15)
    assert trace_weights(kernel, convention="rate") == pytest.approx(rate, rel=1e-15)


@pytest.mark.parametrize("trace", [0.0, -1.0, float("nan"), float("inf")])
def test_a_term_without_a_positive_trace_is_named(trace: float) -> None:
    with pytest.raises(ValueError, match=rf"the cost of term 'bc' .* is {trace}; a weight"):
        weights_from_traces({"pde": 1.0, "bc": trace}, {"pde": 1, "bc": 1})


def test_unknown_convention_is_named() -> None:
    with pytest.raises(ValueError, match=r"'product'; expected one of \('sum', 'mean', 'rate'\)"):
        trace_weights(two_terms(), "product")  # type: ignore[arg-type]


# --- How many points were drawn


def test_weights_do_not_depend_on_how_often_points_are_given() -> None:
    """Case 6: a is a network at ten points, b the same ten points a hundred times each."""
    sampling = load("sampling")
    kernel = sampling.repeated(sampling.network(seed=0))
    expected = {"mean": (2, 2), "sum": (101, 1.01), "rate": (1.01, 101)}
    for convention, (a, b) in expected.items():
        assert trace_weights(kernel, convention) == pytest.approx({"a": a, "b": b}, rel=1e-10)
    assert trace_weights(kernel) == pytest.approx({"a": 2, "b": 2}, rel=1e-10)


def test_weights_hardly_depend_on_how_many_points_are_drawn() -> None:
    found = load("sampling").table(0)
    spread = {
        convention: max(r[convention] for r in found.values())
        / min(r[convention] for r in found.values())
        for convention in CONVENTIONS
    }
    assert spread["mean"] < 1.05
    assert min(spread["sum"], spread["rate"]) > 1000
    equal = found[100, 100]
    assert equal["sum"] == pytest.approx(equal["mean"], rel=1e-10)
    assert equal["rate"] == pytest.approx(equal["mean"], rel=1e-10)


ROWS_OF = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 500), min_size=2)


@given(ROWS_OF, st.integers(1, 50))
def test_rows_given_again_change_no_weight_by_default(rows: dict[str, int], times: int) -> None:
    traces = {name: 0.3 * count for count, name in enumerate(rows, start=1)}
    first, *_ = rows
    more = {first: times}
    again = weights_from_traces(
        {name: trace * more.get(name, 1) for name, trace in traces.items()},
        {name: count * more.get(name, 1) for name, count in rows.items()},
    )
    assert again == pytest.approx(weights_from_traces(traces, rows), rel=1e-12)
